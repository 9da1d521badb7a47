"""What storing costs: values a second and bytes a value on both databases, and the size beside TensorBoard's file."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import Connection, func, select, text

from benchmarks.peers import require, rows_of
from benchmarks.results import Figure, Goal, Result, Row, Table, command
from benchmarks.servers import postgresql
from benchmarks.timing import once
from benchmarks.training import dataset, lasting, new_database, new_lease, recorded, storing
from gradprobe import histogram, statistics
from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.statistics import Tensor
from gradprobe.store.database import Database
from gradprobe.store.tables import blocks
from worker.flush import Flusher
from worker.loop import Chunk, Pace, train

Array = npt.NDArray[Any]
Opener = Callable[[], AbstractContextManager[Settings]]

_MEGABYTES = "MB on disk"
SIZE_GOAL = Goal(_MEGABYTES, "≤", 6.0, "MB")


@dataclass(frozen=True, slots=True)
class Content:
    """A training's chunks, in the order in which the loop gave them."""

    spec: Spec
    chunks: Sequence[Chunk]

    def statistics(self) -> Iterator[tuple[Tensor, StatisticsBlock]]:
        """Every block of statistics, the run's own included."""
        for chunk in self.chunks:
            yield from chunk.measured.statistics.items()
            yield "metrics", chunk.metrics
            yield "evaluation", chunk.evaluations

    def counts(self) -> Iterator[tuple[Tensor, CountsBlock]]:
        """Every block of histograms."""
        for chunk in self.chunks:
            yield from chunk.measured.counts.items()

    @property
    def values(self) -> int:
        """Statistics."""
        return sum(block.values.size for _, block in self.statistics())

    @property
    def histograms(self) -> int:
        """Histograms."""
        return sum(len(block.steps) * block.layers for _, block in self.counts())


def run(quick: bool) -> Result:
    """The classic training, everything at every step, stored over and over."""
    content = measured(50, "synthetic") if quick else measured(2500, "mnist")
    repetitions = 1 if quick else 5
    databases: dict[str, Opener] = {"ours, SQLite": _sqlite, "ours, PostgreSQL": _postgresql}
    rows = [
        row
        for name, open_settings in databases.items()
        for row in rows_of(name, partial(_measure, name, open_settings, content, repetitions))
    ]
    peer = "TensorBoard, event file"
    rows += rows_of(peer, partial(_tensorboard, peer, content))
    steps, layers = content.spec.training.iterations, content.spec.network.depth
    title = f"{steps:,} steps × {layers} layers, all statistics and two histograms a layer at every step"
    return Result("store", [Table(f"{title}: {content.values:,} values, {content.histograms:,} histograms", rows)])


def measured(iterations: int, dataset_name: str) -> Content:
    """Train the classic network and keep what it hands on."""
    spec = lasting(recorded(Spec(), 1, 1), iterations)
    chunks: list[Chunk] = []

    def keep(chunk: Chunk) -> None:
        chunks.append(chunk)

    train(spec, dataset(dataset_name), torch.device("cpu"), keep, Pace())
    return Content(spec, chunks)


@contextmanager
def _sqlite() -> Iterator[Settings]:
    with TemporaryDirectory(prefix="gradprobe-bench-") as directory:
        yield Settings(data_directory=Path(directory))


@contextmanager
def _postgresql() -> Iterator[Settings]:
    with (
        TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True) as directory,
        postgresql(Path(directory)) as url,
    ):
        yield Settings(data_directory=Path(directory), database_url=url)


