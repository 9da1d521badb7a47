"""Rules over stored statistics: what is wrong, since when, what carries it, and what to change.

`diagnose` takes a spec and decoded blocks, so it runs in the worker, in the service over an old run, and in a user's
own loop. It measures nothing and stores nothing.
"""

from gradprobe.diagnosis.findings import Diagnosis, Finding, Remedy
from gradprobe.diagnosis.measurements import Measurements
from gradprobe.diagnosis.thresholds import Thresholds
from gradprobe.diagnosis.verdict import VERSION, diagnose

__all__ = ["VERSION", "Diagnosis", "Finding", "Measurements", "Remedy", "Thresholds", "diagnose"]
