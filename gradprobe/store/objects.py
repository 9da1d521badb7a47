"""What is known of objects: which experiment's bytes each has, where in it they lie, and which may be removed.

An object is written down here, as condemned in an hour, before it is put into the bucket; named by its experiment
afterwards, in the transaction that empties the blocks; and condemned again when the experiment is deleted or tried
again. So whatever is killed when, every object in the bucket is known here, and what nobody names is removed.
"""

import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

from sqlalchemy import (
    Connection,
    LargeBinary,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    tuple_,
    update,
)

from gradprobe.objects import Piece
from gradprobe.state import ENDED, Status
from gradprobe.store.tables import beside, blocks, experiments, now, objects, one_of

#: How long an object may be on its way: one that is still unnamed then was left by somebody who was killed.
UNDER_WAY_SECONDS: Final = 3600.0
_SPOOLED_AT_ONCE: Final = 64
#: An experiment that was looked at and has measured nothing.
NOTHING: Final = ""

_KEY: Final = ("experiment_id", "tensor", "level", "first_step")
_PAYLOADS: Final = ("statistics", "counts")
_OF_PIECE: Final = ("start", "length", "checksum")
_PLACES: Final = tuple(f"{name}_{what}" for name in _PAYLOADS for what in _OF_PIECE)
_OF_ROW: Final = and_(*(blocks.c[name] == bindparam(f"of_{name}") for name in _KEY))
_MOVE_OUT: Final = (
    update(blocks)
    .where(_OF_ROW)
    .values(statistics=null(), counts=null(), **{name: bindparam(f"to_{name}") for name in _PLACES})
)
_MOVE_IN: Final = (
    update(blocks)
    .where(_OF_ROW)
    .values(
        **{name: bindparam(f"to_{name}", type_=LargeBinary) for name in _PAYLOADS},
        **dict.fromkeys(_PLACES, null()),
    )
)

#: A block's row as parameters of an UPDATE.
Row = dict[str, Any]


class Outdated(Exception):
    """The experiment changed, or the object was condemned, while it was moved; the transaction is to be undone."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ended experiment as it was when it was looked at."""

    id: str
    row_version: int
    finished_at: float


def candidates(connection: Connection, seconds: float, after: Candidate | None, most: int) -> list[Candidate]:
    """The next so many that ended longer ago than this and are not in the object store, the oldest first.

    A run that failed is left: the loop may only have been out of reach, and report again.
    """
    moment = connection.execute(select(now())).scalar_one() - seconds  # beforehand: see `retention.py`
    place = (experiments.c.finished_at, experiments.c.id)
    query = select(experiments.c.id, experiments.c.row_version, experiments.c.finished_at).where(
        experiments.c.object.is_(None),
        experiments.c.finished_at < moment,
        beside(experiments.c.status).in_(ENDED),
        or_(experiments.c.source.is_(None), beside(experiments.c.status) != Status.FAILED),
    )
    if after is not None:
        query = query.where(tuple_(*place) > (after.finished_at, after.id))
    return [Candidate(*row) for row in connection.execute(query.order_by(*place).limit(most))]


def spool(connection: Connection, experiment_id: str, content: IO[bytes]) -> list[Row]:
    """Write all of an experiment's bytes to a file; returns where each block's came to lie.

    First all statistics, then all counts, both in the order of the key: what is read together lies together.
    """
    key = [blocks.c[name] for name in _KEY]
    rows: dict[tuple[Any, ...], Row] = {}
    place = 0
    for name in _PAYLOADS:
        query = select(*key, blocks.c[name]).where(blocks.c.experiment_id == experiment_id).order_by(*key)
        # A few at a time: an experiment may have recorded gigabytes.
        for *of_block, packed in connection.execute(query, execution_options={"yield_per": _SPOOLED_AT_ONCE}):
            row = rows.setdefault(tuple(of_block), _row(tuple(of_block)))
            if packed is not None:
                content.write(packed)
                row |= _to(name, (place, len(packed), zlib.crc32(packed)))
                place += len(packed)
    return list(rows.values())


def _row(key: tuple[Any, ...]) -> Row:
    return {f"of_{name}": part for name, part in zip(_KEY, key, strict=True)} | dict.fromkeys(
        (f"to_{name}" for name in _PLACES), None
    )


def _to(name: str, piece: tuple[int, int, int]) -> Row:
    return {f"to_{name}_{what}": value for what, value in zip(_OF_PIECE, piece, strict=True)}


def intend(connection: Connection, name: str, experiment_id: str, size: int) -> None:
    """Write down that this object is about to be put into the bucket."""
    values = {"experiment_id": experiment_id, "size": size, "condemned_at": now() + UNDER_WAY_SECONDS}
    connection.execute(insert(objects).values(name=name, **values))


