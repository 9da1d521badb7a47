"""The layers of a stack of small networks, there and back; compiled for this machine's CPU.

An image is mostly background: of MNIST's pixels four of five are zero. The first layer, which is nine tenths of a small
network, therefore goes through the other pixels alone (`worker.stack.images`).

Members are rows: what one computes depends on its own row alone, so that it comes out bit for bit the same in whatever
company.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from worker.stack.vectors import (
    CACHE_LINE,
    UNITS,
    add_all_rows,
    add_rows,
    add_to_all_rows,
    add_to_rows,
    compiled,
    fetch,
    give_rows,
    set_rows,
    take_rows,
)

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Columns = npt.NDArray[np.uint16]
Codes = npt.NDArray[np.uint8] | Floats


@compiled
def count_entries(images: Floats, background: float) -> int:
    """Pixels of images [N, I] that are not background."""
    found = 0
    for image in range(images.shape[0]):
        for pixel in range(images.shape[1]):
            found += images[image, pixel] != background
    return found


@compiled
def list_entries(images: Floats, background: float, starts: Integers, columns: Columns, values: Floats) -> None:
    """Where they are, [E], by how much they differ from it, [E], and where each image's begin, [N + 1]."""
    used, dark = 0, np.float32(background)
    for image in range(images.shape[0]):
        starts[image] = used
        for pixel in range(images.shape[1]):
            if images[image, pixel] != dark:
                columns[used], values[used] = pixel, images[image, pixel] - dark
                used += 1
    starts[images.shape[0]] = used


@compiled
def _addresses(image: int, starts: Integers, columns: Columns, values: Codes, levels: Floats) -> tuple[int, ...]:
    start = starts[image]
    code = 1 if levels.shape[0] else 4  # bytes
    count = starts[image + 1] - start
    of_levels = levels.ctypes.data if levels.shape[0] else 0
    return columns.ctypes.data + 2 * start, values.ctypes.data + code * start, of_levels, count, code


@compiled
def _fetch_entries(image: int, starts: Integers, columns: Columns, values: Codes, levels: Floats) -> None:
    of_columns, of_values, _, count, code = _addresses(image, starts, columns, values, levels)
    fetch(of_columns, 2 * count + CACHE_LINE)
    fetch(of_values, code * count + CACHE_LINE)


_AHEAD: Final = 3  # images


@compiled
def first_layer(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, not objects
    chosen: Integers,
    starts: Integers,
    columns: Columns,
    values: Codes,
    levels: Floats,
    background: float,
    parameters: Floats,
    outputs: Floats,
    table: Floats,
) -> None:
    """z = images · W + b of every member.

    Args:
        chosen: which images each member takes, [M, B].
        starts, columns, values, levels, background: the images, see `worker.stack.images`.
        parameters: [M, P], of which the first are W [I, U] and b [U].
        outputs: z, [M, B, U].
        table: room for sixteen units' weights, [I, 16].
    """
    members, batch, units = outputs.shape
    inputs, z = table.shape[0], outputs.ctypes.data
    for member in range(members):
        weights = parameters[member]
        for low in range(0, units, UNITS):
            wide = min(UNITS, units - low)
            take_rows(weights.ctypes.data + 4 * low, units, inputs, wide, table.ctypes.data)
            common = np.zeros(UNITS, np.float32)
            for unit in range(wide):
                common[unit] = weights[inputs * units + low + unit]
            if background != 0.0:
                _add_background(table, background, common)
            for sample in range(batch):
                if sample + _AHEAD < batch:
                    _fetch_entries(chosen[member, sample + _AHEAD], starts, columns, values, levels)
                found = _addresses(chosen[member, sample], starts, columns, values, levels)
                to = z + 4 * ((member * batch + sample) * units + low)
                add_rows(found[0], found[1], found[2], found[3], table.ctypes.data, common.ctypes.data, to, wide)


@compiled
def _add_background(table: Floats, background: float, sums: Floats) -> None:
    for unit in range(UNITS):
        total = 0.0
        for pixel in range(table.shape[0]):
            total += np.float64(table[pixel, unit])
        sums[unit] += np.float32(background * total)


@compiled
def _add_samples(deltas: Floats, sums: Floats) -> None:
    """Σ over the batch of deltas [B, U]."""
    sums[:] = 0
    for sample in range(deltas.shape[0]):
        for unit in range(deltas.shape[1]):
            sums[unit] += deltas[sample, unit]


