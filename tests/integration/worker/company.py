"""Experiments that can be trained side by side, for tests."""

from typing import Any

from gradprobe.state import Status
from tests.integration.store.transactions import Store

ITERATIONS = 200
#: Long enough to be met while it runs.
LONG = 200_000


class Killed(BaseException):
    """As near to SIGKILL as one process comes: nothing handles it."""


def document(seed: int = 0, iterations: int = ITERATIONS, **parts: Any) -> dict[str, Any]:
    return {
        "dataset": "synthetic",
        "network": {"depth": 3, "width": 8, "activation": "tanh"},
        "optimizer": {"name": "adam", "learning_rate": 0.001 * (1 + seed)},
        "training": {"iterations": iterations, "batch_size": 16, "seed": seed},
        "recording": {"histograms_every": 20, "evaluate_every": 50},
        **parts,
    }


def queue(store: Store, count: int, **parts: Any) -> list[str]:
    return [store.create(document(seed, **parts), attempts=50).id for seed in range(count)]


def statuses(store: Store, identifiers: list[str]) -> list[Status]:
    return [store.get(identifier).status for identifier in identifiers]
