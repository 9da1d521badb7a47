"""Run one experiment from claim to end. Imports torch, so only the pool's child loads it."""

import logging
import math
import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import torch
from sqlalchemy import Connection

from gradprobe import telemetry
from gradprobe.diagnosis import VERSION, diagnose
from gradprobe.diagnosis.summary import summarize
from gradprobe.errors import (
    CorruptBlock,
    DatabaseUnavailable,
    DeviceUnavailable,
    ExperimentCancelled,
    GradprobeError,
    LeaseLost,
    TimeLimitExceeded,
    WorkerStopping,
)
from gradprobe.logs import bound
from gradprobe.probe import warm_up
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import checkpoints, leases, measurements
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.leases import Lease
from gradprobe.store.reader import Reader
from worker.checkpoint import Checkpoint, CheckpointUnusable
from worker.data import Dataset, load
from worker.flush import Flusher
from worker.heartbeat import Heartbeat, beating
from worker.loop import Chunk, Outcome, Pace, Sink, train
from worker.network.builders import device_of
from worker.patience import Patience

_logger = logging.getLogger(__name__)

#: Multiply-adds an iteration from which more than one thread pays; below it they only wait for each other.
_THREADS_PAY_FROM = 50_000_000

__all__ = ["execute", "stopping", "warm_up"]

#: Set when this process was asked to stop; a running experiment is then given back at its next iteration.
stopping = threading.Event()
_patience = Patience(stopping)


def execute(experiment_id: str, settings: Settings, database: Database) -> Status | None:
    """Claim the experiment, train it, store how it ended; None when it did not end here.

    Whatever goes wrong ends up in the experiment's `error`: an experiment never stays `running` for a reason that this
    process knows, unless the database is away for so long that it can't be told.
    """
    with bound(experiment_id=experiment_id):
        return _execute(experiment_id, settings, database)


def _execute(experiment_id: str, settings: Settings, database: Database) -> Status | None:
    if stopping.is_set():
        return None  # it waits for a worker that stays
    with database.write() as connection:
        claimed = leases.claim(connection, experiment_id, _worker_name(), settings.lease_seconds)
    if claimed is None:
        _logger.info("nothing to do")
        return None
    record, lease = claimed
    known = {"request_id": record.request_id, "attempt": lease.attempt, "worker": _worker_name()}
    with telemetry.span("attempt", record.traceparent, "CONSUMER", _attributes(record, known)) as span:
        with bound(**known, **telemetry.log_fields()):
            _logger.info("begins at iteration %d of %d", record.iteration, record.iterations)
            status = _attempt(Attempt(record, lease, settings, database))
        span.set_attributes({"gradprobe.status": status or "not ended"})
    return status


