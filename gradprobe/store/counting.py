"""What an operator counts: the database's own figures, the same whichever process is asked."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, select

from gradprobe.state import ENDED, Status
from gradprobe.store import tallies
from gradprobe.store.tables import experiments, now


@dataclass(frozen=True, slots=True)
class Counts:
    """The whole store at one moment; ages in seconds by the database's clock. What is `in_all` never falls."""

    by_status: dict[Status, int]
    queued_by_queue: dict[str, int]
    oldest_queued_seconds: float
    expired_leases: int
    ended_in_all: dict[Status, int]
    attempts_in_all: int
    expired_leases_in_all: int


def count(connection: Connection) -> Counts:
    """Count; everything but the few that wait or run is read from an index."""
    statuses = connection.execute(select(experiments.c.status, func.count()).group_by(experiments.c.status))
    by_status = {Status(status): int(number) for status, number in statuses}
    waiting = experiments.c.status == Status.QUEUED
    queues = connection.execute(select(experiments.c.queue, func.count()).where(waiting).group_by(experiments.c.queue))
    oldest = connection.scalar(select(now() - func.min(experiments.c.created_at)).where(waiting))
    gone = tallies.read(connection)
    attempts = connection.scalar(select(func.coalesce(func.sum(experiments.c.attempt), 0)))
    expired = and_(experiments.c.status == Status.RUNNING, experiments.c.lease_until < now())
    return Counts(
        {status: by_status.get(status, 0) for status in Status},
        {queue: int(number) for queue, number in queues},
        max(0.0, float(oldest or 0.0)),
        int(connection.scalar(select(func.count()).where(expired)) or 0),
        {status: by_status.get(status, 0) + gone[status] for status in ENDED},
        int(attempts or 0) + gone[tallies.ATTEMPTS],
        gone[tallies.EXPIRED_LEASES],
    )