def _measure(name: str, open_settings: Opener, content: Content, repetitions: int) -> list[Row]:
    with open_settings() as settings:
        database = new_database(settings)
        try:
            empty = _bytes_on_disk(database)
            seconds = [_write(database, content)]
            size = _bytes_on_disk(database) - empty
            seconds += [_write(database, content) for _ in range(repetitions - 1)]
            statistics_bytes, counts_bytes = _payload(database, repetitions)
        finally:
            database.close()
    figures: dict[str, Figure] = {
        "s": float(np.median(seconds)),
        "values/s": content.values / float(np.median(seconds)),
        _MEGABYTES: size / 1e6,
        "MB of blocks": (statistics_bytes + counts_bytes) / 1e6,
        "bytes a value": statistics_bytes / content.values,
        "bytes a histogram": counts_bytes / content.histograms,
    }
    return [Row(name, figures, [SIZE_GOAL])]


def _write(database: Database, content: Content) -> float:
    """Store the training as a new experiment, a transaction a chunk; returns seconds."""
    store = storing(Flusher(database, new_lease(database, content.spec)))
    began = time.perf_counter()
    for chunk in content.chunks:
        store(chunk)
    return time.perf_counter() - began


def _payload(database: Database, experiments: int) -> tuple[float, float]:
    """Bytes of an experiment's encoded statistics and of its histograms."""
    columns = [func.sum(func.length(column)) for column in (blocks.c.statistics, blocks.c.counts)]
    with database.read() as connection:
        row = connection.execute(select(*columns)).one()
    return row[0] / experiments, row[1] / experiments


def _bytes_on_disk(database: Database) -> int:
    """What the database takes as it was left, rows that were replaced and are not cleared away yet included."""
    with database.write() as connection:
        if database.is_sqlite:
            return _scalar(connection, "PRAGMA page_count") * _scalar(connection, "PRAGMA page_size")
        return _scalar(connection, "SELECT pg_database_size(current_database())")


def _scalar(connection: Connection, statement: str) -> int:
    return int(connection.execute(text(statement)).scalar_one())


def _tensorboard(name: str, content: Content) -> list[Row]:
    require("tensorboard")
    summary_writer = require("torch.utils.tensorboard").SummaryWriter
    with TemporaryDirectory(prefix="gradprobe-bench-") as directory:

        def store() -> None:
            with summary_writer(directory) as writer:
                _write_scalars(writer, content)
                _write_histograms(writer, content)

        seconds = once(store)
        size = sum(path.stat().st_size for path in Path(directory).iterdir())
    return [Row(name, {"s": seconds, "values/s": content.values / seconds, _MEGABYTES: size / 1e6})]


def _write_scalars(writer: Any, content: Content) -> None:
    for tensor, block in content.statistics():
        for position, name in enumerate(statistics.names(tensor)):
            for layer, series in enumerate(block.values[position], 1):
                for step, value in zip(block.steps.tolist(), series.tolist(), strict=True):
                    writer.add_scalar(f"{tensor}/layer{layer}/{name}", value, step)


def _write_histograms(writer: Any, content: Content) -> None:
    """With the bins in use alone, which is as small as such a file can be."""
    limits = _upper_limits()
    for tensor, block in content.counts():
        for layer in range(block.layers):
            positions, numbers, counts = block.of_layer(layer)
            for position, step in enumerate(block.steps.tolist()):
                mine = positions == position
                order = np.argsort(limits[numbers[mine]])
                _write_histogram(
                    writer, f"{tensor}/layer{layer + 1}", limits[numbers[mine]][order], counts[mine][order], step
                )


def _write_histogram(writer: Any, tag: str, limits: Array, counts: Array, step: int) -> None:
    total = (limits * counts).sum()
    writer.add_histogram_raw(
        tag,
        min=limits[0],
        max=limits[-1],
        num=counts.sum(),
        sum=total,
        sum_squares=(limits * limits * counts).sum(),
        bucket_limits=limits.tolist(),
        bucket_counts=counts.tolist(),
        global_step=step,
    )


def _upper_limits() -> Array:
    """Of each bin of our grid [4096]."""
    limits = np.full(histogram.BINS, np.finfo(np.float64).max)
    limits[histogram.INTERVALS] = histogram.BOUNDS[:, 1]
    limits[histogram.ZERO] = 0.0
    return limits


if __name__ == "__main__":
    command(run)