def _attributes(record: Record, known: dict[str, Any]) -> dict[str, Any]:
    named = {"experiment_id": record.id, "iteration": record.iteration, "iterations": record.iterations} | known
    return {f"gradprobe.{name}": value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One worker's try at one experiment."""

    record: Record
    lease: Lease
    settings: Settings
    database: Database

    def write(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Do one of `leases`' actions in a transaction of its own, patiently."""

        def write() -> None:
            with self.database.write() as connection:
                action(connection, self.lease, *arguments, **options)

        _patience.do(write)


def _attempt(attempt: Attempt) -> Status | None:
    try:
        return _hold(attempt)
    except LeaseLost:
        _logger.warning("lost its lease and stops")
    except DatabaseUnavailable as error:
        _logger.error("left to the next worker, the database stayed away: %s", error)
    return None


def _hold(attempt: Attempt) -> Status | None:
    try:
        with beating(attempt.database, attempt.lease, attempt.settings.heartbeat_seconds) as heartbeat:
            status, values = _outcome(attempt, heartbeat)
        values |= _judged(attempt.database, attempt.record)
        attempt.write(_finish, status, **values)
    except WorkerStopping:
        attempt.write(leases.give_back)
        _logger.info("given back, this worker stops")
        return None
    _logger.info("ended: %s", status)
    return status


def _outcome(attempt: Attempt, heartbeat: Heartbeat) -> tuple[Status, dict[str, Any]]:
    try:
        outcome = _train(attempt, Spec.model_validate(attempt.record.spec), heartbeat)
    except (LeaseLost, WorkerStopping, DatabaseUnavailable):
        raise
    except ExperimentCancelled:
        return Status.CANCELLED, {}
    except GradprobeError as error:
        _logger.warning("%s", error.message)
        return Status.FAILED, {"error": {"code": error.code, "message": error.message}}
    except Exception as error:
        _logger.exception("failed")
        message = f"{type(error).__name__}: {error}. The worker's log has the details."
        return Status.FAILED, {"error": {"code": GradprobeError.code, "message": message}}
    return Status.SUCCEEDED, {"result": _result(outcome, attempt.record.iterations)}


def _train(attempt: Attempt, spec: Spec, heartbeat: Heartbeat) -> Outcome:
    settings, device = attempt.settings, device_of(spec.training.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "The experiment asks for CUDA and this worker has none; "
            'start a worker on a machine with a GPU, or use "device": "auto".'
        )
    torch.set_num_threads(settings.threads or _threads_for(spec))
    with telemetry.span("load data set", attributes={"gradprobe.dataset": spec.dataset.name}):
        dataset = _dataset(spec.dataset.name, spec.dataset.normalization, settings)
    attempt.write(leases.note_provenance, _provenance(spec, dataset, device))
    flusher, resume = _begin(attempt)
    while True:
        keep_going = _keeper(heartbeat, settings.maximum_seconds - (resume.position.seconds if resume else 0.0))
        pace = Pace(
            settings.flush_seconds,
            min(settings.flush_seconds, 0.25),
            settings.probe_memory_mebibytes,
            settings.checkpoint_seconds,
            resume,
        )
        try:
            return train(spec, dataset, device, _patient(flusher), pace, keep_going)
        except CheckpointUnusable as error:
            _logger.warning("its checkpoint can't be used, it begins anew: %s", error)
            flusher, resume = _begin_anew(attempt)


# The next experiment of a warm worker mostly asks for the same; reading MNIST, or drawing images, takes a second.
_dataset = lru_cache(maxsize=1)(load)


def _begin(attempt: Attempt) -> tuple[Flusher, Checkpoint | None]:
    """Where the experiment's checkpoint is, or at the first iteration where there is none that can be used."""
    flusher = Flusher(attempt.database, attempt.lease, attempt.settings.maximum_attempts)
    if attempt.record.iteration == 0:
        return flusher, None
    found: list[Checkpoint | None] = []

    def look() -> None:
        with attempt.database.read() as connection:
            state = checkpoints.load(connection, attempt.record.id)
        found.append(Checkpoint.read(state) if state is not None else None)
        flusher.resume(attempt.record.iteration)

    try:
        _patience.do(look)
    except (CheckpointUnusable, CorruptBlock) as error:
        _logger.warning("its checkpoint can't be used, it begins anew: %s", error)
        return _begin_anew(attempt)
    if found[-1] is None or found[-1].position.step != attempt.record.iteration:
        raise LeaseLost  # only another attempt, or an end, takes a checkpoint away
    return flusher, found[-1]


def _begin_anew(attempt: Attempt) -> tuple[Flusher, None]:
    attempt.write(leases.begin_anew)
    return Flusher(attempt.database, attempt.lease, attempt.settings.maximum_attempts), None


def _keeper(heartbeat: Heartbeat, seconds: float) -> Callable[[], None]:
    """Called before each iteration: raises what stops the training."""
    deadline = time.monotonic() + seconds

    def keep_going() -> None:
        heartbeat.check()
        if stopping.is_set():
            raise WorkerStopping
        if time.monotonic() > deadline:
            raise TimeLimitExceeded

    return keep_going


def _finish(
    connection: Connection, lease: Lease, status: Status, *, summary: dict[str, Any] | None = None, **values: Any
) -> None:
    if summary is not None:
        leases.note_summary(connection, lease, summary)
    leases.finish(connection, lease, status, **values)


def _judged(database: Database, record: Record) -> dict[str, Any]:
    """What the rules say of what was measured; whatever fails here, the experiment ends as it would without."""
    try:
        with database.read() as connection:
            measured = measurements.read(Reader(connection, record.id), Spec.model_validate(record.spec))
        if not measured.blocks:
            return {}
        with telemetry.span("diagnose"):
            found = diagnose(measured)
        return {"verdict": found.verdict, "summary": summarize(measured, found, VERSION)}
    except Exception:
        _logger.exception("no verdict")
        return {}


def _patient(flusher: Flusher) -> Sink:
    """Tries again while the database is away: a chunk that was not written is still in the flusher's tail."""

    def sink(chunk: Chunk) -> None:
        flusher.grow(chunk)
        with telemetry.span("store", attributes={"gradprobe.iteration": chunk.iteration}):
            _patience.do(lambda: flusher.write(chunk.iteration, chunk.state))

    return sink


def _threads_for(spec: Spec) -> int:
    multiply_adds = spec.network.multiply_adds * spec.training.batch_size * 3
    return 1 if multiply_adds < _THREADS_PAY_FROM else max(1, os.cpu_count() or 1)


def _worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _provenance(spec: Spec, dataset: Dataset, device: torch.device) -> dict[str, Any]:
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
        "worker": _worker_name(),
    }


def _result(outcome: Outcome, iterations: int) -> dict[str, Any]:
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
