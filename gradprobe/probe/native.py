"""The statistics of one step's tensors, all layers at once, where they lie; compiled for this machine's CPU.

A step's tensors are still in the cache when the backward pass has just written them, so reading them there, once, costs
less than copying them aside for later. Every function here has a slow twin in `tests/numerics/`.
"""

import math

import numpy as np

from gradprobe.probe import kernels
from gradprobe.probe.compiled import (
    Bins,
    Bits,
    Doubles,
    Floats,
    Pointers,
    Scalar,
    bins_at,
    bits_at,
    compiled,
    doubles_at,
    floats_at,
    pointers_at,
)

#: How an activation's saturation is told from its output h or input z: `gradprobe.probe.saturation`. WITHIN: z is below
#: the first threshold, or between the second and the third.
NEVER, SIGMOID, TANH, EQUAL_ZERO, BELOW, ABSOLUTE_ONE, WITHIN = range(7)


@compiled
def measure(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, not objects
    addresses: Pointers,
    sizes: Pointers,
    scale: float,
    out: Doubles,
    counting: bool,
    table: Bits,
    scratch: Floats,
    bins: Bins,
    counts: Bits,
    lengths: Bins,
) -> int:
    """Distribution, and histogram where `counting`, of float32 tensors at these addresses, each times `scale`.

    Args:
        addresses, sizes: of the tensors [L], contiguous.
        out: [7, L] float64.
        table: [2 · 4096], all zero. scratch: at least the largest size, used where scale is not 1.
        bins, counts: room for the sparse histograms, one after another. lengths: [L], how long each is.

    Returns:
        How much of bins and counts was used.
    """
    used = 0
    row = np.empty(7, np.float64)
    for layer in range(addresses.shape[0]):
        size = sizes[layer]
        x = floats_at(addresses[layer], size)
        if scale != 1.0:
            factor = np.float32(scale)
            for i in range(size):
                scratch[i] = x[i] * factor
            x = scratch[:size]
        bits = x.view(np.uint32)
        extent = kernels.distribution(x, bits, table if counting else table[:0], row)
        for statistic in range(7):
            out[statistic, layer] = row[statistic]
        if counting:
            lengths[layer] = kernels.sparse(bits, extent, table, bins[used:], counts[used:])
            used += lengths[layer]
    return used


@compiled
def global_norm(known: Doubles, addresses: Pointers, sizes: Pointers) -> float:
    """√Σx² over all tensors; not finite where an element isn't.

    Args:
        known: distributions of the first tensors [7, L], or [7, 0]; their norms are not computed again.
        addresses, sizes: of all tensors [P].
    """
    total = 0.0
    for tensor in range(addresses.shape[0]):
        if tensor < known.shape[1] and known[6, tensor] == 0:
            total += known[3, tensor] * known[3, tensor]
        else:
            total += kernels.sums(floats_at(addresses[tensor], sizes[tensor]))[2]
    return math.sqrt(total)


@compiled
def update_ratios(addresses: Pointers, sizes: Pointers, before: Floats, out: Doubles) -> None:
    """‖W − before‖ / ‖before‖ of each tensor [L] into out [L]; `before` holds the old ones end to end.

    Over the elements finite before; 0 where both norms are 0; NaN where no element was finite.
    """
    offset = 0
    for layer in range(addresses.shape[0]):
        now = floats_at(addresses[layer], sizes[layer])
        then = before[offset : offset + sizes[layer]]
        changed, norm, _, _, _ = kernels.changes(now, then)
        if not math.isfinite(norm):
            changed, norm = kernels.changes_of_finite(now, then)
        out[layer] = 0.0 if changed == 0.0 else math.sqrt(changed) / math.sqrt(norm)
        offset += sizes[layer]


@compiled
def advance(addresses: Pointers, sizes: Pointers, before: Floats, ratios: Doubles, distributions: Doubles) -> None:
    """`update_ratios`, then the distribution of the new weights into [7, L], which replace the old ones in `before`."""
    row = np.empty(7, np.float64)
    offset = 0
    for layer in range(addresses.shape[0]):
        size = sizes[layer]
        ratios[layer] = kernels.advance(
            floats_at(addresses[layer], size), bits_at(addresses[layer], size), before[offset : offset + size], row
        )
        for statistic in range(7):
            distributions[statistic, layer] = row[statistic]
        offset += size


@compiled
def keep(addresses: Pointers, sizes: Pointers, into: Floats) -> None:
    """Copy the tensors end to end."""
    offset = 0
    for tensor in range(addresses.shape[0]):
        into[offset : offset + sizes[tensor]] = floats_at(addresses[tensor], sizes[tensor])
        offset += sizes[tensor]


