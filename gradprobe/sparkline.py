"""A series in a line of text: heights are logarithms, on one scale for all lines of a table."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCKS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"

Scale = tuple[float, float]


def scale_of(values: Floats) -> Scale | None:
    """The smallest and largest log10 among positive finite values; None where there are none."""
    usable = values[np.isfinite(values) & (values > 0)]
    if usable.size == 0:
        return None
    return math.log10(usable.min()), math.log10(usable.max())


def sparkline(values: Floats, width: int, scale: Scale | None) -> str:
    """At most `width` characters for values [S] in order of time.

    A character is the mean logarithm of its share of the values; zero is the lowest block, × a share with ±inf or a
    NaN among numbers, a space one without any number.
    """
    if values.size == 0 or width < 1:
        return ""
    return "".join(_block(part, scale) for part in np.array_split(values, min(width, values.size)))


def _block(values: Floats, scale: Scale | None) -> str:
    if np.isnan(values).all():
        return " "
    if not np.isfinite(values).all():
        return NOT_FINITE
    positive = values[values > 0]
    if scale is None or positive.size == 0:
        return BLOCKS[0]
    low, high = scale
    if high - low < 1e-9:
        return BLOCKS[len(BLOCKS) // 2]
    height = (float(np.log10(positive).mean()) - low) / (high - low)
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(height * len(BLOCKS))))]


def scale_caption(scale: Scale | None) -> str:
    """What the lowest and the highest block stand for."""
    if scale is None:
        return "no value above zero yet"
    return f"{BLOCKS[0]} {10 ** scale[0]:.1e} … {BLOCKS[-1]} {10 ** scale[1]:.1e}, one logarithmic scale for all layers"
