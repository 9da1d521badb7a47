"""What it takes to queue an experiment: once however often it is sent, within the bounds, in one transaction."""

from dataclasses import dataclass

from sqlalchemy import Connection

from gradprobe.errors import CreatedResourceGone, ExperimentNotFound
from gradprobe.identifiers import new_experiment_id
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store import admission, experiments, idempotency
from gradprobe.store.admission import Room
from gradprobe.store.experiments import Record
from gradprobe.store.idempotency import Repetition


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be trained, for whom, on which request."""

    spec: Spec
    owner: str | None
    request_id: str
    repetition: Repetition | None


def submit(connection: Connection, submission: Submission, settings: Settings) -> tuple[Record, bool]:
    """Queue an experiment, or find the one that the same request queued before; and whether it is new.

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
    record = experiments.create(
        connection, submission.spec, settings.maximum_attempts, submission.request_id, submission.owner, identifier
    )
    return record, True


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


def _made_before(connection: Connection, identifier: str) -> Record:
    try:
        return experiments.get(connection, identifier)
    except ExperimentNotFound as error:
        raise CreatedResourceGone from error
