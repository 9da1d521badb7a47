"""Experiments of one shape that a worker claims and trains side by side: each with its own lease, series and end.

Who waits longest goes first, and takes along half of those that wait and can train beside it, so that other workers
find the other half (guided self-scheduling, Polychronopoulos & Kuck 1987): all come to the end at about the same time,
without knowing of each other.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import torch
from pydantic import ValidationError
from sqlalchemy import Connection

from gradprobe import telemetry
from gradprobe.errors import (
    CorruptBlock,
    DatabaseUnavailable,
    ExperimentCancelled,
    LeaseLost,
    TimeLimitExceeded,
    WorkerStopping,
)
from gradprobe.logs import bound
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.stacking import RECORD_MEBIBYTES, bytes_of
from gradprobe.state import Status
from gradprobe.store import checkpoints, leases, series
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.leases import Lease
from worker.attempt import Attempt, DeviceLost, failure, patience, provenance, result, stopping, worker_name
from worker.checkpoint import Checkpoint, CheckpointUnusable
from worker.data import Dataset
from worker.flush import Flusher
from worker.heartbeat import Heartbeat, beating
from worker.loop import Chunk, Outcome, Pace
from worker.network.builders import device_of
from worker.stack import warming
from worker.stack.device.data import DeviceData, on_device
from worker.stack.images import Data, data_of
from worker.stack.lane import Lane, fresh, resumed, was_stacked
from worker.stack.training import train_stack

_logger = logging.getLogger(__name__)

#: So many are taken along even where they are more than half: fewer are not faster.
_WORTHWHILE: Final = 16
_MEBIBYTE: Final = 1024 * 1024
#: What a stack may take of a GPU's free memory; the rest is for what can't be told before.
_SHARE_OF_GPU: Final = 0.5

Load = Callable[[str, str, Settings], Dataset]


def claim(identifier: str, settings: Settings, database: Database) -> list[Attempt]:
    """Claim an experiment, and those that are to train beside it; none where there is nothing to claim.

    What began in a stack goes on in one, be it of one, and what began by itself by itself: the two round differently.
    So do kinds of devices: what began on the CPU goes on there, on a worker with a GPU too.
    """
    with database.write() as connection:
        found = leases.claim(connection, identifier, worker_name(), settings.lease_seconds)
        if found is None:
            return []
        taken, stacked = [found], False
        if leases.can_stack(connection, identifier):
            most = _most(found[0], settings)
            taken += _claim_others(connection, identifier, most, settings)
            stacked = len(taken) > 1 or (most > 0 and found[1].attempt > 1)
            if not stacked:
                leases.train_alone(connection, found[1])
    return [Attempt(record, lease, settings, database, stacked) for record, lease in taken]


def _claim_others(connection: Connection, identifier: str, most: int, settings: Settings) -> list[tuple[Record, Lease]]:
    if most <= 1:
        return []
    waiting = leases.waiting_like(connection, identifier, 2 * most)
    share = min(most - 1, max(_WORTHWHILE - 1, (len(waiting) + 1) // 2))
    claimed = [leases.claim(connection, one, worker_name(), settings.lease_seconds) for one in waiting[:share]]
    return [found for found in claimed if found is not None]


def device_for(record: Record) -> torch.device:
    """Where it trains in a stack: the CPU, which all workers have, if it began there; else what its spec says."""
    if record.iteration and (record.provenance or {}).get("device") == "cpu":
        return torch.device("cpu")
    return device_of(Spec.model_validate(record.spec).training.device)


def _most(record: Record, settings: Settings) -> int:
    """How many of this shape fit where it trains; none where it can't be trained at all, as its attempt will tell."""
    try:
        spec, device = Spec.model_validate(record.spec), device_for(record)
    except ValidationError:
        return 0
    if device.type == "cpu":
        fitting = settings.stack_memory_mebibytes * _MEBIBYTE // bytes_of(spec, 1)
        return max(1, min(settings.stack_members, fitting))
    if not torch.cuda.is_available():
        return 0
    fitting = int(_SHARE_OF_GPU * _free_on(device)) // bytes_of(spec, 1, device.type)
    return max(1, min(settings.gpu_stack_members, fitting))


