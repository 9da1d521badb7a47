"""The fixed logarithmic histogram: one grid for every step, layer, run and machine.

A float32's bin is the top twelve of its own bits: sign, eight of exponent, three of mantissa, so eight bins an octave
over the whole normal range. Zero, each sign's subnormals, ±Inf and NaN have bins of their own inside the same 4,096
numbers. Counts add exactly; a quantile read from them is within 6 % (`REPRESENTATIVE_ERROR`) of the true value.

Bin numbers are the twelve bits themselves, so negative values come second and run away from zero;
`INTERVALS` gives the order in which they run from the most negative to the most positive.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

BINS: Final = 4096
SHIFT: Final = 20
ZERO: Final = 0
POSITIVE_SUBNORMAL: Final = 1
POSITIVE_INFINITY: Final = 255 << 3
NOT_A_NUMBER: Final = POSITIVE_INFINITY + 1
SIGN: Final = 1 << 11
NEGATIVE_SUBNORMAL: Final = SIGN | POSITIVE_SUBNORMAL
NEGATIVE_INFINITY: Final = SIGN | POSITIVE_INFINITY
FIRST_NORMAL: Final = 1 << 3

#: Largest relative distance between a normal value and its bin's representative: 1/17.
REPRESENTATIVE_ERROR: Final = 1 / 17

Counts = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def bin_numbers(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bin of each value; same shape as `values` (float32)."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    numbers = (bits >> SHIFT).astype(np.uint16)
    magnitude = bits & 0x7FFFFFFF
    sign = (numbers & SIGN).astype(np.uint16)
    numbers = np.where(magnitude < 0x00800000, sign | POSITIVE_SUBNORMAL, numbers)
    numbers = np.where(magnitude == 0, ZERO, numbers)
    numbers = np.where(magnitude > 0x7F800000, NOT_A_NUMBER, numbers)
    return numbers.astype(np.uint16)


def count(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Counts [4096] of all elements of `values`."""
    return np.bincount(bin_numbers(values).ravel(), minlength=BINS)


def bounds(number: int) -> tuple[float, float]:
    """(low, high) of a finite bin, low < high. Half-open away from zero: the end nearer to zero belongs to the bin.

    Raises:
        ValueError: for zero, ±Inf and NaN, which are points and not intervals.
    """
    if number in (ZERO, POSITIVE_INFINITY, NEGATIVE_INFINITY, NOT_A_NUMBER):
        raise ValueError(f"bin {number} is not an interval")
    magnitude = number & ~SIGN
    near, far = (2.0**-149, 2.0**-126) if magnitude == POSITIVE_SUBNORMAL else (_edge(magnitude), _edge(magnitude + 1))
    return (-far, -near) if number & SIGN else (near, far)


def _edge(magnitude: int) -> float:
    exponent, mantissa = magnitude >> 3, magnitude & 7
    return float((1.0 + mantissa / 8.0) * 2.0 ** (exponent - 127))


def _intervals_by_value() -> npt.NDArray[np.int64]:
    positive = [POSITIVE_SUBNORMAL, *range(FIRST_NORMAL, POSITIVE_INFINITY)]
    return np.array([SIGN | number for number in reversed(positive)] + positive, dtype=np.int64)


#: All interval bins from the most negative to the most positive.
INTERVALS: Final = _intervals_by_value()
BOUNDS: Final[Floats] = np.array([bounds(int(number)) for number in INTERVALS])
_HALF: Final = len(INTERVALS) // 2
_VALUE_ORDER: Final = np.concatenate(
    [[NEGATIVE_INFINITY], INTERVALS[:_HALF], [ZERO], INTERVALS[_HALF:], [POSITIVE_INFINITY]]
)


def _representatives() -> Floats:
    """Of each bin in value order: the harmonic mean of its bounds, which halves the largest relative error."""
    low, high = BOUNDS[:, 0], BOUNDS[:, 1]
    middle = 2.0 / (1.0 / low + 1.0 / high)
    return np.concatenate([[-np.inf], middle[:_HALF], [0.0], middle[_HALF:], [np.inf]])


_REPRESENTATIVES: Final = _representatives()
#: The representative of each of `INTERVALS`.
_MIDDLES: Final = np.concatenate([_REPRESENTATIVES[1 : _HALF + 1], _REPRESENTATIVES[_HALF + 2 : -1]])


def _ranks() -> npt.NDArray[np.int64]:
    """Of each bin number [4096], its place in value order; −1 for NaN, which has none."""
    ranks = np.full(BINS, -1, dtype=np.int64)
    ranks[_VALUE_ORDER] = np.arange(len(_VALUE_ORDER))
    return ranks


