"""Run one experiment from claim to end, or several of one shape. Imports torch, so only the pool's child loads it."""

import logging
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from gradprobe import telemetry
from gradprobe.errors import (
    CorruptBlock,
    DatabaseUnavailable,
    DeviceUnavailable,
    ExperimentCancelled,
    LeaseLost,
    TimeLimitExceeded,
    WorkerStopping,
)
from gradprobe.logs import bound
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import checkpoints, leases
from gradprobe.store.database import Database
from worker import company, warm
from worker.attempt import OF_THE_WORKER, Attempt, DeviceLost, failure, patience, provenance, result, stopping
from worker.checkpoint import Checkpoint, CheckpointUnusable
from worker.data import load
from worker.flush import Flusher
from worker.heartbeat import Heartbeat, beating
from worker.loop import Chunk, Outcome, Pace, Sink, train
from worker.network.builders import device_of
from worker.stack import warming

_logger = logging.getLogger(__name__)

#: Multiply-adds an iteration from which more than one thread pays; below it they only wait for each other.
_THREADS_PAY_FROM = 50_000_000

__all__ = ["DeviceLost", "execute", "stopping", "warm_up"]


def warm_up() -> None:
    """Compile what every experiment needs, or load it; what stacks need is loaded beside what comes next."""
    warm.warm_up()
    if torch.cuda.is_available():
        torch.cuda.mem_get_info()  # the first question takes a second, and a claim asks it within a transaction
    if warming.is_kept():
        threading.Thread(target=_load_stacks, name="warm-up", daemon=True).start()


def _load_stacks() -> None:
    try:
        warming.warm_up()
    except Exception:
        _logger.exception("what trains side by side is loaded when it is needed")


def execute(experiment_id: str, settings: Settings, database: Database) -> Status | None:
    """Claim the experiment, train it, store how it ended; None when it did not end here.

    Others that wait and can train beside it are claimed and trained with it, see `worker.company`.

    Whatever goes wrong ends up in the experiment's `error`: an experiment never stays `running` for a reason that this
    process knows, unless the database is away for so long that it can't be told.
    """
    with bound(experiment_id=experiment_id):
        if stopping.is_set():
            return None  # it waits for a worker that stays
        attempts = company.claim(experiment_id, settings, database)
        if not attempts:
            _logger.info("nothing to do")
            return None
        if not attempts[0].stacked:
            return _execute(attempts[0])
    return company.train_together(attempts, _dataset).get(experiment_id)


def _execute(attempt: Attempt) -> Status | None:
    record = attempt.record
    with telemetry.span("attempt", record.traceparent, "CONSUMER", attempt.attributes) as span:
        with bound(**attempt.known, **telemetry.log_fields()):
            _logger.info("begins at iteration %d of %d", record.iteration, record.iterations)
            status = _attempt(attempt)
        span.set_attributes({"gradprobe.status": status or "not ended"})
    return status


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
        with beating(attempt.database, [attempt.lease], attempt.settings.heartbeat_seconds) as heartbeat:
            status, values = _outcome(attempt, heartbeat)
        attempt.end(status, values)
    except WorkerStopping:
        attempt.write(leases.give_back)
        _logger.info("given back, this worker stops")
        return None
    _logger.info("ended: %s", status)
    return status


def _outcome(attempt: Attempt, heartbeat: Heartbeat) -> tuple[Status, dict[str, Any]]:
    try:
        outcome = _train(attempt, attempt.spec, heartbeat)
    except OF_THE_WORKER:
        raise
    except ExperimentCancelled:
        return Status.CANCELLED, {}
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error)) from error
    except Exception as error:  # noqa: BLE001 - `failure` logs it
        return Status.FAILED, {"error": failure(error)}
    return Status.SUCCEEDED, {"result": result(outcome, attempt.record.iterations)}


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
    attempt.write(leases.note_provenance, provenance(spec, dataset, device))
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
        patience.do(look)
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


def _patient(flusher: Flusher) -> Sink:
    """Tries again while the database is away: a chunk that was not written is still in the flusher's tail."""

    def sink(chunk: Chunk) -> None:
        flusher.grow(chunk)
        with telemetry.span("store", attributes={"gradprobe.iteration": chunk.iteration}):
            patience.do(lambda: flusher.write(chunk.iteration, chunk.state))

    return sink


def _threads_for(spec: Spec) -> int:
    multiply_adds = spec.network.multiply_adds * spec.training.batch_size * 3
    return 1 if multiply_adds < _THREADS_PAY_FROM else max(1, os.cpu_count() or 1)
