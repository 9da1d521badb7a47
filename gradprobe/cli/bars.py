"""A histogram in lines of text: magnitude on a logarithmic axis, negative values to the left, positive to the right."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from gradprobe.cli.wording import percent
from gradprobe.client import LayerCounts

Integers = NDArray[np.int64]

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_MOST_ROWS = 24
_STEPS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0)  # decades that one row may span


@dataclass(frozen=True)
class Row:
    """Counts of elements with 10^low ≤ |g| < 10^high."""

    low: float
    high: float
    negative: int
    positive: int


def rows_of(layer: LayerCounts) -> list[Row]:
    """The counts of all steps together, in as many rows of equal decades as fit, largest magnitude first."""
    totals = layer.counts.sum(axis=0)
    filled = np.flatnonzero(totals)
    if filled.size == 0:
        return []
    lower, upper = layer.edges[filled], layer.edges[filled + 1]
    centre = (lower + upper) / 2
    magnitude = np.log10(np.abs(centre))
    span = float(magnitude.max() - magnitude.min())
    step = next((step for step in _STEPS if span / step < _MOST_ROWS - 1), span / (_MOST_ROWS - 1))
    place = np.floor(magnitude / step).astype(np.int64)
    rows = []
    for index in range(int(place.max()), int(place.min()) - 1, -1):
        inside = place == index
        negative = int(totals[filled][inside & (centre < 0)].sum())
        positive = int(totals[filled][inside & (centre > 0)].sum())
        rows.append(Row(index * step, (index + 1) * step, negative, positive))
    return rows


def histogram_table(layer: LayerCounts, title: str, width: int) -> Table:
    """The rows with bars to both sides, and below them what has no place on a logarithmic axis."""
    rows = rows_of(layer)
    elements = int(layer.counts.sum() + layer.zero.sum() + layer.nonfinite.sum())
    most = max((max(row.negative, row.positive) for row in rows), default=1) or 1
    room = max(8, (width - 34) // 2)
    table = Table(
        title=title, title_justify="left", title_style="bold", caption=_caption(layer, elements),
        caption_justify="left", box=None, padding=(0, 1, 0, 0), header_style="dim",
    )  # fmt: skip
    table.add_column("magnitude", justify="right", no_wrap=True)
    table.add_column("negative", justify="right", no_wrap=True)
    table.add_column("positive", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{_power(row.low)} … {_power(row.high)}",
            Text("█" * round(room * row.negative / most) or ("▏" if row.negative else ""), style="magenta"),
            Text(_bar(row.positive / most, room), style="cyan"),
            percent((row.negative + row.positive) / elements if elements else None),
        )
    return table


def _bar(share: float, room: int) -> str:
    eighths = max(math.ceil(share * room * 8), 1) if share else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _power(decade: float) -> str:
    return f"{10.0**decade:.1e}" if -307 < decade < 308 else f"10^{decade:g}"


def _caption(layer: LayerCounts, elements: int) -> str:
    zero, nonfinite = int(layer.zero.sum()), int(layer.nonfinite.sum())
    parts = [
        f"{elements:,} elements: {len(layer.zero):,} recorded steps × {layer.size:,}",
        f"exactly zero: {zero:,} ({percent(zero / elements if elements else None)})",
    ]
    if nonfinite:
        parts.append(f"NaN or infinite: {nonfinite:,}")
    return "; ".join(parts)
