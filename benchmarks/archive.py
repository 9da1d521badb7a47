"""Ended experiments read out of an object store and out of the database, and what stays in the database."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
from sqlalchemy import Connection, create_engine, text, update

from benchmarks.results import Figure, Result, Row, Table, command
from benchmarks.servers import gradprobe_server, object_store, postgresql
from benchmarks.store import Content, measured
from benchmarks.timing import Timed, Times, clocks, once
from benchmarks.training import new_database, new_lease, storing
from gradprobe import archiving
from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import leases
from gradprobe.store.database import Database
from gradprobe.store.tables import experiments, now
from worker.flush import Flusher

DATABASES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
READS: Final = {
    "one statistic of all layers": "gradients?statistics=mean_abs",
    "all statistics of the gradients": "gradients",
    "the same, 100 points": "gradients?max_points=100",
    "histograms of 100 steps": "gradients/histograms?start=0&stop=100",
    "metrics": "metrics",
    "diagnosis": "diagnosis",
    "export, Parquet": "export?format=parquet",
}
_DAY: Final = 86_400.0
_REQUESTS: Final = ("GET /", "HEAD /")


@dataclass(frozen=True, slots=True)
class Effort:
    """How many experiments, how long, and how often each read is done."""

    experiments: int = 20
    rounds: int = 60


QUICK = Effort(2, 2)


def run(quick: bool) -> Result:
    """One database after the other, with the same training."""
    content = measured(50, "synthetic") if quick else measured(2500, "mnist")
    effort = QUICK if quick else Effort()
    return Result("archive", [table for kind in DATABASES for table in measure(kind, content, effort)])


def measure(kind: str, content: Content, effort: Effort) -> list[Table]:
    """Half of the experiments are moved and read in turns with the others; then the rest is moved."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True)))
        directory.chmod(0o711)  # under root PostgreSQL runs as another user
        known, log = stack.enter_context(object_store(directory / "objects"))
        settings = stack.enter_context(_settings(directory / kind, kind, known))
        database = new_database(settings)
        stack.callback(database.close)
        empty = _bytes(database)
        identifiers = [_stored(database, content) for _ in range(effort.experiments)]
        half = identifiers[: len(identifiers) // 2]
        before = _bytes(database) - empty
        _age(database, half, 2 * _DAY)
        store = ObjectStore(settings)
        moved = list(archiving.move_all(database, store, _DAY))
        if {one.experiment_id for one in moved} != set(half):
            raise AssertionError("others were moved than those that ended long ago")
        rows = _reads(settings, [half, identifiers[len(half) :]], effort.rounds, log)
        _age(database, identifiers, _DAY)
        seconds = once(lambda: moved.extend(archiving.move_all(database, store, 0.0)))
        rest = moved[len(half) :]
        after = _bytes(database) - empty
        _vacuum(database)
        figures: dict[str, Figure] = {
            "MB before": before / 1e6,
            "MB after": after / 1e6,
            "and vacuumed": (_bytes(database) - empty) / 1e6,
            "MB of objects": sum(one.size for one in moved) / 1e6,
            "ms to move one": seconds / len(rest) * 1000,
        }
    name = DATABASES[kind]
    steps = content.spec.training.iterations
    stored = Row(f"{effort.experiments} experiments of {steps:,} steps", figures)
    return [Table(f"{name}, milliseconds, nothing kept in memory", rows), Table(f"{name}, what is stored", [stored])]


@contextmanager
def _settings(directory: Path, kind: str, known: dict[str, str]) -> Iterator[Settings]:
    directory.mkdir()
    if kind == "sqlite":
        yield Settings.model_validate({"data_directory": directory, **known})
        return
    with postgresql(directory) as url:
        (directory / "client").mkdir()
        yield Settings.model_validate({"data_directory": directory / "client", "database_url": url, **known})


def _stored(database: Database, content: Content) -> str:
    lease = new_lease(database, content.spec)
    sink = storing(Flusher(database, lease))
    for chunk in content.chunks:
        sink(chunk)
    with database.write() as connection:
        leases.finish(connection, lease, Status.SUCCEEDED)
    return lease.experiment_id


def _age(database: Database, identifiers: Sequence[str], seconds: float) -> None:
    """As if they had ended so long ago."""
    with database.write() as connection:
        mine = update(experiments).where(experiments.c.id.in_(identifiers))
        connection.execute(mine.values(finished_at=now() - seconds))


def _reads(settings: Settings, groups: Sequence[Sequence[str]], rounds: int, log: Path) -> list[Row]:
    """Each read of a moved experiment and of one that was not, in turns; what the service keeps is off."""
    rows = []
    chance = random.Random(1)  # noqa: S311 - the same every time
    with gradprobe_server(settings, 0) as client:
        for name, path in READS.items():
            found: tuple[list[Timed], list[Timed]] = ([], [])
            sizes = {len(_get(client, group[0], path)[1]) for group in groups}  # the first time does not count
            asked = _asked(log)
            for number in range(rounds):
                for place in (0, 1) if number % 2 else (1, 0):
                    found[place].append(_get(client, chance.choice(groups[place]), path)[0])
            requests = (_asked(log) - asked) / rounds
            moved, here = (Times(times) for times in found)
            figures: dict[str, Figure] = {
                "kB": max(sizes) / 1000,
                "database": here.wall * 1000,
                "object store": moved.wall * 1000,
                "more": (moved.wall - here.wall) * 1000,
                "times": moved.over(here),
                "requests to the store": requests,
            }
            rows.append(Row(name, figures))
    return rows


def _get(client: httpx.Client, identifier: str, path: str) -> tuple[Timed, bytes]:
    began = clocks()
    answer = client.get(f"/experiments/{identifier}/{path}").raise_for_status()
    return Timed.between(began, clocks(), 1), answer.content


def _asked(log: Path) -> int:
    """How many reads the object store has answered."""
    return sum(log.read_text(errors="replace").count(method) for method in _REQUESTS)


def _bytes(database: Database) -> int:
    """What the database's content takes: of SQLite's file without the pages that are free to be used again."""
    with database.write() as connection:
        if database.is_sqlite:
            pages = _scalar(connection, "PRAGMA page_count") - _scalar(connection, "PRAGMA freelist_count")
            return pages * _scalar(connection, "PRAGMA page_size")
        return _scalar(connection, "SELECT pg_database_size(current_database())")


def _scalar(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())


def _vacuum(database: Database) -> None:
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM" if database.is_sqlite else "VACUUM FULL blocks"))
    engine.dispose()


if __name__ == "__main__":
    command(run)
