"""Lists, filters and reads over HTTP with 100,000 experiments in the store, on both databases."""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from sqlalchemy import insert, select

from benchmarks.bulk import settle
from benchmarks.results import Goal, Result, Row, Table, command
from benchmarks.servers import gradprobe_server, postgresql
from benchmarks.timing import clocks
from gradprobe.identifiers import new_experiment_id
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store import experiments, names
from gradprobe.store.database import Database
from gradprobe.store.listing import NEWEST, SORTS, Filters, Position, Sort
from gradprobe.store.migrate import upgrade
from gradprobe.store.tables import experiments as table
from gradprobe.store.tables import tags
from service.pagination import encode_cursor

GOAL = Goal("ms, p99", "≤", 50.0, "ms")
_BATCH = 5000
_OWNERS, _SWEEPS, _COURSES = 200, 2000, 4
_VERDICTS = ("healthy", "vanishing", "exploding", "dead_units")
_ACTIVATIONS = ("sigmoid", "tanh", "relu", "gelu")

Request = tuple[str, Mapping[str, Any]]
Ask = Callable[[random.Random], Request]


def run(quick: bool) -> Result:
    """The same requests of the same experiments, once a database."""
    count, repetitions = (2000, 20) if quick else (100_000, 400)
    with TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True) as directory:
        tables = [
            Table(f"{count:,} experiments in {name}", measure(settings, count, repetitions))
            for name, settings in _databases(Path(directory))
        ]
    return Result("listing", tables)


def measure(settings: Settings, count: int, repetitions: int) -> list[Row]:
    """One database: filled, then asked."""
    identifiers = fill(settings, count)
    asks = _asks(identifiers)
    with gradprobe_server(settings, None) as client:
        return [_row(client, name, ask, repetitions) for name, ask in asks.items()]


def fill(settings: Settings, count: int) -> list[str]:
    """Store so many experiments, oldest first, and return their ids."""
    upgrade(settings.database)
    database = Database(settings.database)
    chance = random.Random(0)  # noqa: S311 - the same every time
    with database.write() as connection:
        first = experiments.create(connection, Spec(), settings.maximum_attempts)
        pattern = dict(connection.execute(select(table)).one()._mapping)
    identifiers = [first.id]
    while len(identifiers) < count:
        more = sorted(new_experiment_id() for _ in range(min(_BATCH, count - len(identifiers))))
        with database.write() as connection:
            connection.execute(insert(table), [_experiment(pattern, one, chance) for one in more])
            connection.execute(insert(tags), [tag for one in more for tag in _tags(one, chance)])
        identifiers += more
    with database.write() as connection:
        names.write(connection, identifiers)
    database.close()
    settle(settings.database)
    return sorted(identifiers)


def _experiment(pattern: Mapping[str, Any], identifier: str, chance: random.Random) -> dict[str, Any]:
    draw = chance.random()
    status = "failed" if draw < 0.05 else "cancelled" if draw < 0.08 else "succeeded"
    name = f"{chance.choice(_ACTIVATIONS)} depth {chance.randint(2, 100)} run {identifier[-6:]}"
    verdict = chance.choice(_VERDICTS) if status == "succeeded" else None
    ended = {"started_at": pattern["created_at"], "finished_at": pattern["created_at"] + 60, "attempt": 1}
    return {
        **pattern,
        **ended,
        "id": identifier,
        "status": status,
        **names.columns(name),
        "verdict": verdict,
        "result": _result(chance) if status == "succeeded" else None,
    }


def _result(chance: random.Random) -> str:
    result = {"final_loss": chance.random(), "train_accuracy": chance.random(), "test_accuracy": chance.random()}
    return json.dumps(result | {"test_loss": chance.random(), "seconds": 60.0, "iterations_per_second": 40.0})


def _tags(identifier: str, chance: random.Random) -> list[dict[str, str]]:
    values = {
        "course": f"dl-{chance.randrange(_COURSES)}",
        "owner": f"user{chance.randrange(_OWNERS)}",
        "sweep": f"sweep-{chance.randrange(_SWEEPS)}",
    }
    return [{"experiment_id": identifier, "key": key, "value": value} for key, value in values.items()]


