"""Real processes under random faults, and the audit afterwards: `python -m benchmarks.chaos --help`."""