@compiled
def _is_saturated(rule: int, thresholds: Floats, h: np.float32, z: np.float32) -> Scalar:  # noqa: PLR0911 - one a rule
    one, share = np.float32(1), np.float32(0.05)
    if rule == SIGMOID:
        return h * (one - h) < share * np.float32(0.25)
    if rule == TANH:
        return one - h * h < share
    if rule == EQUAL_ZERO:
        return h == 0
    if rule == BELOW:
        return h < thresholds[0]
    if rule == ABSOLUTE_ONE:
        return abs(h) == one
    if rule == WITHIN:
        return (z < thresholds[0]) | ((z > thresholds[1]) & (z < thresholds[2]))
    return False


@compiled
def _saturated(rule: int, thresholds: Floats, h: Floats, z: Floats) -> int:  # noqa: C901 - one a rule
    """How many of all-finite h [N] are: a loop a rule, each of which fits vector registers."""
    found, size = 0, h.shape[0]
    if rule == SIGMOID:
        for i in range(size):
            found += _is_saturated(SIGMOID, thresholds, h[i], z[i])
    elif rule == TANH:
        for i in range(size):
            found += _is_saturated(TANH, thresholds, h[i], z[i])
    elif rule == EQUAL_ZERO:
        for i in range(size):
            found += _is_saturated(EQUAL_ZERO, thresholds, h[i], z[i])
    elif rule == BELOW:
        for i in range(size):
            found += _is_saturated(BELOW, thresholds, h[i], z[i])
    elif rule == ABSOLUTE_ONE:
        for i in range(size):
            found += _is_saturated(ABSOLUTE_ONE, thresholds, h[i], z[i])
    elif rule == WITHIN:
        for i in range(size):
            found += _is_saturated(WITHIN, thresholds, h[i], z[i])
    return found


@compiled
def _saturated_of_finite(rule: int, thresholds: Floats, h: Floats, z: Floats) -> int:
    found = 0
    for i in range(h.shape[0]):
        if math.isfinite(h[i]):
            found += _is_saturated(rule, thresholds, h[i], z[i])
    return found


@compiled
def activations(
    outputs: Pointers,
    inputs: Pointers,
    shape: Pointers,
    rules: Pointers,
    thresholds: Floats,
    out: Doubles,
) -> None:
    """mean, std, saturated share, dead share of the outputs h [B, U, …] of each layer into out [4, L].

    Args:
        outputs, inputs: addresses of h and of z [L].
        shape: (batch, units, positions) of each layer [L, 3].
        rules, thresholds: how each layer's saturation is told, [L] and [L, 3].
    """
    row, nothing = np.empty(7, np.float64), np.empty(0, np.uint32)
    for layer in range(outputs.shape[0]):
        batch, units, positions = shape[layer]
        size = batch * units * positions
        h, z = floats_at(outputs[layer], size), floats_at(inputs[layer], size)
        kernels.distribution(h, bits_at(outputs[layer], size), nothing, row)
        out[0, layer], out[1, layer] = row[1], row[2]
        if row[6]:
            saturated = _saturated_of_finite(rules[layer], thresholds[layer], h, z)
        else:
            saturated = _saturated(rules[layer], thresholds[layer], h, z)
        finite = size - row[6]
        out[2, layer] = saturated / finite if finite else np.nan
        alive = 0
        for unit in range(units):
            alive += _alive(h, batch, units, positions, unit)
        out[3, layer] = (units - alive) / units if finite else np.nan


@compiled
def _alive(h: Floats, batch: int, units: int, positions: int, unit: int) -> bool:
    for sample in range(batch):
        for position in range(positions):
            if h[(sample * units + unit) * positions + position] != 0:
                return True
    return False


