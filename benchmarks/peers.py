"""The tools that we are measured against. They need not be installed: a row then says how to install them."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.results import Row

#: No peer may send anything, or look for a network.
os.environ |= {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_DISABLE_CODE": "true",
}


class PeerMissing(Exception):
    """A peer is not installed."""


def require(module: str) -> Any:
    """A peer's module; raises PeerMissing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise PeerMissing(f"not installed ({error}); `make bench`, or `pip install '.[bench]'`") from error


def rows_of(subject: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """What `measure` returns, or the one row that says that its peer is missing."""
    try:
        return measure()
    except PeerMissing as missing:
        return [Row(subject, note=str(missing))]