def move_out(connection: Connection, candidate: Candidate, name: str, rows: Sequence[Row]) -> None:
    """The object is in the bucket: its experiment names it, and its bytes leave the database.

    Raises:
        Outdated
    """
    note(connection, candidate, name)  # first: who deletes an experiment locks the two in this order
    kept = update(objects).where(objects.c.name == name, objects.c.condemned_at > now()).values(condemned_at=None)
    if connection.execute(kept).rowcount != 1:
        raise Outdated
    connection.execute(_MOVE_OUT, list(rows))


def note(connection: Connection, candidate: Candidate, name: str) -> None:
    """Name the object on the experiment's row, if nothing of that changed meanwhile; raises Outdated.

    The row's version stays: what is read of the experiment is the same as before.
    """
    unchanged = and_(experiments.c.id == candidate.id, experiments.c.row_version == candidate.row_version)
    named = update(experiments).where(unchanged, experiments.c.status.in_(ENDED), experiments.c.object.is_(None))
    if connection.execute(named.values(object=name)).rowcount != 1:
        raise Outdated


def name_of(connection: Connection, experiment_id: str) -> str | None:
    """The object that has an experiment's bytes; None (or `NOTHING`) where there is none."""
    return connection.scalar(select(experiments.c.object).where(experiments.c.id == experiment_id))


def moved(connection: Connection, after: str, most: int) -> list[tuple[str, str]]:
    """The next so many experiments whose bytes are in the object store, with their objects' names; by id."""
    query = select(experiments.c.id, experiments.c.object).where(
        experiments.c.id > after, experiments.c.object > NOTHING
    )
    return [(row.id, row.object) for row in connection.execute(query.order_by(experiments.c.id).limit(most))]


def placed(connection: Connection, experiment_id: str) -> Iterator[tuple[Row, dict[str, Piece]]]:
    """Of each block of an experiment its key, and where in the object its bytes are."""
    for row in connection.execute(select(blocks).where(blocks.c.experiment_id == experiment_id)).mappings():
        key = _row(tuple(row[name] for name in _KEY))
        pieces = {
            name: Piece(*(row[f"{name}_{what}"] for what in _OF_PIECE))
            for name in _PAYLOADS
            if row[f"{name}_start"] is not None
        }
        yield {name: value for name, value in key.items() if name.startswith("of_")}, pieces


def move_in(connection: Connection, experiment_id: str, name: str) -> None:
    """An experiment no longer names its object, which is condemned; `fill` its blocks in the same transaction.

    Raises:
        Outdated: it does not name this one.
    """
    mine = and_(experiments.c.id == experiment_id, experiments.c.object == name)
    if connection.execute(update(experiments).where(mine).values(object=None)).rowcount != 1:
        raise Outdated
    condemn(connection, [experiment_id])


def fill(connection: Connection, rows: Sequence[Row]) -> None:
    """Give blocks their bytes: each row a key of `placed` with `to_statistics` and `to_counts`."""
    connection.execute(_MOVE_IN, list(rows))


def condemn(connection: Connection, experiment_ids: Collection[str]) -> None:
    """The objects of these experiments may be removed from now on."""
    if experiment_ids:
        mine = one_of(connection, objects.c.experiment_id, experiment_ids)
        connection.execute(update(objects).where(mine).values(condemned_at=now()))


def condemn_unnamed(connection: Connection) -> int:
    """Condemn what an older release, which knows no objects, left behind; how many there were."""
    naming = exists().where(experiments.c.id == objects.c.experiment_id, experiments.c.object == objects.c.name)
    left = update(objects).where(objects.c.condemned_at.is_(None), ~naming)
    return connection.execute(left.values(condemned_at=now())).rowcount


def condemned(connection: Connection, most: int) -> list[str]:
    """Up to so many names of objects that may be removed."""
    moment = connection.execute(select(now())).scalar_one()
    query = select(objects.c.name).where(objects.c.condemned_at <= moment).order_by(objects.c.condemned_at)
    return list(connection.scalars(query.limit(most)))


def count_condemned(connection: Connection) -> int:
    """How many objects may be removed."""
    moment = connection.execute(select(now())).scalar_one()
    return connection.scalar(select(func.count()).select_from(objects).where(objects.c.condemned_at <= moment)) or 0


def forget(connection: Connection, names: Collection[str]) -> None:
    """These are removed."""
    connection.execute(delete(objects).where(one_of(connection, objects.c.name, names)))


def unknown(connection: Connection, names: Collection[str]) -> set[str]:
    """Which of these are written down nowhere here."""
    found = connection.scalars(select(objects.c.name).where(one_of(connection, objects.c.name, names)))
    return set(names) - set(found)


def named(connection: Connection, after: str, most: int) -> list[str]:
    """The next so many names of objects that experiments name, in order."""
    query = select(objects.c.name).where(objects.c.condemned_at.is_(None), objects.c.name > after)
    return list(connection.scalars(query.order_by(objects.c.name).limit(most)))


def still_named(connection: Connection, names: Collection[str]) -> list[str]:
    """Those of these that experiments name now."""
    mine = one_of(connection, objects.c.name, names)
    return list(connection.scalars(select(objects.c.name).where(mine, objects.c.condemned_at.is_(None))))
