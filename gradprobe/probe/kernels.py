"""One layer's elements, read once where they lie: distribution, histogram, change. Compiled.

Definitions: `gradprobe.statistics`; bins: `gradprobe.histogram`. Every function has a slow twin in `tests/numerics/`.
Elements are read block by block, each block several times in a row, once for each kind of sum: one kind at a time lets
the compiler use vector registers, and a block stays in the first cache.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from gradprobe.histogram import (
    BINS,
    NOT_A_NUMBER,
    POSITIVE_SUBNORMAL,
    SHIFT,
    SIGN,
    ZERO,
)
from gradprobe.probe.compiled import Bits, Doubles, Floats, Scalar, as_float, compiled

_SMALLEST_NORMAL: Final = np.uint32(0x00800000)
_INFINITY: Final = np.uint32(0x7F800000)
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
_NO_MAGNITUDE: Final = np.uint32(0xFFFFFFFF)
_SHIFT: Final = np.uint32(SHIFT)
_ONE: Final = np.uint32(1)
_BLOCK: Final = 2048  # 8 KiB
#: Σx² − N mean² loses digits where it is this small a part of Σx²; the deviations are then summed by themselves.
_CANCELLED: Final = 1e-5


@compiled
def sums(x: Floats) -> tuple[float, float, float]:
    """Σx, Σ|x|, Σx²."""
    total = absolute = squares = 0.0
    for i in range(x.shape[0]):
        wide = np.float64(x[i])
        total += wide
        absolute += abs(wide)
        squares += wide * wide
    return total, absolute, squares


@compiled
def _extent(bits: Bits) -> tuple[Scalar, Scalar, Scalar]:
    """Smallest magnitude but zero (less one), largest magnitude, both as bits; and how many zeros."""
    smallest = _NO_MAGNITUDE
    largest = np.uint32(0)
    zeros = np.uint32(0)
    for i in range(bits.shape[0]):
        magnitude = bits[i] & _MAGNITUDE
        largest = max(largest, magnitude)
        smallest = min(smallest, magnitude - _ONE)  # zero wraps round to the largest number
        zeros += np.uint32(magnitude == 0)
    return smallest, largest, zeros


@compiled
def _magnitude(bits: Scalar) -> float:
    # The compiler gives an intrinsic's first argument itself, which the types don't know.
    return as_float(np.uint32(bits))  # type: ignore[call-arg]


@compiled
def _tally(bits: Bits, table: Bits) -> None:
    """Count in the table's halves in turn: equal elements in a row, zeros say, wait for each other half as long."""
    evens, odds = table[:BINS], table[BINS:]
    pairs = bits.shape[0] // 2 * 2
    for i in range(0, pairs, 2):
        evens[bits[i] >> _SHIFT] += _ONE
        odds[bits[i + 1] >> _SHIFT] += _ONE
    for i in range(pairs, bits.shape[0]):
        evens[bits[i] >> _SHIFT] += _ONE


@compiled
def _scan(x: Floats, bits: Bits, table: Bits) -> tuple[Scalar, Scalar, Scalar, float, float, float]:
    """`_extent` and `sums`; where there is a `table`, each element counted in it by its bits alone."""
    smallest, largest, zeros = _NO_MAGNITUDE, np.uint32(0), np.uint32(0)
    total = absolute = squares = 0.0
    for start in range(0, x.shape[0], _BLOCK):
        part = bits[start : start + _BLOCK]
        low, high, nothing = _extent(part)
        smallest, largest = np.uint32(min(smallest, low)), np.uint32(max(largest, high))
        zeros += nothing
        of_part = sums(x[start : start + _BLOCK])
        total, absolute, squares = total + of_part[0], absolute + of_part[1], squares + of_part[2]
        if table.shape[0]:
            _tally(part, table)
    return smallest, largest, zeros, total, absolute, squares


@compiled
def _deviations(x: Floats, mean: float) -> float:
    total = 0.0
    for i in range(x.shape[0]):
        deviation = np.float64(x[i]) - mean
        total += deviation * deviation
    return total


@compiled
def _finite_only(x: Floats, zeros: Scalar, out: Doubles) -> None:
    total = absolute = squares = largest = 0.0
    count = 0
    for i in range(x.shape[0]):
        wide = np.float64(x[i])
        if math.isfinite(wide):
            count += 1
            total += wide
            absolute += abs(wide)
            squares += wide * wide
            largest = max(largest, abs(wide))
    out[6] = x.shape[0] - count
    if count == 0:
        out[:6] = np.nan
        return
    mean = total / count
    deviations = 0.0
    for i in range(x.shape[0]):
        wide = np.float64(x[i])
        if math.isfinite(wide):
            deviations += (wide - mean) ** 2
    out[0], out[1], out[2] = absolute / count, mean, math.sqrt(deviations / count)
    out[3], out[4], out[5] = math.sqrt(squares), largest, zeros / count


@compiled
def distribution(x: Floats, bits: Bits, table: Bits, out: Doubles) -> tuple[Scalar, Scalar]:
    """`statistics.DISTRIBUTION` of x [N] (and its bits) into out [7]; returns `_extent`'s smallest and largest.

    `table` is empty, or [2 · 4096]: x is then also counted in it, for `sparse`.
    """
    smallest, largest, zeros, total, absolute, squares = _scan(x, bits, table)
    size = x.shape[0]
    if largest >= _INFINITY:
        _finite_only(x, zeros, out)
    else:
        _summarize(x, total, absolute, squares, out)
        out[4], out[5], out[6] = _magnitude(largest), zeros / size, 0.0
    return smallest, largest