@compiled
def first_layer_gradients(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, not objects
    chosen: Integers,
    starts: Integers,
    columns: Columns,
    values: Codes,
    levels: Floats,
    background: float,
    deltas: Floats,
    gradients: Floats,
    table: Floats,
) -> None:
    """∂L/∂W = imagesᵀ · δ and ∂L/∂b = Σδ of every member, from deltas [M, B, U] into the first of gradients [M, P]."""
    members, batch, units = deltas.shape
    inputs, delta = table.shape[0], deltas.ctypes.data
    for member in range(members):
        of_weights = gradients[member]
        of_bias = of_weights[inputs * units : (inputs + 1) * units]
        _add_samples(deltas[member], of_bias)
        for low in range(0, units, UNITS):
            wide = min(UNITS, units - low)
            common = np.zeros(UNITS, np.float32)
            for unit in range(wide):
                common[unit] = np.float32(background) * of_bias[low + unit]
            set_rows(common.ctypes.data, inputs, table.ctypes.data)
            for sample in range(batch):
                if sample + _AHEAD < batch:
                    _fetch_entries(chosen[member, sample + _AHEAD], starts, columns, values, levels)
                found = _addresses(chosen[member, sample], starts, columns, values, levels)
                row = delta + 4 * ((member * batch + sample) * units + low)
                add_to_rows(found[0], found[1], found[2], found[3], table.ctypes.data, row, wide)
            give_rows(table.ctypes.data, inputs, wide, of_weights.ctypes.data + 4 * low, units)


@compiled
def layer(entries: Floats, parameters: Floats, start: int, outputs: Floats, table: Floats) -> None:
    """z = h · W + b of every member.

    torch's batched product rounds by how far from a cache line a matrix lies, and so by how many members come before.

    Args:
        entries: h, [M, B, K]; all arrays are contiguous.
        parameters: [M, P], where W [K, U] and then b [U] begin at `start`.
        outputs: z, [M, B, U].
        table: room for sixteen units' weights, [K, 16].
    """
    members, batch, units = outputs.shape
    inputs = entries.shape[2]
    common = np.zeros(UNITS, np.float32)
    for member in range(members):
        weights = parameters[member, start:]
        for low in range(0, units, UNITS):
            wide = min(UNITS, units - low)
            take_rows(weights.ctypes.data + 4 * low, units, inputs, wide, table.ctypes.data)
            for unit in range(wide):
                common[unit] = weights[inputs * units + low + unit]
            h = entries.ctypes.data + 4 * member * batch * inputs
            z = outputs.ctypes.data + 4 * (member * batch * units + low)
            for _ in range(batch):
                add_all_rows(h, inputs, table.ctypes.data, common.ctypes.data, z, wide)
                h, z = h + 4 * inputs, z + 4 * units


@compiled
def layer_gradients(  # noqa: PLR0913, PLR0917 - compiled code takes arrays, not objects
    entries: Floats,
    parameters: Floats,
    start: int,
    deltas: Floats,
    gradients: Floats,
    of_entries: Floats,
    table: Floats,
) -> None:
    """∂L/∂W = hᵀ · δ and ∂L/∂b = Σδ into the gradients' rows at `start`, ∂L/∂h = δ · Wᵀ into `of_entries` [M, B, K].

    The others as in `layer`; table: [max(K, U), 16].
    """
    members, batch, units = deltas.shape
    inputs = entries.shape[2]
    nothing = np.zeros(UNITS, np.float32)
    for member in range(members):
        weights, of_weights = parameters[member, start:], gradients[member, start:]
        of_members = deltas.ctypes.data + 4 * member * batch * units
        _add_samples(deltas[member], of_weights[inputs * units : (inputs + 1) * units])
        for low in range(0, units, UNITS):
            wide = min(UNITS, units - low)
            set_rows(nothing.ctypes.data, inputs, table.ctypes.data)
            h, delta = entries.ctypes.data + 4 * member * batch * inputs, of_members + 4 * low
            for _ in range(batch):
                add_to_all_rows(h, inputs, table.ctypes.data, delta, wide)
                h, delta = h + 4 * inputs, delta + 4 * units
            give_rows(table.ctypes.data, inputs, wide, of_weights.ctypes.data + 4 * low, units)
        for low in range(0, inputs, UNITS):
            wide = min(UNITS, inputs - low)
            for unit in range(units):
                for entry in range(wide):
                    table[unit, entry] = weights[(low + entry) * units + unit]
            delta, to = of_members, of_entries.ctypes.data + 4 * (member * batch * inputs + low)
            for _ in range(batch):
                add_all_rows(delta, units, table.ctypes.data, nothing.ctypes.data, to, wide)
                delta, to = delta + 4 * units, to + 4 * inputs
