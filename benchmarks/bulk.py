"""Millions of blocks within minutes: one experiment is stored as measured, and SQL makes every other a copy of it."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import numpy as np
from sqlalchemy import Connection, create_engine, delete, func, insert, literal, select, text
from sqlalchemy.engine import URL

from gradprobe import statistics
from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.histogram import BINS
from gradprobe.identifiers import new_experiment_id
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.statistics import HISTOGRAM_TENSORS, Tensor
from gradprobe.store import experiments, names, series
from gradprobe.store.migrate import upgrade
from gradprobe.store.tables import blocks, tags
from gradprobe.store.tables import experiments as table

LAYERS: Final = 2
STEPS: Final = 8  # of a block
_RUNS: Final = 8  # blocks of a tensor, one after another
SPEC: Final = Spec.model_validate(
    {"network": {"depth": LAYERS, "width": 10}, "training": {"iterations": _RUNS * STEPS}}
)
#: What an experiment comes to: five tensors as measured, four of them on a coarser level too, and its evaluations.
BLOCKS_EACH: Final = 50
#: Experiments that end on one day.
A_DAY: Final = 20
DAY_SECONDS: Final = 86_400.0

VERDICTS: Final = ("healthy", "vanishing", "exploding", "dead_units")
ACTIVATIONS: Final = ("sigmoid", "tanh", "relu", "gelu")
COURSES: Final = 4
#: Experiments that have the same `group`.
OF_A_GROUP: Final = 50

MEASURED: Final[tuple[Tensor, ...]] = ("weight_gradients", "output_gradients", "weights", "activations")
_WORKERS: Final = 20  # whose experiments grow at once, so that their blocks lie mixed
_BATCH: Final = 2000

Advance = Callable[[int], None]
Item = TypeVar("Item")


def fill(settings: Settings, count: int, advance: Advance, *, blocks_too: bool = True) -> list[str]:
    """Store so many experiments of `BLOCKS_EACH` blocks, or of none, the oldest first; their ids in that order.

    `advance` is told of the blocks as they come.
    """
    upgrade(settings.database)
    identifiers = sorted(new_experiment_id() for _ in range(count))
    with _loading(settings) as connection:
        pattern = experiments.create(connection, SPEC, 1).id
        _measure(connection, pattern)
        _store_experiments(connection, pattern, identifiers)
        connection.commit()
        _analyze(connection)  # otherwise PostgreSQL reads the whole table for every few experiments
        for position, together in enumerate(_parts(identifiers if blocks_too else [], _WORKERS)):
            _copy(connection, pattern, together)
            advance(len(together) * BLOCKS_EACH)
            if position % 100 == 99:
                connection.commit()
        connection.execute(delete(blocks).where(blocks.c.experiment_id == pattern))
        connection.execute(delete(table).where(table.c.id == pattern))
    settle(settings.database)
    return identifiers


def settle(url: URL) -> None:
    """What PostgreSQL does by itself within minutes of so many writes; SQLite's journal goes into its file."""
    statement = "VACUUM ANALYZE" if _is_postgresql(url) else "PRAGMA wal_checkpoint(TRUNCATE)"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@contextmanager
def _loading(settings: Settings) -> Iterator[Connection]:
    """One connection for all of it, which looks up no foreign key: what is copied refers to what is there."""
    preparations = (
        ["SET session_replication_role = replica", "SET synchronous_commit = off"]
        if _is_postgresql(settings.database)
        else ["PRAGMA foreign_keys = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -262144"]
    )
    engine = create_engine(settings.database)
    try:
        with engine.connect() as connection:
            for statement in preparations:
                connection.execute(text(statement))
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def _is_postgresql(url: URL) -> bool:
    return url.get_backend_name() == "postgresql"


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _analyze(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("ANALYZE experiments"))