_RANKS: Final = _ranks()


def quantile(counts: Counts, q: float) -> float:
    """The q-quantile (0 ≤ q ≤ 1, inverted CDF) of what `counts` [4096] counted, NaN elements left out.

    Within 6 % of the true one where that is a normal float32. NaN where nothing but NaN was counted.
    """
    ordered = np.asarray(counts, dtype=np.int64)[_VALUE_ORDER]
    total = int(ordered.sum())
    if total == 0:
        return float("nan")
    rank = max(1, int(np.ceil(q * total)))
    return float(_REPRESENTATIVES[int(np.searchsorted(np.cumsum(ordered), rank))])


def quantiles(row: Counts, numbers: Counts, counts: Counts, length: int, q: Floats) -> Floats:
    """What `quantile` gives, of many sparse histograms at once; entries of one bin and one row add up.

    Args:
        row: [entries], which histogram each entry belongs to, 0 ≤ row < length.
        numbers: [entries], each entry's bin.
        counts: [entries], what was counted there.
        length: the number of histograms, H.
        q: [Q], each 0…1.

    Returns:
        [Q, H].
    """
    rank = _RANKS[numbers]
    ordered = rank >= 0
    row, rank, count = row[ordered], rank[ordered], counts[ordered]
    # Dense over the bins in use alone: a few hundred of 4,096.
    used = np.flatnonzero(np.bincount(rank, minlength=1))
    column = np.searchsorted(used, rank)
    dense = np.bincount(row * len(used) + column, weights=count, minlength=length * len(used))
    reached = np.cumsum(dense.astype(np.int64).reshape(length, len(used)), axis=1)
    total = reached[:, -1] if len(used) else np.zeros(length, dtype=np.int64)
    result = np.full((len(q), length), np.nan)
    for place, share in enumerate(q):
        wanted = np.maximum(1, np.ceil(share * total))
        below = (reached < wanted[:, None]).sum(axis=1)
        known = total > 0
        result[place, known] = _REPRESENTATIVES[used[below[known]]]
    return result


def occupied_grid(used: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The part of the grid that is in use, as contiguous edges.

    Args:
        used: [4096], whether the bin of that number counts anything.

    Returns:
        edges [m + 1] ascending, and position [4096]: which of the m bins a bin's number is, −1 for one that is not
        used or not an interval. A run of unused bins between used ones is told as one bin, so that the edges stay
        contiguous and nothing is lost.
    """
    edges: list[float] = []
    positions = np.full(BINS, -1, dtype=np.int64)
    for place in np.flatnonzero(used[INTERVALS]):
        low, high = BOUNDS[place]
        if not edges or edges[-1] != low:
            edges.append(float(low))
        positions[INTERVALS[place]] = len(edges) - 1
        edges.append(float(high))
    return np.array(edges), positions


def linear_grid(used: npt.NDArray[np.bool_], bins: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """`bins` equal bins from the lowest edge to the highest of the intervals in use.

    A logarithmic bin goes whole to the linear one that holds its representative, so counts stay whole and add up; where
    linear bins are narrower than logarithmic ones, some of them stay empty.

    Args:
        used: [4096], whether the bin of that number counts anything.
        bins: how many.

    Returns:
        As `occupied_grid`: edges [bins + 1], and position [4096]. No edges where no interval is used.
    """
    positions = np.full(BINS, -1, dtype=np.int64)
    places = np.flatnonzero(used[INTERVALS])
    if not len(places):
        return np.empty(0), positions
    edges = np.linspace(BOUNDS[places[0], 0], BOUNDS[places[-1], 1], bins + 1)
    inside = np.searchsorted(edges, _MIDDLES[places], side="right") - 1
    positions[INTERVALS[places]] = np.clip(inside, 0, bins - 1)
    return edges, positions


def zeros(counts: Counts) -> npt.NDArray[np.int64]:
    """Elements that are exactly zero, of [..., 4096] as [...]."""
    return np.asarray(counts, dtype=np.int64)[..., ZERO]


def nonfinite(counts: Counts) -> npt.NDArray[np.int64]:
    """Elements that are NaN or ±Inf, of [..., 4096] as [...]."""
    special = [POSITIVE_INFINITY, NEGATIVE_INFINITY, NOT_A_NUMBER]
    total: npt.NDArray[np.int64] = np.asarray(counts, dtype=np.int64)[..., special].sum(axis=-1)
    return total
