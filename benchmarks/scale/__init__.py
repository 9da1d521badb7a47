"""How far one machine goes, and what more of them bring: stacks, sweeps, worker processes."""
