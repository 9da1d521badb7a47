"""One pass over a layer's elements where they lie: the statistics of one step, compiled for this machine's CPU.

A step's tensors are still in the cache when the backward pass has just written them, so reading them there, once, costs
less than copying them aside for later. Definitions: `gradprobe.statistics`; bins: `gradprobe.histogram`. Every function
here has a slow twin in `tests/numerics/`.

Sums run in float64. `fastmath` may reorder them, which lets the compiler use vector registers; it may not assume that
there is no NaN.
"""

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from gradprobe.histogram import (
    BINS,
    NOT_A_NUMBER,
    POSITIVE_SUBNORMAL,
    SHIFT,
    SIGN,
    ZERO,
)

Function = TypeVar("Function", bound=Callable[..., Any])
Doubles = npt.NDArray[np.float64]
Pointers = npt.NDArray[np.int64]
Scalar = Any  # a machine number of the compiled code

_REORDER: Final = {"reassoc", "contract", "nsz"}
_SMALLEST_NORMAL: Final = np.uint32(0x00800000)
_INFINITY: Final = np.uint32(0x7F800000)
_MAGNITUDE: Final = np.uint32(0x7FFFFFFF)
_SHIFT: Final = np.uint32(SHIFT)
_ONE: Final = np.uint32(1)

#: How an activation's saturation is told from its output h or input z: `gradprobe.probe.saturation`.
NEVER, SIGMOID, TANH, EQUAL_ZERO, BELOW, ABSOLUTE_ONE, GELU, SILU = range(8)


def _compiled(function: Function) -> Function:
    compiler: Any = numba.njit
    options = {"fastmath": _REORDER, "nogil": True, "error_model": "numpy"}
    try:
        return cast(Function, compiler(cache=True, **options)(function))
    except RuntimeError:  # no directory to cache in can be written: compiled anew in every process
        return cast(Function, compiler(**options)(function))


@intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), codegen


# The compiler gives an intrinsic's first argument itself, which the types don't know.
@_compiled
def _floats(address: int, size: int) -> npt.NDArray[np.float32]:
    return carray(_pointer(address), (size,), np.float32)  # type: ignore[call-arg]


@_compiled
def _bits(address: int, size: int) -> npt.NDArray[np.uint32]:
    return carray(_pointer(address), (size,), np.uint32)  # type: ignore[call-arg]


@_compiled
def _sums(x: npt.NDArray[np.float32]) -> tuple[float, float, float]:
    total = absolute = squares = 0.0
    for i in range(x.shape[0]):
        wide = np.float64(x[i])
        total += wide
        absolute += abs(wide)
        squares += wide * wide
    return total, absolute, squares


@_compiled
def _extent(bits: npt.NDArray[np.uint32]) -> tuple[Scalar, Scalar, Scalar]:
    """Smallest magnitude but zero (less one), largest magnitude, both as bits; and how many zeros."""
    smallest = np.uint32(0xFFFFFFFF)
    largest = np.uint32(0)
    zeros = np.uint32(0)
    for i in range(bits.shape[0]):
        magnitude = bits[i] & _MAGNITUDE
        largest = max(largest, magnitude)
        smallest = min(smallest, magnitude - _ONE)  # zero wraps round to the largest number
        zeros += np.uint32(magnitude == 0)
    return smallest, largest, zeros


@_compiled
def _deviations(x: npt.NDArray[np.float32], mean: float) -> float:
    total = 0.0
    for i in range(x.shape[0]):
        deviation = np.float64(x[i]) - mean
        total += deviation * deviation
    return total


@_compiled
def _finite_only(x: npt.NDArray[np.float32], zeros: int, out: Doubles) -> None:
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


@_compiled
def distribution(x: npt.NDArray[np.float32], bits: npt.NDArray[np.uint32], out: Doubles) -> tuple[Scalar, Scalar]:
    """`statistics.DISTRIBUTION` of x [N] (and its bits) into out [7]; returns `_extent`'s smallest and largest."""
    smallest, largest, zeros = _extent(bits)
    size = x.shape[0]
    if largest >= _INFINITY:
        _finite_only(x, zeros, out)
        return smallest, largest
    total, absolute, squares = _sums(x)
    mean = total / size
    out[0], out[1], out[2] = absolute / size, mean, math.sqrt(_deviations(x, mean) / size)
    out[3], out[5], out[6] = math.sqrt(squares), zeros / size, 0.0
    top = np.float32(0)
    for i in range(size):  # at most to the first that has the largest magnitude
        if bits[i] & _MAGNITUDE == largest:
            top = abs(x[i])
            break
    out[4] = top
    return smallest, largest