def _asks(identifiers: list[str]) -> dict[str, Ask]:
    """Each kind of request, drawn anew each time."""

    def listing(**query: Any) -> Request:
        return "/experiments", query

    def sorted_by(sort: Sort) -> Ask:
        values: dict[str, Callable[[random.Random], str | float | None]] = {
            "created": lambda _: None,
            "name": lambda chance: f"{chance.choice(_ACTIVATIONS)} depth {chance.randint(2, 100)}",
            "status": lambda _: "succeeded",
            "verdict": lambda chance: chance.choice(_VERDICTS),
            "accuracy": lambda chance: chance.random(),
        }
        value = values[sort.removeprefix("-")]

        def ask(chance: random.Random) -> Request:
            place = Position(chance.choice(identifiers), value(chance))
            return listing(sort=sort, cursor=encode_cursor(place, Filters(), sort))

        return ask

    def deep(chance: random.Random) -> str:
        return encode_cursor(Position(chance.choice(identifiers)), Filters())

    return {
        "first page": lambda _: listing(),
        "any page": lambda chance: listing(cursor=deep(chance)),
        "largest page (500)": lambda chance: listing(limit=500, cursor=deep(chance)),
        "status, common": lambda _: listing(status="succeeded"),
        "status, rare": lambda _: listing(status="queued"),
        "verdict": lambda chance: listing(verdict=chance.choice(_VERDICTS)),
        "verdict that none has": lambda _: listing(verdict="none_such"),
        "tag, of a quarter": lambda chance: listing(tag=f"course:dl-{chance.randrange(_COURSES)}"),
        "tag, of 500": lambda chance: listing(tag=f"owner:user{chance.randrange(_OWNERS)}"),
        "tag, of 50": lambda chance: listing(tag=f"sweep:sweep-{chance.randrange(_SWEEPS)}"),
        "two tags": lambda chance: listing(
            tag=[f"course:dl-{chance.randrange(_COURSES)}", f"owner:user{chance.randrange(_OWNERS)}"]
        ),
        "status and tag, few have both": lambda chance: listing(
            status="cancelled", tag=f"owner:user{chance.randrange(_OWNERS)}"
        ),
        "status and tag, none has both": lambda chance: listing(
            status="queued", tag=f"course:dl-{chance.randrange(_COURSES)}"
        ),
        "name, a quarter has it": lambda chance: listing(name=chance.choice(_ACTIVATIONS).upper()),
        "name, one has it": lambda chance: listing(name=chance.choice(identifiers)[-6:]),
        "name, none has it": lambda _: listing(name="no such name"),
        "name, two letters": lambda chance: listing(name=chance.choice(identifiers)[-2:]),
        "name, status and tag": lambda chance: listing(
            name="depth 7", status="failed", tag=f"course:dl-{chance.randrange(_COURSES)}"
        ),
        **{f"sorted, {sort}": sorted_by(sort) for sort in SORTS if sort != NEWEST},
        "sorted by accuracy, of a verdict": lambda chance: listing(sort="-accuracy", verdict=chance.choice(_VERDICTS)),
        "sorted by name, of a common status": lambda _: listing(sort="name", status="succeeded"),
        "sorted by verdict, of a tag": lambda chance: listing(
            sort="verdict", tag=f"course:dl-{chance.randrange(_COURSES)}"
        ),
        "one experiment": lambda chance: (f"/experiments/{chance.choice(identifiers)}", {}),
    }


def _row(client: httpx.Client, name: str, ask: Ask, repetitions: int) -> Row:
    chance = random.Random(1)  # noqa: S311 - the same every time
    milliseconds = []
    for repetition in range(repetitions + 3):
        path, query = ask(chance)
        began = clocks()
        client.get(path, params=dict(query)).raise_for_status()
        if repetition >= 3:
            milliseconds.append((clocks()[0] - began[0]) * 1e3)
    median, high = (float(value) for value in np.percentile(milliseconds, [50, 99]))
    return Row(name, {"ms, median": median, "ms, p99": high, "ms, most": max(milliseconds)}, [GOAL])


@contextmanager
def _postgresql(directory: Path) -> Iterator[Settings]:
    directory.mkdir()
    with postgresql(directory) as url:
        yield Settings(data_directory=directory / "client", database_url=url)


def _databases(directory: Path) -> Iterator[tuple[str, Settings]]:
    yield "SQLite", Settings(data_directory=directory / "sqlite")
    with _postgresql(directory / "postgresql") as settings:
        settings.data_directory.mkdir()
        yield "PostgreSQL", settings


if __name__ == "__main__":
    command(run)
