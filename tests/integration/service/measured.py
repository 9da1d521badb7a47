"""A worker's part, played through the store's own functions: claim, write blocks, end."""

from typing import Any

import numpy as np
import numpy.typing as npt

from gradprobe import histogram, statistics
from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.state import Status
from gradprobe.statistics import Tensor
from gradprobe.store import leases, series
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.leases import Lease

RESULT: dict[str, Any] = {
    "final_loss": 0.5,
    "train_accuracy": 0.9,
    "test_accuracy": 0.8,
    "test_loss": 0.6,
    "seconds": 1.5,
    "iterations_per_second": 13.3,
}


def claim(database: Database, experiment_id: str) -> tuple[Record, Lease]:
    with database.write() as connection:
        claimed = leases.claim(connection, experiment_id, "test-worker", 60.0)
    assert claimed is not None
    return claimed


def finish(database: Database, lease: Lease, status: Status = Status.SUCCEEDED) -> None:
    with database.write() as connection:
        leases.finish(connection, lease, status, result=RESULT if status is Status.SUCCEEDED else None)


def write_statistics(
    database: Database, record: Record, tensor: Tensor, steps: range, seed: int = 0
) -> StatisticsBlock:
    """Store random numbers and return them: [statistic, layer, step], a pseudo layer for what has none."""
    layers = 1 if tensor in ("metrics", "evaluation") else len(record.layers)
    shape = (len(statistics.names(tensor)), layers, len(steps))
    values = np.random.default_rng(seed).lognormal(-5, 3, shape).astype(np.float32)
    return store(database, record, tensor, StatisticsBlock(np.array(steps, dtype=np.int64), values))


def store(database: Database, record: Record, tensor: Tensor, block: StatisticsBlock) -> StatisticsBlock:
    with database.write() as connection:
        series.write(connection, record.id, tensor, block)
    return block


def write_counts(
    database: Database, record: Record, tensor: Tensor, steps: range, tensors: list[list[npt.NDArray[np.float32]]]
) -> None:
    """Store histograms of `tensors[step][layer]`, along with statistics as a worker does."""
    dense = np.array([[histogram.count(values) for values in layers] for layers in tensors])
    counts = CountsBlock.from_dense(np.array(steps, dtype=np.int64), dense)
    with database.write() as connection:
        series.write(connection, record.id, tensor, None, counts)
