"""Run one experiment from claim to end. Imports torch, so only the pool's child loads it."""

import logging
import math
import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from gradprobe.diagnosis import VERSION, diagnose
from gradprobe.diagnosis.summary import summarize
from gradprobe.errors import (
    DatabaseUnavailable,
    DeviceUnavailable,
    ExperimentCancelled,
    GradprobeError,
    LeaseLost,
    WorkerStopping,
)
from gradprobe.probe import warm_up
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import leases, measurements
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.leases import Lease
from gradprobe.store.reader import Reader
from worker.data import Dataset, load
from worker.flush import Flusher
from worker.heartbeat import Heartbeat, beating
from worker.loop import Chunk, Outcome, Pace, Sink, train
from worker.network.builders import device_of

_logger = logging.getLogger(__name__)

#: Multiply-adds an iteration from which more than one thread pays; below it they only wait for each other.
_THREADS_PAY_FROM = 50_000_000
_RETRY_SECONDS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)


__all__ = ["execute", "stopping", "warm_up"]

#: Set when this process was asked to stop; a running experiment is then given back at its next iteration.
stopping = threading.Event()


def execute(experiment_id: str, settings: Settings, database: Database) -> Status | None:
    """Claim the experiment, train it, store how it ended; None when there was nothing to claim or the lease was lost.

    Whatever goes wrong ends up in the experiment's `error`: an experiment never stays `running` for a reason that this
    process knows.
    """
    with database.write() as connection:
        claimed = leases.claim(connection, experiment_id, _worker_name(), settings.lease_seconds)
    if claimed is None:
        _logger.info("%s: nothing to do", experiment_id)
        return None
    record, lease = claimed
    _logger.info("%s: attempt %d begins (request %s)", experiment_id, lease.attempt, record.request_id)
    try:
        with beating(database, lease, settings.heartbeat_seconds) as heartbeat:
            status, values = _attempt(record, lease, settings, database, heartbeat)
        values |= _judged(database, record)
        _patiently(lambda: _finish(database, lease, status, values))
    except WorkerStopping:
        _patiently(lambda: _give_back(database, lease))
        _logger.info("%s: given back, this worker stops", experiment_id)
        return None
    except LeaseLost:
        _logger.warning("%s: attempt %d lost its lease and stops", experiment_id, lease.attempt)
        return None
    _logger.info("%s: %s", experiment_id, status)
    return status


def _attempt(
    record: Record, lease: Lease, settings: Settings, database: Database, heartbeat: Heartbeat
) -> tuple[Status, dict[str, Any]]:
    try:
        outcome = _train(Spec.model_validate(record.spec), lease, settings, database, heartbeat)
    except (LeaseLost, WorkerStopping):
        raise
    except ExperimentCancelled:
        return Status.CANCELLED, {}
    except GradprobeError as error:
        _logger.warning("%s: %s", record.id, error.message)
        return Status.FAILED, {"error": {"code": error.code, "message": error.message}}
    except Exception as error:
        _logger.exception("%s: failed", record.id)
        message = f"{type(error).__name__}: {error}. The worker's log has the details."
        return Status.FAILED, {"error": {"code": GradprobeError.code, "message": message}}
    return Status.SUCCEEDED, {"result": _result(outcome, record.iterations)}


def _train(spec: Spec, lease: Lease, settings: Settings, database: Database, heartbeat: Heartbeat) -> Outcome:
    device = device_of(spec.training.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "The experiment asks for CUDA and this worker has none; "
            'start a worker on a machine with a GPU, or use "device": "auto".'
        )
    torch.set_num_threads(settings.threads or _threads_for(spec))
    dataset = load(spec.dataset.name, spec.dataset.normalization, settings)
    _patiently(lambda: _note_provenance(database, lease, _provenance(spec, dataset, device)))
    pace = Pace(settings.flush_seconds, min(settings.flush_seconds, 0.25), settings.probe_memory_mebibytes)

    def keep_going() -> None:
        heartbeat.check()
        if stopping.is_set():
            raise WorkerStopping

    return train(spec, dataset, device, _patient(Flusher(database, lease)), pace, keep_going)


def _note_provenance(database: Database, lease: Lease, provenance: dict[str, Any]) -> None:
    with database.write() as connection:
        leases.note_provenance(connection, lease, provenance)


def _finish(database: Database, lease: Lease, status: Status, values: dict[str, Any]) -> None:
    told = dict(values)
    summary = told.pop("summary", None)
    with database.write() as connection:
        if summary is not None:
            leases.note_summary(connection, lease, summary)
        leases.finish(connection, lease, status, **told)


def _judged(database: Database, record: Record) -> dict[str, Any]:
    """What the rules say of what was measured; whatever fails here, the experiment ends as it would without."""
    try:
        with database.read() as connection:
            measured = measurements.read(Reader(connection, record.id), Spec.model_validate(record.spec))
        if not measured.blocks:
            return {}
        found = diagnose(measured)
        return {"verdict": found.verdict, "summary": summarize(measured, found, VERSION)}
    except Exception:
        _logger.exception("%s: no verdict", record.id)
        return {}


def _give_back(database: Database, lease: Lease) -> None:
    with database.write() as connection:
        leases.give_back(connection, lease)


def _patient(flusher: Flusher) -> Sink:
    """Tries again while the database is away: a chunk that was not written is still in the flusher's tail."""

    def sink(chunk: Chunk) -> None:
        flusher.grow(chunk)
        _patiently(lambda: flusher.write(chunk.iteration))

    return sink


def _patiently(action: Callable[[], None]) -> None:
    for seconds in _RETRY_SECONDS:
        try:
            return action()
        except DatabaseUnavailable as error:
            _logger.warning("database away, next try in %.1f s: %s", seconds, error)
            time.sleep(seconds)
    return action()


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
