"""What is old enough to be deleted: experiments that ended long ago, and requests that are not remembered any more."""

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from gradprobe.state import ENDED
from gradprobe.store import tallies
from gradprobe.store.tables import beside, experiments, idempotency_keys, now

#: Experiments a transaction: each may have thousands of blocks, and others wait for a lock on SQLite.
BATCH = 50


def count_old(connection: Connection, seconds: float) -> int:
    """How many experiments ended longer ago than this."""
    return connection.scalar(select(func.count()).select_from(experiments).where(_old(connection, seconds))) or 0


def delete_old(connection: Connection, seconds: float) -> int:
    """Delete up to `BATCH` experiments that ended longer ago than this, with all they measured; how many there were."""
    old = _old(connection, seconds)
    # In the order of an index, which is read as far as there is something to delete, and not the table.
    some = select(experiments.c.id).where(old).order_by(experiments.c.finished_at, experiments.c.id).limit(BATCH)
    # The condition stands here again: one of them may have been queued anew meanwhile.
    return tallies.delete_experiments(connection, experiments.c.id.in_(some), old)


def count_forgotten(connection: Connection, seconds: float) -> int:
    """How many remembered requests are older than this."""
    old = _forgotten(connection, seconds)
    return connection.scalar(select(func.count()).select_from(idempotency_keys).where(old)) or 0


def delete_forgotten(connection: Connection, seconds: float) -> int:
    """Delete the remembered requests that are older than this; how many there were."""
    return connection.execute(delete(idempotency_keys).where(_forgotten(connection, seconds))).rowcount


def _old(connection: Connection, seconds: float) -> ColumnElement[bool]:
    # Nearly all have ended: it is by the time that they are looked up.
    return and_(beside(experiments.c.status).in_(ENDED), experiments.c.finished_at < _moment(connection) - seconds)


def _forgotten(connection: Connection, seconds: float) -> ColumnElement[bool]:
    return idempotency_keys.c.created_at < _moment(connection) - seconds


def _moment(connection: Connection) -> float:
    """The database's clock, read beforehand: PostgreSQL uses no index for what may change from row to row."""
    return connection.execute(select(now())).scalar_one()
