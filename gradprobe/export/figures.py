"""Pictures by matplotlib: gradient flow over layers and time, and how the training went.

Drawn on figures of their own, without pyplot: nothing is shared between two requests.
"""

import textwrap
from collections.abc import Sequence
from io import BytesIO
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gradprobe.blocks import StatisticsBlock
from gradprobe.export.contents import Contents
from gradprobe.statistics import Tensor, names

Floats = npt.NDArray[np.float64]

_MEASURED: Final[dict[Tensor, str]] = {
    "weight_gradients": "mean |∂L/∂W|",
    "output_gradients": "mean |δ|, δ = ∂L/∂z of a sample",
}
_COLUMNS: Final = 600  # of a picture of layers over time
_POINTS: Final = 1500  # of a line
_LINES: Final = 10
#: Orders of magnitude below the largest value that a colour or an axis still tells apart.
_DECADES: Final = 12


def gradient_flow(contents: Contents) -> Figure:
    """Layers over time by colour, the same as lines, and loss and accuracy; the verdict above."""
    measured = [tensor for tensor in _MEASURED if tensor in contents.statistics]
    figure = Figure(figsize=(11, 3.4 * (len(measured) + 1) + 0.5), layout="constrained")
    figure.suptitle(_heading(contents), fontsize=11)
    rows = figure.subplots(len(measured) + 1, 2, squeeze=False)
    for tensor, (heat, lines) in zip(measured, rows, strict=False):
        draw_heat(figure, heat, contents, tensor)
        draw_lines(lines, contents, tensor)
    draw_metrics(rows[-1, 0], rows[-1, 1], contents)
    return figure


def _heading(contents: Contents) -> str:
    told = [contents.title]
    if contents.diagnosis is not None:
        told += textwrap.wrap(str(contents.diagnosis["summary"]), 120)
    return "\n".join(told).replace("$", r"\$")  # a name is no formula


def png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """As PNG."""
    buffer = BytesIO()
    FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dots_per_inch, metadata={"Software": "gradprobe"})
    return buffer.getvalue()


def draw_heat(figure: Figure, axes: Axes, contents: Contents, tensor: Tensor) -> None:
    """One statistic over layers × time, log colour; input side at the bottom."""
    block = contents.statistics[tensor]
    values = _mean_abs(block, tensor)
    place = np.unique(np.linspace(0, len(block.steps) - 1, _COLUMNS).round().astype(np.int64))
    seen = values[:, place]
    positive = seen[np.isfinite(seen) & (seen > 0)]
    axes.set_title(_MEASURED[tensor])
    if not len(positive):
        axes.text(0.5, 0.5, "nothing but zeros", ha="center", transform=axes.transAxes)
        return
    most = float(positive.max())
    least = min(max(float(positive.min()), most * 10.0**-_DECADES), most * 0.99)
    colours = colormaps["viridis"].with_extremes(bad="0.6")
    # A zero has no logarithm: it gets the darkest colour; what is not finite is grey.
    shown = np.ma.masked_invalid(np.where(seen == 0, least, seen))
    edges, rows = _edges(block.steps[place]), np.arange(len(values) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, shown, norm=LogNorm(least, most), cmap=colours, rasterized=True)
    ticks = _spread(len(values), _LINES)
    axes.set_yticks(ticks, [contents.layers[layer] for layer in ticks])
    axes.set_xlabel("iteration")
    figure.colorbar(mesh, ax=axes)


def draw_lines(axes: Axes, contents: Contents, tensor: Tensor) -> None:
    """One statistic over time on a log axis, a line a layer; of many layers some, input side darkest."""
    block = contents.statistics[tensor]
    values = _mean_abs(block, tensor)
    place = np.unique(np.linspace(0, len(block.steps) - 1, _POINTS).round().astype(np.int64))
    chosen = _spread(len(values), _LINES)
    colours = colormaps["viridis"](np.linspace(0, 0.92, len(chosen)))
    for layer, colour in zip(chosen, colours, strict=True):
        line = np.where(values[layer, place] > 0, values[layer, place], np.nan)
        axes.plot(block.steps[place], line, color=colour, linewidth=1, label=contents.layers[layer])
    if bool((values > 0).any()):
        axes.set_yscale("log")
    axes.set_title(_MEASURED[tensor])
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=7, ncols=2, framealpha=0.7)


def draw_metrics(left: Axes, right: Axes, contents: Contents) -> None:
    """Loss and accuracy of the batches and of the test set."""
    for axes, name, title in ((left, "loss", "loss, nats"), (right, "accuracy", "accuracy")):
        for tensor, prefix, style in (("metrics", "", "-"), ("evaluation", "test_", "o-")):
            block = contents.statistics.get(tensor)  # type: ignore[call-overload]
            if block is None:
                continue
            values = block.values[names(tensor).index(prefix + name), 0]  # type: ignore[arg-type]
            place = np.unique(np.linspace(0, len(block.steps) - 1, _POINTS).round().astype(np.int64))
            label = "test set" if prefix else "batches"
            axes.plot(
                block.steps[place], values[place], style, linewidth=1, markersize=3,
                alpha=1.0 if prefix else 0.55, label=label, zorder=3 if prefix else 2,
            )  # fmt: skip
        axes.set_title(title)
        axes.set_xlabel("iteration")
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(fontsize=8)


def _mean_abs(block: StatisticsBlock, tensor: Tensor) -> Floats:
    found: Floats = block.values[names(tensor).index("mean_abs")].astype(np.float64)
    return found


def _edges(steps: npt.NDArray[np.int64]) -> Floats:
    """Where each column of a picture begins, and the last one ends."""
    width = int(steps[-1] - steps[-2]) if len(steps) > 1 else 1
    found: Floats = np.append(steps, steps[-1] + width).astype(np.float64)
    return found


def _spread(count: int, most: int) -> Sequence[int]:
    found: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)).tolist()
    return found