# An argument a line would hide which belong together.
# fmt: off
@compiled
def collect(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, not objects
    row: int, counted: int, counting: bool, gradient_scale: float, delta_scale: float, weights_known: bool,
    used: tuple[int, int], inputs: Pointers,
    gradients: Pointers, gradient_sizes: Pointers, deltas: Pointers, delta_sizes: Pointers,
    outputs: Pointers, shapes: Pointers, rules: Pointers, thresholds: Floats,
    weights: Pointers, weight_sizes: Pointers, before: Floats, known: Doubles,
    gradient_statistics: Doubles, delta_statistics: Doubles, activation_statistics: Doubles, weight_statistics: Doubles,
    norms: Doubles, table: Bits, scratch: Floats,
    gradient_bins: Bins, gradient_counts: Bits, gradient_lengths: Bins,
    delta_bins: Bins, delta_counts: Bits, delta_lengths: Bins,
) -> tuple[int, int]:
    """All of one step in one call: crossing from Python costs as much as a small net's numbers.

    Args:
        row: where the step's statistics go; the last row is nobody's, and only gradients and δ are written there.
        counted: where the lengths of its histograms go, where `counting`.
        used: how much of the histograms' arrays is, of gradients and of δ.
        weights_known: whether `known` and `before` hold these weights already, from `advance`.
        gradients, gradient_sizes: of all parameters [P], the layers' weights first.
        inputs, deltas, outputs, weights: addresses [L]; the others as in the functions that are called.
        *_statistics: [R, statistics, L], or [0, …] of what is not wanted. norms: [R].

    Returns:
        `used` afterwards.
    """
    layers = shapes.shape[0]
    of_gradients, of_deltas = used
    if gradient_statistics.shape[0]:
        of_gradients += measure(
            gradients[:layers], gradient_sizes[:layers], gradient_scale, gradient_statistics[row], counting, table,
            scratch, gradient_bins[of_gradients:], gradient_counts[of_gradients:], gradient_lengths[counted],
        )
    if delta_statistics.shape[0]:
        of_deltas += measure(
            deltas, delta_sizes, delta_scale, delta_statistics[row], counting, table,
            scratch, delta_bins[of_deltas:], delta_counts[of_deltas:], delta_lengths[counted],
        )
    if row == norms.shape[0] - 1:
        return of_gradients, of_deltas
    if gradient_statistics.shape[0] and gradient_scale == 1.0:
        norms[row] = global_norm(gradient_statistics[row], gradients, gradient_sizes)
    else:
        norms[row] = global_norm(known[:, :0], gradients, gradient_sizes) * gradient_scale
    if activation_statistics.shape[0]:
        activations(outputs, inputs, shapes, rules, thresholds, activation_statistics[row])
    if weight_statistics.shape[0]:
        if weights_known:
            weight_statistics[row, :7] = known
        else:
            measure(
                weights, weight_sizes, 1.0, weight_statistics[row], False, table,
                scratch, gradient_bins, gradient_counts, gradient_lengths[0],
            )
            keep(weights, weight_sizes, before)
    return of_gradients, of_deltas
# fmt: on


@compiled
def _flat(of: Pointers) -> int:
    return int(of[1] * of[2] * of[3])


@compiled
def collect_from(  # noqa: PLR0913, PLR0917 - compiled code takes numbers, not objects
    row: int,
    counted: int,
    counting: bool,
    gradient_scale: float,
    delta_scale: float,
    weights_known: bool,
    of_gradients: int,
    of_deltas: int,
    inputs: Pointers,
    of: Pointers,
) -> tuple[int, int]:
    """`collect`, its arrays from `gradients` on `described` in `of` [25, 4]: each array would cost a fifth of a µs."""
    return collect(
        row,
        counted,
        counting,
        gradient_scale,
        delta_scale,
        weights_known,
        (of_gradients, of_deltas),
        inputs,
        pointers_at(of[0, 0], of[0, 1]),
        pointers_at(of[1, 0], of[1, 1]),
        pointers_at(of[2, 0], of[2, 1]),
        pointers_at(of[3, 0], of[3, 1]),
        pointers_at(of[4, 0], of[4, 1]),
        pointers_at(of[5, 0], _flat(of[5])).reshape(of[5, 1], of[5, 2]),
        pointers_at(of[6, 0], of[6, 1]),
        floats_at(of[7, 0], _flat(of[7])).reshape(of[7, 1], of[7, 2]),
        pointers_at(of[8, 0], of[8, 1]),
        pointers_at(of[9, 0], of[9, 1]),
        floats_at(of[10, 0], of[10, 1]),
        doubles_at(of[11, 0], _flat(of[11])).reshape(of[11, 1], of[11, 2]),
        doubles_at(of[12, 0], _flat(of[12])).reshape(of[12, 1], of[12, 2], of[12, 3]),
        doubles_at(of[13, 0], _flat(of[13])).reshape(of[13, 1], of[13, 2], of[13, 3]),
        doubles_at(of[14, 0], _flat(of[14])).reshape(of[14, 1], of[14, 2], of[14, 3]),
        doubles_at(of[15, 0], _flat(of[15])).reshape(of[15, 1], of[15, 2], of[15, 3]),
        doubles_at(of[16, 0], of[16, 1]),
        bits_at(of[17, 0], of[17, 1]),
        floats_at(of[18, 0], of[18, 1]),
        bins_at(of[19, 0], of[19, 1]),
        bits_at(of[20, 0], of[20, 1]),
        bins_at(of[21, 0], _flat(of[21])).reshape(of[21, 1], of[21, 2]),
        bins_at(of[22, 0], of[22, 1]),
        bits_at(of[23, 0], of[23, 1]),
        bins_at(of[24, 0], _flat(of[24])).reshape(of[24, 1], of[24, 2]),
    )
