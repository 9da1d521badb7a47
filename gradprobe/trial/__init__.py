"""Remedies that are tried: which changes of a spec, over which seeds, and what they did. Knows no storage."""
