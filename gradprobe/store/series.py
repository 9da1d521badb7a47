"""What was measured: blocks in, blocks out. Called inside a transaction that the caller opened."""

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, insert, select

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.statistics import Tensor
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
    connection.execute(delete(blocks).where(and_(*(blocks.c[name] == value for name, value in key.items()))))
    connection.execute(
        insert(blocks).values(
            **key,
            last_step=max(steps),
            statistics=statistics.encode() if statistics is not None else None,
            counts=counts.encode() if counts is not None else None,
        )
    )


def read_statistics(
    connection: Connection, experiment_id: str, tensor: Tensor, start: int = 0, stop: int | None = None
) -> StatisticsBlock | None:
    """The statistics of the iterations start ≤ t < stop; None where none are stored. Raises CorruptBlock."""
    rows = connection.execute(_between(blocks.c.statistics, experiment_id, tensor, start, stop)).scalars().all()
    if not rows:
        return None
    joined = StatisticsBlock.join([StatisticsBlock.decode(row) for row in rows])
    return joined.between(start, stop if stop is not None else int(joined.steps[-1]) + 1)


def read_counts(
    connection: Connection, experiment_id: str, tensor: Tensor, start: int = 0, stop: int | None = None
) -> CountsBlock | None:
    """The histograms of the iterations start ≤ t < stop; None where none are stored. Raises CorruptBlock."""
    rows = connection.execute(_between(blocks.c.counts, experiment_id, tensor, start, stop)).scalars().all()
    if not rows:
        return None
    joined = CountsBlock.join([CountsBlock.decode(row) for row in rows])
    return joined.between(start, stop if stop is not None else int(joined.steps[-1]) + 1)


def _between(
    column: ColumnElement[bytes], experiment_id: str, tensor: Tensor, start: int, stop: int | None
) -> Select[bytes]:
    query = (
        select(column)
        .where(
            blocks.c.experiment_id == experiment_id,
            blocks.c.tensor == tensor,
            blocks.c.level == _RAW,
            blocks.c.last_step >= start,
            column.is_not(None),
        )
        .order_by(blocks.c.first_step)
    )
    return query if stop is None else query.where(blocks.c.first_step < stop)