def _free_on(device: torch.device) -> int:
    """Bytes that a GPU has left, with those that this process holds and does not use."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def _data(dataset: Dataset, device: torch.device) -> Data | DeviceData:
    """In the form of the stack that trains on this device: compiled for the CPU, torch's for any other."""
    return data_of(dataset) if device.type == "cpu" else on_device(dataset, device)


def train_together(attempts: Sequence[Attempt], load: Load) -> dict[str, Status]:
    """Train these side by side; how those ended that ended here."""
    settings, database = attempts[0].settings, attempts[0].database
    torch.set_num_threads(1)
    with beating(database, [attempt.lease for attempt in attempts], settings.heartbeat_seconds) as heartbeat:
        company = Company(attempts, heartbeat)
        try:
            company.train(load)
        except WorkerStopping:
            company.give_back("this worker stops")
        except DatabaseUnavailable as error:
            _logger.error("left to the next worker, the database stayed away: %s", error)
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error
        except Exception:
            _logger.exception("a stack of %d failed, each trains by itself now", len(attempts))
            company.disband()
    return company.ended_here


class Company:
    """The members of one stack, towards the store: `worker.stack.training.Company`."""

    def __init__(self, attempts: Sequence[Attempt], heartbeat: Heartbeat) -> None:
        self._attempts = {attempt.record.id: attempt for attempt in attempts}
        self._settings, self._database = attempts[0].settings, attempts[0].database
        self._device = device_for(attempts[0].record)
        self._flushers: dict[str, Flusher] = {}
        self._heartbeat = heartbeat
        self._leaving: dict[str, type[Exception]] = {}
        self._began, self._since = time.monotonic(), time.time()
        self._spent: dict[str, float] = {}
        self.ended_here: dict[str, Status] = {}

    def train(self, load: Load) -> None:
        """All of them, to their ends."""
        spec = next(iter(self._attempts.values())).spec
        with telemetry.span("load data set", attributes={"gradprobe.dataset": spec.dataset.name}):
            dataset = load(spec.dataset.name, spec.dataset.normalization, self._settings)
        data = _data(dataset, self._device)
        lanes = [lane for attempt in [*self._attempts.values()] if (lane := self._lane(attempt, data)) is not None]
        self._note_beginning(dataset)
        _logger.info("%d train side by side", len(lanes))
        settings = self._settings
        pace = Pace(
            settings.flush_seconds,
            min(settings.flush_seconds, 0.25),
            max(settings.probe_memory_mebibytes, RECORD_MEBIBYTES * len(lanes)),
            settings.checkpoint_seconds,
        )
        if isinstance(data, Data):
            warming.prepare()
        self._began = time.monotonic()
        train_stack(lanes, data, self, pace)

    def _lane(self, attempt: Attempt, data: Data | DeviceData) -> Lane | None:
        """Where the member is; None for one that has begun by itself, or elsewhere, and goes on so."""
        identifier, spec = attempt.record.id, attempt.spec
        if attempt.record.iteration and device_for(attempt.record).type != self._device.type:
            attempt.write(leases.give_back)
            del self._attempts[identifier]
            return None
        flusher = Flusher(self._database, attempt.lease, self._settings.maximum_attempts)
        lane = None
        if attempt.record.iteration:
            try:
                with self._database.read() as connection:
                    state = checkpoints.load(connection, identifier)
                if state is not None and not was_stacked(state):  # a worker of the release before had it
                    attempt.write(leases.train_alone)
                    attempt.write(leases.give_back)
                    del self._attempts[identifier]
                    return None
                lane = resumed(identifier, spec, len(data), Checkpoint.read(state or b""), self._device.type)
                flusher.resume(attempt.record.iteration)
            except (CheckpointUnusable, CorruptBlock) as error:
                _logger.warning("%s: its checkpoint can't be used, it begins anew: %s", identifier, error)
                attempt.write(leases.begin_anew)
                flusher, lane = Flusher(self._database, attempt.lease, self._settings.maximum_attempts), None
        self._flushers[identifier] = flusher
        lane = lane or fresh(identifier, spec, len(data))
        self._spent[identifier] = lane.position.seconds
        return lane

    def _note_beginning(self, dataset: Dataset) -> None:
        members = len(self._attempts)

        def note() -> None:
            with self._database.write() as connection:
                for identifier, attempt in sorted(self._attempts.items()):
                    told = provenance(attempt.spec, dataset, self._device, members)
                    try:
                        leases.note_provenance(connection, attempt.lease, told)
                    except LeaseLost:
                        self._leaving[identifier] = LeaseLost

        patience.do(note)

    def keep_going(self) -> None:
        """Raises WorkerStopping once the worker was asked to stop."""
        if stopping.is_set():
            raise WorkerStopping

    def leaving(self) -> Collection[str]:
        """Whoever was cancelled, lost, or has had its time."""
        self._leaving |= {name: verdict for name, verdict in self._heartbeat.verdicts.items() if name in self._attempts}
        share = (time.monotonic() - self._began) / max(1, len(self._attempts))
        limit = self._settings.maximum_seconds
        if share + max(self._spent.values(), default=0.0) > limit:
            late = [name for name in self._attempts if self._spent[name] + share > limit]
            self._leaving |= dict.fromkeys(late, TimeLimitExceeded)
        return self._leaving

    def take(self, chunks: Mapping[str, Chunk]) -> None:
        """Keep what was measured for the next `store`."""
        for name, chunk in chunks.items():
            self._flushers[name].grow(chunk)

    def store(self, chunks: Mapping[str, Chunk]) -> None:
        """All of it in one transaction; who has lost its lease is left out, and leaves."""
        self.take(chunks)
        rows = {name: self._flushers[name].rows() for name in chunks}  # encoded once, however often it is tried

        def write() -> None:
            found: dict[str, type[Exception]] = {}
            held = []
            with self._database.write() as connection:
                for name, chunk in sorted(chunks.items()):
                    if self._leaving.get(name) is LeaseLost:
                        continue
                    try:
                        if self._flushers[name].hold_in(connection, chunk.iteration, chunk.state):
                            found[name] = ExperimentCancelled
                        held += rows[name]
                    except LeaseLost:
                        found[name] = LeaseLost
                series.replace(connection, held)
            self._leaving |= found

        with telemetry.span("store", attributes={"gradprobe.members": len(chunks)}):
            patience.do(write)
        for name in chunks:
            self._flushers[name].written()

    def left(self, identifier: str) -> None:
        """A member trains no further."""
        why = self._leaving.pop(identifier)
        if why is LeaseLost:
            _logger.warning("%s lost its lease and stops", identifier, extra={"experiment_id": identifier})
            self._forget(identifier)
        elif why is ExperimentCancelled:
            self._end(identifier, Status.CANCELLED, {})
        else:
            self._end(identifier, Status.FAILED, {"error": failure(why())})

    def ended(self, identifier: str, outcome: Outcome) -> None:
        """A member has done its last iteration."""
        iterations = self._attempts[identifier].record.iterations
        self._end(identifier, Status.SUCCEEDED, {"result": result(outcome, iterations)})

    def _end(self, identifier: str, status: Status, values: dict[str, Any]) -> None:
        attempt = self._forget(identifier)
        record = attempt.record
        with (
            bound(experiment_id=identifier),
            telemetry.span("attempt", record.traceparent, "CONSUMER", attempt.attributes, self._since) as span,
            bound(**attempt.known, **telemetry.log_fields()),
        ):
            try:
                attempt.end(status, values)
            except LeaseLost:
                _logger.warning("lost its lease and stops")
                return
            span.set_attributes({"gradprobe.status": status})
            self.ended_here[identifier] = status
            _logger.info("ended: %s", status)

    def _forget(self, identifier: str) -> Attempt:
        self._flushers.pop(identifier, None)
        self._spent.pop(identifier, None)
        return self._attempts.pop(identifier)

    def give_back(self, why: str) -> None:
        """All that have not ended wait again, from where they were saved."""
        for identifier in [*self._attempts]:
            try:
                self._forget(identifier).write(leases.give_back)
                _logger.info("%s given back, %s", identifier, why, extra={"experiment_id": identifier})
            except LeaseLost:
                _logger.warning("%s lost its lease", identifier, extra={"experiment_id": identifier})

    def disband(self) -> None:
        """What failed together may do by itself; and who fails by itself is told why."""
        for attempt in [*self._attempts.values()]:
            try:
                attempt.write(leases.train_alone)
            except LeaseLost:
                self._forget(attempt.record.id)
        self.give_back("to train by itself")
