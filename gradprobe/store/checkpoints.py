"""Checkpoints: what a next attempt begins with. One an experiment, replaced by the next, gone when it ends.

One is saved in the transaction of the flush that covers it, so it never disagrees with what was measured: the blocks
in the store then hold every recorded step before its iteration, and none after.
"""

import zlib
from collections.abc import Collection

from sqlalchemy import Connection, ScalarSelect, delete, func, insert, select

from gradprobe.errors import CorruptBlock
from gradprobe.store.tables import checkpoints, experiments, now

#: PostgreSQL writes what it answers in hexadecimal, and no answer may reach a gigabyte.
_PART = 64 * 1024 * 1024


def save(connection: Connection, experiment_id: str, attempt: int, iteration: int, state: bytes) -> None:
    """Keep `state`, as it was after `iteration` iterations, in place of the one before.

    Call it in the transaction that renewed the lease: that is what keeps a stale attempt from replacing a newer one's.
    """
    forget(connection, [experiment_id])
    values = {"attempt": attempt, "iteration": iteration, "saved_at": now(), "state": state}
    connection.execute(insert(checkpoints).values(experiment_id=experiment_id, checksum=zlib.crc32(state), **values))


def load(connection: Connection, experiment_id: str) -> bytes | None:
    """The newest one's state; None where there is none. Raises CorruptBlock when its checksum is wrong."""
    mine = checkpoints.c.experiment_id == experiment_id
    query = select(checkpoints.c.checksum, func.length(checkpoints.c.state).label("length")).where(mine)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    parts = [
        connection.execute(select(func.substr(checkpoints.c.state, start, _PART)).where(mine)).scalar_one()
        for start in range(1, row.length + 1, _PART)
    ]
    state = b"".join(parts)
    if zlib.crc32(state) != row.checksum:
        raise CorruptBlock("A checkpoint fails its checksum.")
    return state


def forget(connection: Connection, experiment_ids: Collection[str]) -> None:
    """Drop those of these experiments."""
    connection.execute(delete(checkpoints).where(checkpoints.c.experiment_id.in_(experiment_ids)))


def iteration_to_go_on_from() -> ScalarSelect[int]:
    """For an UPDATE of experiments: the iteration of the row's checkpoint, NULL where there is none to go on from.

    A worker of a release without checkpoints begins anew and leaves an old one behind: what is stored then ends before
    the checkpoint, and going on from it would leave a gap.
    """
    return (
        select(checkpoints.c.iteration)
        .where(checkpoints.c.experiment_id == experiments.c.id, checkpoints.c.iteration <= experiments.c.iteration)
        .correlate(experiments)
        .scalar_subquery()
    )
