"""What was measured: blocks in, blocks out. Called inside a transaction that the caller opened."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, delete, insert, select

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.statistics import STATISTICS, Tensor
from gradprobe.store.reader import Reader
from gradprobe.store.tables import blocks

_RAW = 0


#: A block's row: a value of each of the table's columns.
BlockRow = dict[str, Any]

_KEY = ("experiment_id", "tensor", "level", "first_step")
# Made once: of a small block the database takes as long as the building of a statement.
_DELETE = delete(blocks).where(and_(*(blocks.c[name] == bindparam(f"of_{name}") for name in _KEY)))
_INSERT = insert(blocks)


def row_of(
    experiment_id: str, tensor: Tensor, statistics: StatisticsBlock | None, counts: CountsBlock | None = None
) -> BlockRow | None:
    """The row of one run of steps as measured; None where there is nothing to store."""
    steps = [int(block.steps[end]) for block in (statistics, counts) if block and len(block.steps) for end in (0, -1)]
    if not steps:
        return None
    return {
        "experiment_id": experiment_id,
        "tensor": tensor,
        "level": _RAW,
        "first_step": min(steps),
        "last_step": max(steps),
        "statistics": statistics.encode() if statistics is not None else None,
        "counts": counts.encode() if counts is not None else None,
    }


def row_of_level(experiment_id: str, tensor: Tensor, level: int, block: LevelBlock, last_step: int) -> BlockRow:
    """The row of a run of a coarser level's buckets.

    `last_step` is that of the measured blocks written along with it: it shows that this level has all they have.
    """
    key = {"experiment_id": experiment_id, "tensor": tensor, "level": level, "first_step": int(block.starts[0])}
    return key | {"last_step": last_step, "statistics": block.encode(), "counts": None}


def replace(connection: Connection, rows: Sequence[BlockRow]) -> None:
    """Store blocks, of any experiments, each in place of one that began at the same step.

    A tail that is still growing is written again and again until it is large enough; readers see it whole each time.
    """
    if rows:
        connection.execute(_DELETE, [{f"of_{name}": row[name] for name in _KEY} for row in rows])
        connection.execute(_INSERT, list(rows))


def write(
    connection: Connection,
    experiment_id: str,
    tensor: Tensor,
    statistics: StatisticsBlock | None,
    counts: CountsBlock | None = None,
) -> None:
    """Store one run of steps, see `replace`."""
    row = row_of(experiment_id, tensor, statistics, counts)
    replace(connection, [row] if row is not None else [])


def write_level(
    connection: Connection, experiment_id: str, tensor: Tensor, level: int, block: LevelBlock, last_step: int
) -> None:
    """Store a run of a coarser level's buckets, see `row_of_level`."""
    replace(connection, [row_of_level(experiment_id, tensor, level, block, last_step)])


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


def cut(connection: Connection, experiment_id: str, iteration: int) -> None:
    """Remove what was measured at `iteration` and later, and of coarser levels the bucket that it lies in.

    That bucket is written again with the next flush; until then readers see that the level is not complete.

    Raises:
        CorruptBlock: a stored block is damaged.
    """
    for level, width in {_RAW: 1, **WIDTHS}.items():
        boundary = iteration // width * width
        beyond = and_(blocks.c.experiment_id == experiment_id, blocks.c.level == level, blocks.c.last_step >= boundary)
        connection.execute(delete(blocks).where(beyond, blocks.c.first_step >= boundary))
        for row in connection.execute(select(blocks).where(beyond)).all():
            key = {name: getattr(row, name) for name in ("experiment_id", "tensor", "level", "first_step")}
            values = _shortened(row, boundary) if level == _RAW else _shortened_level(row, boundary)
            replace(connection, [key | values])


def _shortened(row: Any, stop: int) -> dict[str, Any]:
    names = ("statistics", "counts")
    cut_off = {
        name: block.between(0, stop) for name, block in zip(names, _decoded(row), strict=True) if block is not None
    }
    left = {name: block for name, block in cut_off.items() if len(block.steps)}
    encoded = {name: left[name].encode() if name in left else None for name in names}
    return {"last_step": max(int(block.steps[-1]) for block in left.values()), **encoded}


def _shortened_level(row: Any, stop: int) -> dict[str, Any]:
    kept = LevelBlock.decode(row.statistics, range(len(STATISTICS[row.tensor]))).between(0, stop)
    return {"last_step": int(kept.last[-1]), "statistics": kept.encode(), "counts": None}


def remove(connection: Connection, experiment_id: str) -> None:
    """Remove all of it."""
    connection.execute(delete(blocks).where(blocks.c.experiment_id == experiment_id))


def tensors(connection: Connection, experiment_id: str) -> list[Tensor]:
    """Those of which anything is stored."""
    query = select(blocks.c.tensor).where(blocks.c.experiment_id == experiment_id, blocks.c.level == _RAW).distinct()
    return list(connection.execute(query).scalars())


def last_block(
    connection: Connection, experiment_id: str, tensor: Tensor
) -> tuple[StatisticsBlock | None, CountsBlock | None]:
    """The block that was stored last, as measured. Raises CorruptBlock."""
    row = connection.execute(
        _measured(experiment_id, tensor).order_by(blocks.c.first_step.desc()).limit(1)
    ).one_or_none()
    return _decoded(row) if row is not None else (None, None)


def first_steps(connection: Connection, experiment_id: str, tensor: Tensor, count: int) -> list[int]:
    """The first iterations at which statistics were recorded, at most `count`. Raises CorruptBlock."""
    rows = connection.execute(
        _measured(experiment_id, tensor)
        .where(blocks.c.statistics.is_not(None))
        .order_by(blocks.c.first_step)
        .limit(count)  # each block has one at least
    )
    steps = [step for row in rows for step in StatisticsBlock.decode(row.statistics, ()).steps.tolist()]
    return steps[:count]


def _measured(experiment_id: str, tensor: Tensor) -> Select[Any]:
    return select(blocks).where(
        blocks.c.experiment_id == experiment_id, blocks.c.tensor == tensor, blocks.c.level == _RAW
    )


def _decoded(row: Any) -> tuple[StatisticsBlock | None, CountsBlock | None]:
    return (
        StatisticsBlock.decode(row.statistics) if row.statistics is not None else None,
        CountsBlock.decode(row.counts) if row.counts is not None else None,
    )