@compiled
def _summarize(x: Floats, total: float, absolute: float, squares: float, out: Doubles) -> None:
    """mean |x|, mean, std and norm of finite x into out [:4]."""
    size = x.shape[0]
    mean = total / size
    deviations = squares - size * mean * mean
    if deviations < _CANCELLED * squares:
        deviations = _deviations(x, mean)
    out[0], out[1], out[2], out[3] = absolute / size, mean, math.sqrt(deviations / size), math.sqrt(squares)


@compiled
def _bin_number(bits: np.uint32) -> np.uint32:
    magnitude = bits & _MAGNITUDE
    if magnitude == 0:
        return np.uint32(ZERO)
    if magnitude > _INFINITY:
        return np.uint32(NOT_A_NUMBER)
    number = np.uint32(bits >> _SHIFT)
    if magnitude < _SMALLEST_NORMAL:
        return np.uint32((number & np.uint32(SIGN)) | np.uint32(POSITIVE_SUBNORMAL))
    return number


@compiled
def sparse(
    bits: Bits,
    extent: tuple[Scalar, Scalar],
    table: Bits,
    bins: npt.NDArray[np.uint16],
    counts: Bits,
) -> int:
    """Histogram of the elements with these bits, sparse: fills bins and counts from their start, returns how many.

    There must be room for one more than there can be.
    `extent` and `table` [2 · 4096] are what `distribution` left; the table is all zero afterwards.
    """
    smallest, largest = extent
    evens, odds = table[:BINS], table[BINS:]
    plain = largest < _INFINITY and (smallest == _NO_MAGNITUDE or smallest + _ONE >= _SMALLEST_NORMAL)
    if plain:
        low, high = np.int64((smallest + _ONE) >> _SHIFT), np.int64(largest >> _SHIFT)
        evens[0] += evens[SIGN] + odds[0] + odds[SIGN]  # zeros of both signs are one bin
        evens[SIGN] = odds[0] = odds[SIGN] = 0
    else:  # subnormal, infinite or not a number: more than the bits' first twelve decide
        table[:] = 0
        for i in range(bits.shape[0]):
            evens[_bin_number(bits[i])] += _ONE
        low, high = np.int64(1), np.int64(SIGN - 1)
    used = 0
    if evens[0]:
        bins[used], counts[used] = ZERO, evens[0]
        evens[0] = 0
        used += 1
    if smallest == _NO_MAGNITUDE:
        return used
    for sign in (0, SIGN):
        for number in range(low + sign, high + sign + 1):
            # Written in any case and kept if there are any: which bins are in use is nothing that a processor foresees.
            bins[used], counts[used] = number, evens[number] + odds[number]
            used += counts[used] != 0
            evens[number] = odds[number] = 0
    return used


@compiled
def changes(now: Floats, then: Floats) -> tuple[float, float, float, float, float]:
    """Σ(now − then)², Σthen², and `sums` of now."""
    changed = norm = total = absolute = squares = 0.0
    for i in range(now.shape[0]):
        new, old = np.float64(now[i]), np.float64(then[i])
        difference = new - old
        changed += difference * difference
        norm += old * old
        total += new
        absolute += abs(new)
        squares += new * new
    return changed, norm, total, absolute, squares


@compiled
def changes_of_finite(now: Floats, then: Floats) -> tuple[float, float]:
    """Σ(now − then)² and Σthen² over the elements finite then; NaN where there is none."""
    changed = norm = 0.0
    finite = 0
    for i in range(now.shape[0]):
        old = np.float64(then[i])
        if math.isfinite(old):
            finite += 1
            changed += (np.float64(now[i]) - old) ** 2
            norm += old * old
    return (changed, norm) if finite else (np.nan, np.nan)


@compiled
def advance(now: Floats, bits: Bits, then: Floats, out: Doubles) -> float:
    """‖now − then‖ / ‖then‖; `statistics.DISTRIBUTION` of now into out [7]; now replaces then."""
    smallest, largest, zeros = _NO_MAGNITUDE, np.uint32(0), np.uint32(0)
    total = absolute = squares = changed = norm = 0.0
    finite = False
    for start in range(0, now.shape[0], _BLOCK):
        part, old = now[start : start + _BLOCK], then[start : start + _BLOCK]
        of_part = changes(part, old)
        change, old_squares = of_part[0], of_part[1]
        if not math.isfinite(old_squares):
            change, old_squares = changes_of_finite(part, old)
        if old_squares == old_squares:  # noqa: PLR0124 - not NaN: some element was finite
            finite, changed, norm = True, changed + change, norm + old_squares
        low, high, nothing = _extent(bits[start : start + _BLOCK])
        smallest, largest = np.uint32(min(smallest, low)), np.uint32(max(largest, high))
        zeros += nothing
        total, absolute, squares = total + of_part[2], absolute + of_part[3], squares + of_part[4]
        for i in range(part.shape[0]):  # faster than an assignment of the whole
            old[i] = part[i]
    if largest >= _INFINITY:
        _finite_only(now, zeros, out)
    else:
        _summarize(now, total, absolute, squares, out)
        out[4], out[5], out[6] = _magnitude(largest), zeros / now.shape[0], 0.0
    if not finite:
        return np.nan
    return 0.0 if changed == 0.0 else math.sqrt(changed) / math.sqrt(norm)


assert BINS == 4096  # noqa: S101 - the table's size is written into the kernels
