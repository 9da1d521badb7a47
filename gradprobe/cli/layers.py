"""Per-layer tables: how large the gradients are, against the last layer's, and how they went over the run."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from gradprobe.cli.track import Track
from gradprobe.cli.wording import ratio, scientific
from gradprobe.client import GradientKind
from gradprobe.sparkline import scale_caption, scale_of, sparkline

Floats = NDArray[np.float64]

KINDS: dict[GradientKind, str] = {"weights": "∂L/∂W", "outputs": "δ = ∂L/∂z"}
TITLES: dict[GradientKind, str] = {
    "weights": "mean |∂L/∂W|, the gradient of each layer's weights",
    "outputs": "mean |δ|, δ = ∂L/∂z, the gradient at each layer's outputs before the activation",
}
_MOST_ROWS = 40
_FIXED_COLUMNS = 58  # what the columns other than the sparkline take


def layer_table(track: Track, width: int) -> Table:
    """A row per layer: first step, mean over the run, each against the last layer, and a sparkline."""
    drawn = track.drawn()
    scale = scale_of(drawn)
    table = Table(
        title=TITLES[track.kind], title_justify="left", title_style="bold",
        caption=f"{track.recorded:,} recorded steps; {scale_caption(scale)}", caption_justify="left",
        box=None, padding=(0, 2, 0, 0), header_style="dim",
    )  # fmt: skip
    table.add_column("layer")
    for heading in (f"step {track.first_step}", "÷ last layer", "mean of run", "÷ last layer"):
        table.add_column(heading, justify="right")
    table.add_column("over the run", no_wrap=True)
    rows = track.summaries()
    for index in shown_rows(len(rows)):
        if index is None:
            table.add_row("⋮", "⋮", "", "⋮", "", f"({len(rows) - _MOST_ROWS} layers not shown)")
            continue
        row, last = rows[index], rows[-1]
        table.add_row(
            row.name, scientific(row.first), ratio(row.first, last.first),
            scientific(row.mean), ratio(row.mean, last.mean),
            Text(sparkline(drawn[index], max(8, width - _FIXED_COLUMNS), scale), style="cyan"),
        )  # fmt: skip
    return table


def shown_rows(count: int) -> Sequence[int | None]:
    """Indices of the rows to show; None where the middle of a very deep net is left out."""
    if count <= _MOST_ROWS:
        return range(count)
    half = _MOST_ROWS // 2
    return [*range(half), None, *range(count - half, count)]


def finite_mean(values: Floats) -> float:
    """The mean of the finite values; NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
