"""What is old enough to be deleted: experiments that ended long ago, and requests that are not remembered any more."""

from typing import Any

from sqlalchemy import Connection, and_, delete, func, select

from gradprobe.state import ENDED
from gradprobe.store import tallies
from gradprobe.store.tables import experiments, idempotency_keys, now

#: Experiments a transaction: each may have thousands of blocks, and others wait for a lock on SQLite.
BATCH = 50


def count_old(connection: Connection, seconds: float) -> int:
    """How many experiments ended longer ago than this."""
    return connection.scalar(select(func.count()).select_from(experiments).where(_old(seconds))) or 0


def delete_old(connection: Connection, seconds: float) -> int:
    """Delete up to `BATCH` experiments that ended longer ago than this, with all they measured; how many there were."""
    some = select(experiments.c.id).where(_old(seconds)).order_by(experiments.c.id).limit(BATCH)
    # The condition stands here again: one of them may have been queued anew meanwhile.
    return tallies.delete_experiments(connection, experiments.c.id.in_(some), _old(seconds))


def count_forgotten(connection: Connection, seconds: float) -> int:
    """How many remembered requests are older than this."""
    old = idempotency_keys.c.created_at < now() - seconds
    return connection.scalar(select(func.count()).select_from(idempotency_keys).where(old)) or 0


def delete_forgotten(connection: Connection, seconds: float) -> int:
    """Delete the remembered requests that are older than this; how many there were."""
    return connection.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now() - seconds)).rowcount


def _old(seconds: float) -> Any:
    return and_(experiments.c.status.in_(ENDED), experiments.c.finished_at < now() - seconds)
