"""Data sets: fetched from the first source that works, verified, cached, and turned into tensors."""

from worker.data.dataset import Dataset, load

__all__ = ["Dataset", "load"]
