"""One worker's try at one experiment, alone or in a stack: what is written of it, and how it ends."""

import logging
import math
import os
import platform
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from sqlalchemy import Connection

from gradprobe import telemetry
from gradprobe.diagnosis import VERSION, diagnose
from gradprobe.diagnosis.summary import summarize
from gradprobe.errors import DatabaseUnavailable, GradprobeError, LeaseLost, WorkerStopping
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import leases, measurements
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.leases import Lease
from gradprobe.store.reader import Reader
from worker.data import Dataset
from worker.loop import Outcome
from worker.patience import Patience

_logger = logging.getLogger(__name__)

#: Set when this process was asked to stop; a running experiment is then given back at its next iteration.
stopping = threading.Event()
patience = Patience(stopping)

#: What says nothing of the experiment, but of the worker that had it.
OF_THE_WORKER = (LeaseLost, WorkerStopping, DatabaseUnavailable)


class DeviceLost(Exception):
    """The device answers nothing any more, and never will in this process, which must end.

    What it trained is then a lost worker's, as if it had been killed: the next goes on when the leases have run out,
    and after so many attempts it is the experiment's fault.
    """


@dataclass(frozen=True)
class Attempt:
    """One worker's try at one experiment."""

    record: Record
    lease: Lease
    settings: Settings
    database: Database
    stacked: bool = False  # in a stack, be it of one

    @cached_property
    def spec(self) -> Spec:
        """What was asked for; raises ValidationError for what no longer is a spec."""
        return Spec.model_validate(self.record.spec)

    @property
    def known(self) -> dict[str, Any]:
        """What its log lines and spans name."""
        return {"request_id": self.record.request_id, "attempt": self.lease.attempt, "worker": worker_name()}

    @property
    def attributes(self) -> dict[str, Any]:
        """The same and more, for a span."""
        record = self.record
        named = {"experiment_id": record.id, "iteration": record.iteration, "iterations": record.iterations}
        return {f"gradprobe.{name}": value for name, value in (named | self.known).items() if value is not None}

    def write(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Do one of `leases`' actions in a transaction of its own, patiently."""

        def write() -> None:
            with self.database.write() as connection:
                action(connection, self.lease, *arguments, **options)

        patience.do(write)

    def end(self, status: Status, values: dict[str, Any]) -> None:
        """Store how it ended, and what the rules say of it; raises LeaseLost."""
        self.write(_finish, status, **values, **_judged(self))


def failure(error: Exception) -> dict[str, Any]:
    """An experiment's `error`."""
    if isinstance(error, GradprobeError):
        _logger.warning("%s", error.message)
        return {"code": error.code, "message": error.message}
    _logger.exception("failed", exc_info=error)
    message = f"{type(error).__name__}: {error}. The worker's log has the details."
    return {"code": GradprobeError.code, "message": message}


def _finish(
    connection: Connection, lease: Lease, status: Status, *, summary: dict[str, Any] | None = None, **values: Any
) -> None:
    if summary is not None:
        leases.note_summary(connection, lease, summary)
    leases.finish(connection, lease, status, **values)


def _judged(attempt: Attempt) -> dict[str, Any]:
    """What the rules say of what was measured; whatever fails here, the experiment ends as it would without."""
    try:
        with attempt.database.read() as connection:
            measured = measurements.read(Reader(connection, attempt.record.id), attempt.spec)
        if not measured.blocks:
            return {}
        with telemetry.span("diagnose"):
            found = diagnose(measured)
        return {"verdict": found.verdict, "summary": summarize(measured, found, VERSION)}
    except Exception:
        _logger.exception("no verdict")
        return {}


def worker_name() -> str:
    """This process, as experiments name who trains them."""
    return f"{socket.gethostname()}:{os.getpid()}"


def provenance(spec: Spec, dataset: Dataset, device: torch.device, stacked: int | None = None) -> dict[str, Any]:
    """What is needed to get the same numbers again; `stacked`: how many train side by side."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "gradprobe": version("gradprobe"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": name,
        "threads": torch.get_num_threads(),
        "dataset_sha256": dataset.sha256,
        "seed": spec.training.seed,
        "worker": worker_name(),
        "stacked": stacked,
    }


def result(outcome: Outcome, iterations: int) -> dict[str, Any]:
    """An experiment's `result`."""
    return {
        "final_loss": _finite(outcome.final_loss),
        "train_accuracy": outcome.train.accuracy,
        "test_accuracy": outcome.test.accuracy,
        "test_loss": _finite(outcome.test.loss),
        "seconds": outcome.seconds,
        "iterations_per_second": iterations / outcome.seconds,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