def _measure(connection: Connection, identifier: str) -> None:
    """Write the pattern's blocks by the store's own functions."""
    chance = np.random.default_rng(0)
    for tensor in (*MEASURED, "metrics"):
        layers = 1 if tensor == "metrics" else LAYERS
        shape = len(statistics.names(tensor)), layers, STEPS
        for run in range(_RUNS):
            steps = np.arange(run * STEPS, (run + 1) * STEPS, dtype=np.int64)
            block = StatisticsBlock(steps, chance.lognormal(-5.0, 2.0, shape).astype(np.float32))
            counts = _counts(steps[:1], chance) if tensor in HISTOGRAM_TENSORS else None
            series.write(connection, identifier, tensor, block, counts)
        if tensor in MEASURED:
            _write_level(connection, identifier, tensor)
    for step in (_RUNS * STEPS // 2, _RUNS * STEPS - 1):
        shape = len(statistics.names("evaluation")), 1, 1
        evaluation = StatisticsBlock(np.array([step]), chance.random(shape).astype(np.float32))
        series.write(connection, identifier, "evaluation", evaluation)


def _counts(steps: np.ndarray[Any, np.dtype[np.int64]], chance: np.random.Generator) -> CountsBlock:
    dense = np.zeros((len(steps), LAYERS, BINS), dtype=np.int64)
    dense[:, :, BINS // 2 : BINS // 2 + 20] = chance.integers(1, 400, 20)
    return CountsBlock.from_dense(steps, dense)


def _write_level(connection: Connection, identifier: str, tensor: Tensor) -> None:
    """The coarser level, in two runs of buckets, each as long as all that was measured."""
    level, width = next(iter(WIDTHS.items()))
    measured = series.read_statistics(connection, identifier, tensor)
    if measured is None:
        raise AssertionError("what was just written is there")
    last, half = int(measured.steps[-1]), len(measured.steps) // 2
    for start in (0, half):
        buckets = LevelBlock.of(measured.between(start, start + half)).merged(width)
        series.write_level(connection, identifier, tensor, level, buckets, last)


def _store_experiments(connection: Connection, pattern: str, identifiers: list[str]) -> None:
    chance = random.Random(0)  # noqa: S311 - the same every time
    row = dict(connection.execute(select(table).where(table.c.id == pattern)).one()._mapping)
    numbered = list(enumerate(identifiers))
    for some in _parts(numbered, _BATCH):
        rows = [_experiment(row, one, number, len(identifiers), chance) for number, one in some]
        connection.execute(insert(table), rows)
        connection.execute(insert(tags), [tag for number, one in some for tag in _tags(one, number)])
    names.write(connection, identifiers)


def _experiment(
    pattern: Mapping[str, Any], identifier: str, number: int, count: int, chance: random.Random
) -> dict[str, Any]:
    """Shares are the same whatever the count, so that lists of few and of many are equally long."""
    status = {3: "failed", 7: "cancelled"}.get(number % 8, "succeeded")
    name = f"{ACTIVATIONS[number % 4]} depth {chance.randint(2, 100)} run {identifier[-6:]}"
    days = (count - number - 1) // A_DAY + 0.5  # since it ended
    ended = pattern["created_at"] - days * DAY_SECONDS
    result = {"final_loss": chance.random(), "train_accuracy": chance.random(), "test_accuracy": chance.random()}
    result |= {"test_loss": chance.random(), "seconds": 60.0, "iterations_per_second": 40.0}
    return {
        **pattern,
        "id": identifier,
        "status": status,
        **names.columns(name),
        "verdict": chance.choice(VERDICTS) if status == "succeeded" else None,
        "result": json.dumps(result) if status == "succeeded" else None,
        "iteration": pattern["iterations"],
        "attempt": 1,
        "created_at": ended - 61,
        "started_at": ended - 60,
        "finished_at": ended,
    }


def _tags(identifier: str, number: int) -> list[dict[str, str]]:
    values = {"course": f"dl-{number // A_DAY % COURSES}", "group": f"group-{number // OF_A_GROUP}"}
    return [{"experiment_id": identifier, "key": key, "value": value} for key, value in values.items()]


def _copy(connection: Connection, pattern: str, identifiers: Sequence[str]) -> None:
    """Give these experiments the pattern's blocks, in the order in which they would have come from as many workers."""
    source = blocks.alias("source")
    measured = [source.c[column.name] for column in blocks.c if column.name != "experiment_id"]
    copies = (
        select(table.c.id, *measured)
        .join_from(source, table, literal(True))
        .where(source.c.experiment_id == pattern, table.c.id.between(identifiers[0], identifiers[-1]))
        .order_by(source.c.first_step, source.c.level, source.c.tensor, table.c.id)
    )
    connection.execute(insert(blocks).from_select([column.name for column in blocks.c], copies))


def bytes_on_disk(connection: Connection) -> int:
    """What the whole database takes as it is."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one())
    pages, size = (connection.execute(text(f"PRAGMA page_{what}")).scalar_one() for what in ("count", "size"))
    return int(pages) * int(size)


def table_bytes(connection: Connection, name: str) -> int | None:
    """What a table takes with its index; None where SQLite was built without the means to tell."""
    if connection.dialect.name == "postgresql":
        return int(connection.execute(select(func.pg_total_relation_size(name))).scalar_one())
    if not connection.execute(text("SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'")).scalar_one():
        return None
    return int(
        connection.execute(text("SELECT sum(pgsize) FROM dbstat WHERE name = :name"), {"name": name}).scalar_one()
    )


def average_bytes(connection: Connection, identifier: str) -> float:
    """What is in a block of this experiment, without its key."""
    lengths = (func.coalesce(func.length(column), 0) for column in (blocks.c.statistics, blocks.c.counts))
    query = select(func.avg(sum(lengths, start=literal(0)))).where(blocks.c.experiment_id == identifier)
    return float(connection.execute(query).scalar_one())
