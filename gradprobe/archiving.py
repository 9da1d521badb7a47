"""Between database and object store: move what ended experiments measured, remove what nobody names, compare."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Final, cast

from gradprobe.objects import ObjectStore
from gradprobe.store import objects as rows
from gradprobe.store.database import Database
from gradprobe.store.objects import Candidate, Outdated

#: Experiments that are moved at once, each with a connection: the store takes long to answer, not the processor.
SIDE_BY_SIDE: Final = 4
_BATCH: Final = 100
_REMOVED_AT_ONCE: Final = 1000  # as many as S3 takes in one request
_IN_MEMORY: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Moved:
    """Of one experiment: how many bytes were moved."""

    experiment_id: str
    size: int


@dataclass(frozen=True, slots=True)
class Compared:
    """`missing`: objects that experiments name and the bucket has not. `strangers`: the other way round."""

    missing: list[str]
    strangers: list[str]


def move_all(database: Database, store: ObjectStore, seconds: float) -> Iterator[Moved]:
    """Move all experiments that ended longer ago than this, the oldest first; tells of each once it is done.

    May run several times at once: each experiment is moved once, and what the others put there is removed.

    Raises:
        ObjectStoreUnavailable: all that was told of is moved, and nothing is lost of the rest.
    """
    last: Candidate | None = None
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        while True:
            with database.read() as connection:
                found = rows.candidates(connection, seconds, last, _BATCH)
            for candidate, size in zip(found, threads.map(partial(_moved, database, store), found), strict=True):
                if size:
                    yield Moved(candidate.id, size)
            if len(found) < _BATCH:
                return
            last = found[-1]


def _moved(database: Database, store: ObjectStore, candidate: Candidate) -> int:
    try:
        return _move(database, store, candidate)
    except Outdated:
        return 0  # tried again meanwhile, deleted, or moved by another


def _move(database: Database, store: ObjectStore, candidate: Candidate) -> int:
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as spooled:
        content = cast(IO[bytes], spooled)
        with database.read() as connection:
            placed = rows.spool(connection, candidate.id, content)
        size = content.tell()
        if not placed:
            with database.write() as connection:
                rows.note(connection, candidate, rows.NOTHING)
            return 0
        name = f"{candidate.id}/{secrets.token_hex(8)}"
        with database.write() as connection:
            rows.intend(connection, name, candidate.id, size)
        content.seek(0)
        store.put(name, content)
    with database.write() as connection:
        rows.move_out(connection, candidate, name, placed)
    return size


def bring_back(database: Database, store: ObjectStore) -> Iterator[Moved]:
    """Move all that is in the object store into the database again; tells of each experiment once it is done.

    Raises:
        ObjectStoreUnavailable, CorruptBlock: all that was told of is back, the rest is where it was.
    """
    last = ""
    while True:
        with database.read() as connection:
            found = rows.moved(connection, last, _BATCH)
        for last, name in found:
            try:
                yield Moved(last, _bring_back(database, store, last, name))
            except Outdated:
                continue
        if len(found) < _BATCH:
            return


def _bring_back(database: Database, store: ObjectStore, experiment_id: str, name: str) -> int:
    with database.read() as connection:
        placed = list(rows.placed(connection, experiment_id))
    parts = store.read(name, [piece for _, found in placed for piece in found.values()])
    left = iter(parts)
    filled = [
        key | {"to_statistics": None, "to_counts": None} | {f"to_{payload}": next(left) for payload in found}
        for key, found in placed
    ]
    with database.write() as connection:
        rows.move_in(connection, experiment_id, name)
        rows.fill(connection, filled)
    return sum(map(len, parts))


def remove_condemned(database: Database, store: ObjectStore) -> int:
    """Remove the objects of what was deleted or tried again, and what somebody who was killed left; how many."""
    removed = 0
    while True:
        with database.read() as connection:
            names = rows.condemned(connection, _REMOVED_AT_ONCE)
        if not names:
            return removed
        store.remove(names)
        with database.write() as connection:
            rows.forget(connection, names)  # afterwards: an object that nobody knows of would stay for ever
        removed += len(names)


def compare(database: Database, store: ObjectStore) -> Compared:
    """Hold the bucket against the database, and condemn what an older release left.

    It holds all names in memory. What is in the bucket for less than an hour is left out: it may be on its way.
    """
    with database.write() as connection:
        rows.condemn_unnamed(connection)
    named = list(_named(database))  # before the bucket is asked: what is named later may be put there later
    there: set[str] = set()
    strangers: set[str] = set()
    page: list[str] = []
    for listed in store.listed():
        there.add(listed.name)
        if listed.seconds > rows.UNDER_WAY_SECONDS:
            page.append(listed.name)
        if len(page) == _REMOVED_AT_ONCE:
            strangers |= _unknown(database, page)
            page = []
    strangers |= _unknown(database, page)
    absent = [name for name in named if name not in there]
    with database.read() as connection:
        missing = rows.still_named(connection, absent) if absent else []
    return Compared(sorted(missing), sorted(strangers))


def _unknown(database: Database, names: list[str]) -> set[str]:
    with database.read() as connection:
        return rows.unknown(connection, names) if names else set()


def _named(database: Database) -> Iterator[str]:
    last = ""
    while True:
        with database.read() as connection:
            names = rows.named(connection, last, _REMOVED_AT_ONCE)
        yield from names
        if len(names) < _REMOVED_AT_ONCE:
            return
        last = names[-1]
