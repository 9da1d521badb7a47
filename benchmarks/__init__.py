"""The claims about speed, memory and size, each measured against the peer that it names, in one run, as ratios.

`python -m benchmarks` runs all; each module also runs alone. What the figures mean: `docs/benchmarks.md`.
"""
