"""Coarser levels of a series: what a bucket of iterations comes to, so that a long run is read at a distance.

A bucket of width w holds the iterations [k·w, (k + 1)·w) for a whole k, whatever was recorded before or after, so a run
that grows leaves its full buckets as they are. Widths are powers of two: two neighbours make one bucket of the next.

Of each statistic and layer a bucket gives minimum, maximum and mean over the *finite* values, and counts the others by
kind; where none is finite the three are NaN. Merging buckets gives what their steps together would give: minima,
maxima and counts exactly, means to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import StatisticsBlock, Steps, pack, unpack

#: The stored levels and their buckets' widths in iterations; level 0 is as measured.
WIDTHS: Final[dict[int, int]] = {1: 16, 2: 256}
#: The kinds of values that are not finite, in the order of `LevelBlock.nonfinite`'s first axis.
NONFINITE: Final = ("nan", "inf", "-inf")

_PARTS: Final = 3  # the packed arrays of one statistic
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LevelBlock:
    """B buckets of S statistics and L layers.

    `starts`, `first`, `last`, `recorded` are int64 [B]: the bucket's first iteration, the first and the last step
    recorded in it, and how many there are. `minimum`, `maximum`, `mean` are float32 [S, L, B]; `nonfinite`, integers
    [3, S, L, B], is the number of steps whose value is NaN, +Inf, −Inf.
    """

    starts: Steps
    first: Steps
    last: Steps
    recorded: Integers
    minimum: Floats
    maximum: Floats
    mean: Floats
    nonfinite: npt.NDArray[np.integer]

    @classmethod
    def of(cls, raw: StatisticsBlock) -> Self:
        """Buckets of width 1: each recorded step alone."""
        values, finite = raw.values, np.isfinite(raw.values)
        kinds = np.zeros((len(NONFINITE), *values.shape), dtype=np.uint8)
        if not finite.all():
            kinds[:] = np.isnan(values), np.isposinf(values), np.isneginf(values)
            values = np.where(finite, values, np.float32(np.nan))
        ones = np.ones(len(raw.steps), dtype=np.int64)
        return cls(raw.steps, raw.steps, raw.steps, ones, values, values, values, kinds)

    def merged(self, width: int) -> Self:
        """As buckets of `width`, a power of two not below this block's own."""
        keys = self.starts // width * width
        if not len(keys):
            return self
        begins = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        ends = np.append(begins[1:], len(keys)) - 1
        weights = self._finite_steps()
        sums = np.add.reduceat(np.where(weights > 0, self.mean * weights.astype(np.float64), 0.0), begins, axis=-1)
        finite = np.add.reduceat(weights, begins, axis=-1)
        mean = np.divide(sums, finite, out=np.full(sums.shape, np.nan), where=finite > 0)
        return type(self)(
            keys[begins],
            self.first[begins],
            self.last[ends],
            np.add.reduceat(self.recorded, begins),
            np.fmin.reduceat(self.minimum, begins, axis=-1),  # fmin and fmax leave NaN out where they can
            np.fmax.reduceat(self.maximum, begins, axis=-1),
            mean.astype(np.float32),
            np.add.reduceat(self.nonfinite, begins, axis=-1, dtype=np.int64),
        )

    def _finite_steps(self) -> Integers:
        """How many steps of each bucket have a finite value, [S, L, B], or [B] where all have one."""
        return self.recorded - self.nonfinite.sum(axis=0) if self.nonfinite.any() else self.recorded

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Blocks in order, as one; buckets that meet stay apart until `merged`. Raises ValueError for none."""
        if len(blocks) == 1:
            return blocks[0]
        parts = [[getattr(block, name) for block in blocks] for name in cls.__slots__]
        return cls(*(np.concatenate(arrays, axis=-1) for arrays in parts))

    def between(self, start: int, stop: int) -> Self:
        """The buckets that begin at start ≤ t < stop."""
        first, last = np.searchsorted(self.starts, [start, stop])
        return type(self)(*(getattr(self, name)[..., first:last] for name in type(self).__slots__))

    def encode(self) -> bytes:
        """As stored: the spans, then extremes, mean and counts of each statistic."""
        arrays: list[npt.NDArray[np.generic]] = [np.stack([self.starts, self.first, self.last, self.recorded])]
        for position in range(len(self.minimum)):
            extremes = np.stack([self.minimum[position], self.maximum[position]])
            arrays += [extremes, self.mean[position], self.nonfinite[:, position].astype(np.uint16)]
        return pack(arrays)

    @classmethod
    def decode(cls, packed: bytes, statistics: Sequence[int]) -> Self:
        """From the store, the statistics at these positions, in that order; raises CorruptBlock."""
        wanted = [1 + _PARTS * position + part for position in statistics for part in range(_PARTS)]
        spans, *arrays = unpack(packed, [0, *wanted])
        extremes = np.stack(arrays[0::_PARTS], axis=1)
        nonfinite = np.stack(arrays[2::_PARTS], axis=1).astype(np.int64)
        starts, first, last, recorded = spans
        return cls(starts, first, last, recorded, extremes[0], extremes[1], np.stack(arrays[1::_PARTS]), nonfinite)


def bucket_width(first: int, last: int, buckets: int) -> int:
    """The smallest power of two such that the iterations first … last lie in at most `buckets` aligned buckets."""
    width = 1
    while last // width - first // width + 1 > buckets:
        width *= 2
    return width


def pieces(start: int, stop: int | None, levels: Sequence[int]) -> list[tuple[int, int, int | None]]:
    """(level, start, stop) of the parts that make up start ≤ t < stop, each as coarse as its edges allow.

    Args:
        start: first iteration.
        stop: iteration to stop before; None: all that is recorded.
        levels: the stored levels that may be used, besides 0.
    """
    level = max(levels, default=0)
    if not level:
        return [(0, start, stop)]
    width, finer = WIDTHS[level], [other for other in levels if other < level]
    inner_start = -(-start // width) * width
    inner_stop = stop if stop is None else stop // width * width
    if inner_stop is not None and inner_start >= inner_stop:
        return pieces(start, stop, finer)
    found = pieces(start, inner_start, finer) if start < inner_start else []
    found.append((level, inner_start, inner_stop))
    if inner_stop is not None and stop is not None and inner_stop < stop:
        found += pieces(inner_stop, stop, finer)
    return found