@_compiled
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


@_compiled
def count(
    bits: npt.NDArray[np.uint32],
    extent: tuple[Scalar, Scalar],
    table: npt.NDArray[np.uint32],
    bins: npt.NDArray[np.uint16],
    counts: npt.NDArray[np.uint32],
) -> int:
    """Histogram of the elements with these bits, sparse: fills bins and counts from their start, returns how many.

    `table` [4096] is all zero before and after. `extent` is what `distribution` returned.
    """
    smallest, largest = extent
    plain = largest < _INFINITY and (smallest == np.uint32(0xFFFFFFFF) or smallest + _ONE >= _SMALLEST_NORMAL)
    if plain:
        for i in range(bits.shape[0]):
            table[bits[i] >> _SHIFT] += _ONE
        table[0] += table[SIGN]  # zeros of both signs are one bin
        table[SIGN] = 0
        low, high = np.int64((smallest + _ONE) >> _SHIFT), np.int64(largest >> _SHIFT)
    else:
        for i in range(bits.shape[0]):
            table[_bin_number(bits[i])] += _ONE
        low, high = np.int64(1), np.int64(SIGN - 1)
    used = 0
    if table[0]:
        bins[used], counts[used] = ZERO, table[0]
        table[0] = 0
        used += 1
    if smallest == np.uint32(0xFFFFFFFF):
        return used
    for sign in (0, SIGN):
        for number in range(low + sign, high + sign + 1):
            if table[number]:
                bins[used], counts[used] = number, table[number]
                table[number] = 0
                used += 1
    return used


@_compiled
def measure(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, not objects
    addresses: Pointers,
    sizes: Pointers,
    scale: float,
    out: Doubles,
    counting: bool,
    table: npt.NDArray[np.uint32],
    scratch: npt.NDArray[np.float32],
    bins: npt.NDArray[np.uint16],
    counts: npt.NDArray[np.uint32],
    lengths: npt.NDArray[np.uint16],
) -> int:
    """Distribution, and histogram where `counting`, of float32 tensors at these addresses, each times `scale`.

    Args:
        addresses, sizes: of the tensors [L], contiguous.
        out: [7, L] float64.
        table: [4096], all zero. scratch: at least the largest size, used where scale is not 1.
        bins, counts: room for the sparse histograms, one after another. lengths: [L], how long each is.

    Returns:
        How much of bins and counts was used.
    """
    used = 0
    row = np.empty(7, np.float64)
    for layer in range(addresses.shape[0]):
        size = sizes[layer]
        x = _floats(addresses[layer], size)
        if scale != 1.0:
            factor = np.float32(scale)
            for i in range(size):
                scratch[i] = x[i] * factor
            x = scratch[:size]
        bits = x.view(np.uint32)
        extent = distribution(x, bits, row)
        for statistic in range(7):
            out[statistic, layer] = row[statistic]
        if counting:
            lengths[layer] = count(bits, extent, table, bins[used:], counts[used:])
            used += lengths[layer]
    return used


@_compiled
def square_sum(addresses: Pointers, sizes: Pointers) -> float:
    """Σx² over all tensors; not finite where an element isn't."""
    total = 0.0
    for tensor in range(addresses.shape[0]):
        total += _sums(_floats(addresses[tensor], sizes[tensor]))[2]
    return total


@_compiled
def _changes(now: npt.NDArray[np.float32], then: npt.NDArray[np.float32]) -> tuple[float, float]:
    changed = norm = 0.0
    for i in range(now.shape[0]):
        old = np.float64(then[i])
        difference = np.float64(now[i]) - old
        changed += difference * difference
        norm += old * old
    return changed, norm


@_compiled
def _changes_of_finite(now: npt.NDArray[np.float32], then: npt.NDArray[np.float32]) -> tuple[float, float]:
    changed = norm = 0.0
    finite = 0
    for i in range(now.shape[0]):
        old = np.float64(then[i])
        if math.isfinite(old):
            finite += 1
            changed += (np.float64(now[i]) - old) ** 2
            norm += old * old
    return (changed, norm) if finite else (np.nan, np.nan)


