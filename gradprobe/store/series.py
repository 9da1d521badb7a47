"""What was measured: blocks in, blocks out. Called inside a transaction that the caller opened."""

from typing import Any

from sqlalchemy import Connection, and_, delete, insert

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.levels import LevelBlock
from gradprobe.statistics import Tensor
from gradprobe.store.reader import Reader
from gradprobe.store.tables import blocks

_RAW = 0


def write(
    connection: Connection,
    experiment_id: str,
    tensor: Tensor,
    statistics: StatisticsBlock | None,
    counts: CountsBlock | None = None,
) -> None:
    """Store one run of steps, in place of a block that began at the same step.

    A tail that is still growing is written again and again until it is large enough; readers see it whole each time.
    """
    steps = [int(block.steps[end]) for block in (statistics, counts) if block and len(block.steps) for end in (0, -1)]
    if not steps:
        return
    key = {"experiment_id": experiment_id, "tensor": tensor, "level": _RAW, "first_step": min(steps)}
    values = {
        "last_step": max(steps),
        "statistics": statistics.encode() if statistics is not None else None,
        "counts": counts.encode() if counts is not None else None,
    }
    _replace(connection, key, values)


def write_level(
    connection: Connection, experiment_id: str, tensor: Tensor, level: int, block: LevelBlock, last_step: int
) -> None:
    """Store a run of a coarser level's buckets, in place of one that began at the same bucket.

    `last_step` is that of the measured blocks written along with it: it shows that this level has all they have.
    """
    key = {"experiment_id": experiment_id, "tensor": tensor, "level": level, "first_step": int(block.starts[0])}
    _replace(connection, key, {"last_step": last_step, "statistics": block.encode(), "counts": None})


def read_statistics(
    connection: Connection, experiment_id: str, tensor: Tensor, start: int = 0, stop: int | None = None
) -> StatisticsBlock | None:
    """All statistics of the iterations start ≤ t < stop; None where none are stored. Raises CorruptBlock."""
    return Reader(connection, experiment_id).statistics(tensor, start, stop)


def read_counts(
    connection: Connection, experiment_id: str, tensor: Tensor, start: int = 0, stop: int | None = None
) -> CountsBlock | None:
    """The histograms of the iterations start ≤ t < stop; None where none are stored. Raises CorruptBlock."""
    return Reader(connection, experiment_id).counts(tensor, start, stop)


def _replace(connection: Connection, key: dict[str, Any], values: dict[str, Any]) -> None:
    connection.execute(delete(blocks).where(and_(*(blocks.c[name] == value for name, value in key.items()))))
    connection.execute(insert(blocks).values(**key, **values))
