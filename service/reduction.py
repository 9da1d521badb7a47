"""Fewer points than were recorded, so that no spike is lost; `docs/decisions/0012-reduction.md` says why so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.levels import NONFINITE, LevelBlock, bucket_width
from gradprobe.statistics import Tensor
from gradprobe.store.reader import Reader

NONE: Final = "none"
MINMAX: Final = "minmax"
MAXIMUM: Final = "max"
SUM: Final = "sum"

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Range:
    """The recorded iterations start ≤ t < stop, without a stop all from `start` on, as at most `max_points` points."""

    start: int = 0
    stop: int | None = None
    max_points: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A value that JSON can't hold; positions of step, layer and statistic, and how many recorded steps it was."""

    step: int
    layer: int
    statistic: int
    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Points:
    """What is told of a series: its points, what is not finite in them, and how they came about."""

    block: StatisticsBlock
    marks: list[Mark]
    reduction: dict[str, Any]


def read_points(
    reader: Reader, tensor: Tensor, wanted: Range, statistics: Sequence[int], schedule: tuple[int, int]
) -> Points | None:
    """The series within a range, reduced where it has more points than asked for; None where nothing is stored.

    Args:
        reader: of the experiment.
        tensor: which series.
        wanted: the range.
        statistics: their positions, which become those of the points.
        schedule: recorded every so many iterations, and how many iterations there are.
    """
    last = reader.last_step(tensor)
    if last is None:
        return None
    width = planned_width(wanted, last, schedule, points=2)
    if width == 1:
        raw = reader.statistics(tensor, wanted.start, wanted.stop, statistics)
        if raw is None or wanted.max_points is None or len(raw.steps) <= wanted.max_points:
            return None if raw is None else whole(raw)
        width = bucket_width(int(raw.steps[0]), int(raw.steps[-1]), max(1, wanted.max_points // 2))
        level: LevelBlock | None = LevelBlock.of(raw).merged(width)
    else:
        level = reader.reduced(tensor, wanted.start, wanted.stop, width, statistics)
    return None if level is None else reduced(level, width, wanted.max_points == 1)


def planned_width(wanted: Range, last: int, schedule: tuple[int, int], points: int) -> int:
    """The width of buckets of so many points each; 1 where all that will be recorded in the range fits.

    It depends on the range and on what was asked for, not on how far the run is, so that a range that is given in full
    keeps its buckets; one without an end has as many points as it can at any time.
    """
    if wanted.max_points is None:
        return 1
    every, iterations = schedule
    end = last if wanted.stop is None else min(wanted.stop - 1, iterations)
    if end // every - (wanted.start - 1) // every <= wanted.max_points:
        return 1
    return bucket_width(wanted.start, end, max(1, wanted.max_points // points))


def whole(block: StatisticsBlock) -> Points:
    """Every recorded step."""
    chosen = block.values.transpose(2, 1, 0)
    marks = [
        Mark(step, layer, statistic, str(float(chosen[step, layer, statistic])), 1)
        for step, layer, statistic in np.argwhere(~np.isfinite(chosen)).tolist()
    ]
    return Points(block, marks, told(NONE, len(block.steps), len(block.steps), 1))


def reduced(level: LevelBlock, width: int, only_maximum: bool = False) -> Points:
    """Of each bucket its minimum, at its first recorded step, and its maximum, at its last.

    A bucket of one step gives that one. With `only_maximum` each gives its maximum alone, at its first step.
    """
    points = np.ones_like(level.recorded) if only_maximum else np.minimum(level.recorded, 2)
    bucket = np.repeat(np.arange(len(points)), points)
    second = np.append(False, bucket[1:] == bucket[:-1]) if len(bucket) else np.zeros(0, dtype=np.bool_)
    values = np.where(second | only_maximum, level.maximum[..., bucket], level.minimum[..., bucket])
    block = StatisticsBlock(np.where(second, level.last[bucket], level.first[bucket]), values)
    method = MAXIMUM if only_maximum else MINMAX
    reduction = told(method, len(block.steps), int(level.recorded.sum()), width)
    return Points(block, _marks(level, bucket, second), reduction)


def _marks(level: LevelBlock, bucket: npt.NDArray[np.intp], second: npt.NDArray[np.bool_]) -> list[Mark]:
    """A mark at a bucket's first point for each kind of value in it, and at its second where that is null too."""
    counts = level.nonfinite[..., bucket].transpose(3, 2, 1, 0)
    unknown = np.isnan(level.minimum[..., bucket]).transpose(2, 1, 0)
    told_of = (counts > 0) & (~second[:, None, None] | unknown)[..., None]
    return [
        Mark(point, layer, statistic, NONFINITE[kind], int(counts[point, layer, statistic, kind]))
        for point, layer, statistic, kind in np.argwhere(told_of).tolist()
    ]


def summed_buckets(counts: CountsBlock, wanted: Range, schedule: tuple[int, int]) -> tuple[Integers, dict[str, Any]]:
    """For histograms: which point [step] each step's counts are added to, and how that reduces them."""
    steps = counts.steps
    if not len(steps):
        return steps, told(NONE, 0, 0, 1)
    width = planned_width(wanted, int(steps[-1]), schedule, points=1)
    if wanted.max_points is not None and width == 1 and len(steps) > wanted.max_points:
        width = bucket_width(int(steps[0]), int(steps[-1]), wanted.max_points)
    point = np.cumsum(np.diff(steps // width, prepend=steps[0] // width) > 0, dtype=np.int64)
    method = NONE if width == 1 else SUM
    return point, told(method, int(point[-1]) + 1, len(steps), width)


def told(method: str, points: int, of_points: int, bucket: int) -> dict[str, Any]:
    """A `Reduction`."""
    return {"method": method, "points": points, "of_points": of_points, "bucket": bucket}