@_compiled
def update_ratios(addresses: Pointers, sizes: Pointers, before: npt.NDArray[np.float32], out: Doubles) -> None:
    """‖W − before‖ / ‖before‖ of each tensor [L] into out [L]; `before` holds the old ones end to end.

    Over the elements finite before; 0 where both norms are 0; NaN where no element was finite.
    """
    offset = 0
    for layer in range(addresses.shape[0]):
        now = _floats(addresses[layer], sizes[layer])
        then = before[offset : offset + sizes[layer]]
        changed, norm = _changes(now, then)
        if not math.isfinite(norm):
            changed, norm = _changes_of_finite(now, then)
        out[layer] = 0.0 if changed == 0.0 else math.sqrt(changed) / math.sqrt(norm)
        offset += sizes[layer]


@_compiled
def advance(
    addresses: Pointers, sizes: Pointers, before: npt.NDArray[np.float32], ratios: Doubles, distributions: Doubles
) -> None:
    """`update_ratios`, then the distribution of the new weights into [7, L], which replace the old ones in `before`."""
    update_ratios(addresses, sizes, before, ratios)
    row = np.empty(7, np.float64)
    offset = 0
    for layer in range(addresses.shape[0]):
        now = _floats(addresses[layer], sizes[layer])
        distribution(now, _bits(addresses[layer], sizes[layer]), row)
        for statistic in range(7):
            distributions[statistic, layer] = row[statistic]
        before[offset : offset + sizes[layer]] = now
        offset += sizes[layer]


@_compiled
def keep(addresses: Pointers, sizes: Pointers, into: npt.NDArray[np.float32]) -> None:
    """Copy the tensors end to end."""
    offset = 0
    for tensor in range(addresses.shape[0]):
        into[offset : offset + sizes[tensor]] = _floats(addresses[tensor], sizes[tensor])
        offset += sizes[tensor]


@_compiled
def _saturated(rule: int, threshold: np.float32, h: np.float32, z: np.float32) -> Scalar:  # noqa: PLR0911 - one a rule
    one, share = np.float32(1), np.float32(0.05)
    if rule == SIGMOID:
        return h * (one - h) < share * np.float32(0.25)
    if rule == TANH:
        return one - h * h < share
    if rule == EQUAL_ZERO:
        return h == 0
    if rule == BELOW:
        return h < threshold
    if rule == ABSOLUTE_ONE:
        return abs(h) == one
    if rule == GELU:
        density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return abs(0.5 * (1 + math.erf(z / math.sqrt(2))) + z * density) < threshold
    if rule == SILU:
        gate = 1 / (1 + math.exp(-z))
        return abs(gate * (1 + z * (1 - gate))) < threshold
    return False


@_compiled
def activations(
    outputs: Pointers,
    inputs: Pointers,
    shape: npt.NDArray[np.int64],
    rules: npt.NDArray[np.int64],
    thresholds: npt.NDArray[np.float32],
    out: Doubles,
) -> None:
    """mean, std, saturated share, dead share of the outputs h [B, U, …] of each layer into out [4, L].

    Args:
        outputs, inputs: addresses of h and of z [L].
        shape: (batch, units, positions) of each layer [L, 3].
        rules, thresholds: how each layer's saturation is told [L].
    """
    row = np.empty(7, np.float64)
    for layer in range(outputs.shape[0]):
        batch, units, positions = shape[layer]
        size = batch * units * positions
        h, z = _floats(outputs[layer], size), _floats(inputs[layer], size)
        distribution(h, _bits(outputs[layer], size), row)
        out[0, layer], out[1, layer] = row[1], row[2]
        saturated = 0
        if rules[layer] != NEVER:
            for i in range(size):
                if math.isfinite(h[i]):
                    saturated += _saturated(rules[layer], thresholds[layer], h[i], z[i])
        finite = size - row[6]
        out[2, layer] = saturated / finite if finite else np.nan
        alive = 0
        for unit in range(units):
            alive += _alive(h, batch, units, positions, unit)
        out[3, layer] = (units - alive) / units if finite else np.nan


@_compiled
def _alive(h: npt.NDArray[np.float32], batch: int, units: int, positions: int, unit: int) -> bool:
    for sample in range(batch):
        for position in range(positions):
            if h[(sample * units + unit) * positions + position] != 0:
                return True
    return False


assert BINS == 4096  # noqa: S101 - the table's size is written into the kernels
