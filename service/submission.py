"""What it takes to queue an experiment: once however often it is sent, within the bounds, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from gradprobe import telemetry
from gradprobe.errors import CreatedResourceGone, ExperimentNotFound, RemediesNotFound, SweepNotFound
from gradprobe.identifiers import new_experiment_id
from gradprobe.settings import Settings
from gradprobe.store import admission, experiments, idempotency, runs, sweeps
from gradprobe.store.admission import Room
from gradprobe.store.experiments import Member, Record
from gradprobe.store.idempotency import Repetition
from gradprobe.store.sweeps import Group, Kind
from gradprobe.subject import AnySpec, WatchedSpec


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be trained, or the loop that is about to report; for whom, on which request."""

    spec: AnySpec
    owner: str | None
    request_id: str
    repetition: Repetition | None


def submit(connection: Connection, submission: Submission, settings: Settings) -> tuple[Record, bool]:
    """Queue an experiment or store a run, or find the one that the same request made before; and whether it is new.

    Raises:
        IdempotencyKeyReused, CreatedResourceGone: of the key that the request brought.
        TooManyExperiments, QueueFull: there is no room.
    """
    identifier = new_experiment_id()
    if submission.repetition is not None:
        known = idempotency.remember(connection, submission.repetition, identifier)
        if known is not None:
            return _made_before(connection, known), False
    admission.require_room(connection, submission.owner, _room(settings))
    record = _create(connection, submission, settings, identifier)
    experiments.note_trace(connection, [identifier], telemetry.traceparent())
    return record, True


def _create(connection: Connection, submission: Submission, settings: Settings, identifier: str) -> Record:
    spec, request_id, owner = submission.spec, submission.request_id, submission.owner
    if isinstance(spec, WatchedSpec):
        return runs.create(connection, spec, settings.run_silence_seconds, identifier, request_id, owner)
    return experiments.create(connection, spec, settings.maximum_attempts, request_id, owner, identifier)


@dataclass(frozen=True, slots=True)
class GroupSubmission:
    """A group of experiments that is to be queued as a whole, its members validated."""

    group: Group
    members: Sequence[Member]
    repetition: Repetition | None


def submit_group(connection: Connection, submission: GroupSubmission, settings: Settings) -> tuple[Group, list[str]]:
    """Queue a whole group, or find the one that the same request queued before; and the ids that are new.

    Raises:
        IdempotencyKeyReused, CreatedResourceGone: of the key that the request brought.
        TooManyExperiments, QueueFull: there is no room for all of it.
    """
    group = submission.group
    if submission.repetition is not None:
        known = idempotency.remember(connection, submission.repetition, group.id)
        if known is not None:
            return _group_made_before(connection, known, group.kind), []
    admission.require_room(connection, group.owner, _room(settings), wanted=len(submission.members))
    made = sweeps.create(connection, group)
    identifiers = experiments.create_members(connection, made.id, submission.members, settings.maximum_attempts)
    experiments.note_trace(connection, identifiers, telemetry.traceparent())
    return made, identifiers


def resubmit(connection: Connection, identifier: str, settings: Settings) -> Record:
    """Queue again what failed or was cancelled.

    Raises:
        ExperimentNotFound, ExperimentNotEnded, TooManyExperiments, QueueFull
    """
    owner = experiments.get(connection, identifier).owner
    record = experiments.retry(connection, identifier, settings.maximum_attempts)
    admission.require_room(connection, owner, _room(settings), taken=1)
    return record


def _room(settings: Settings) -> Room:
    return Room(settings.maximum_waiting, settings.maximum_active)


def _group_made_before(connection: Connection, identifier: str, kind: Kind) -> Group:
    try:
        return sweeps.get(connection, identifier, kind)
    except (SweepNotFound, RemediesNotFound) as error:
        raise CreatedResourceGone from error


def _made_before(connection: Connection, identifier: str) -> Record:
    try:
        return experiments.get(connection, identifier)
    except ExperimentNotFound as error:
        raise CreatedResourceGone from error
