"""One run's stored statistics as the diagnosis reads them, in bounded memory however long the run."""

from typing import Final

import numpy as np

from gradprobe.blocks import StatisticsBlock
from gradprobe.diagnosis.measurements import USED, Measurements, positions
from gradprobe.levels import LevelBlock
from gradprobe.statistics import Tensor
from gradprobe.store.reader import Reader
from gradprobe.subject import AnySpec

#: Values of one statistic read at most: of a longer run its first steps, and buckets of the rest.
_MOST_VALUES: Final = 4_000_000
_FEWEST_COLUMNS: Final = 1024
#: Of a bucket the largest value counts, and not the mean.
_EXTREMES: Final = ("max_abs", "nonfinite_count")


def read(reader: Reader, spec: AnySpec) -> Measurements:
    """What was recorded so far; raises CorruptBlock."""
    wanted: list[Tensor] = [*spec.recording.tensors, "metrics", "evaluation"]
    columns = max(_FEWEST_COLUMNS, _MOST_VALUES // spec.network.depth)
    found = {tensor: _read(reader, tensor, spec.recording.every, columns) for tensor in wanted}
    return Measurements(spec, {tensor: block for tensor, block in found.items() if block is not None})


def _read(reader: Reader, tensor: Tensor, every: int, columns: int) -> StatisticsBlock | None:
    last = reader.last_step(tensor)
    if last is None:
        return None
    chosen = positions(tensor)
    if last // every < columns or tensor == "evaluation":
        return reader.statistics(tensor, statistics=chosen)
    head = columns // 2
    width = 1
    while (last - head * every) // width > head:
        width *= 2
    boundary = -(-head * every // width) * width
    first = reader.statistics(tensor, 0, boundary, chosen)
    rest = reader.reduced(tensor, boundary, None, width, chosen)
    blocks = [first, _as_steps(rest, tensor) if rest is not None else None]
    return StatisticsBlock.join([block for block in blocks if block is not None])


def _as_steps(buckets: LevelBlock, tensor: Tensor) -> StatisticsBlock:
    """Each bucket as one step, its first: means, extremes where those matter, NaN where anything was not finite."""
    values = buckets.mean.copy()
    for position, name in enumerate(USED[tensor]):
        if name in _EXTREMES:
            values[position] = buckets.maximum[position]
    values[buckets.nonfinite.sum(axis=0) > 0] = np.nan
    return StatisticsBlock(buckets.first, values)
