"""Pictures of what was measured. They are figures by themselves: no window, no global state of pyplot.

Imported only where a picture is asked for: it needs matplotlib.
"""

import io
import textwrap
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from gradprobe.client.arrays import Histograms, LayerCounts, Series
from gradprobe.resources import DiagnosisDocument

Floats = NDArray[np.float64]

_SYMBOLS: Final = {
    "weight_gradients": "∂L/∂W",
    "clipped_weight_gradients": "∂L/∂W clipped",
    "output_gradients": "δ",
    "weights": "W",
    "activations": "h",
}
_NAMES: Final = {
    "weight_gradients": "gradient of the weights, ∂L/∂W",
    "clipped_weight_gradients": "gradient of the weights after clipping, ∂L/∂W",
    "output_gradients": "gradient at the layers' outputs, δ = ∂L/∂z",
    "weights": "weights, W",
    "activations": "activations, h",
}
_FORMS: Final = {"mean_abs": "mean |{}|", "mean": "|mean {}|", "std": "std {}", "norm": "‖{}‖", "max_abs": "max |{}|"}
#: Statistics on a linear scale: shares and counts, whose zero means something.
_LINEAR: Final = frozenset({"zero_fraction", "saturated_fraction", "dead_fraction", "nonfinite_count"})
_MOST_COLUMNS: Final = 800
_MOST_MARKS: Final = 3
_MOST_LAYER_LABELS: Final = 20
_MOST_PANELS: Final = 12
_BINS_A_DECADE: Final = 4
_UNSEEN: Final = 0.002  # of a layer's elements, the smallest
_WITHOUT: Final = "#d9d9d9"
_FIRST, _MEAN, _MARK = "#999999", "#1f4e9c", "#c0392b"
_SMALL: Final = 8.5


class Picture(Figure):
    """A figure that a notebook shows by itself."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        self.savefig(written, format="png", dpi=120)
        return written.getvalue()


def gradient_flow(series: Series, statistic: str, diagnosis: DiagnosisDocument | None) -> Picture:
    """Layers over time in colour, and beside it each layer's mean over the run and its first step."""
    logarithmic = statistic not in _LINEAR
    steps, values = _columns(series, statistic, logarithmic)
    label = _label(series, statistic)
    figure = Picture(figsize=(10.5, min(7.5, 3.0 + 0.2 * len(series.layers))), layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 1))
    flow = figure.add_subplot(grid[0, 0])
    profile = figure.add_subplot(grid[0, 1], sharey=flow)
    _title(figure, series, diagnosis)
    scale = _scale(values, logarithmic)
    if scale is None:
        flow.text(0.5, 0.5, "Nothing above zero was recorded", ha="center", va="center", transform=flow.transAxes)
    else:
        _flow(figure, flow, steps, (values, scale, label))
        _profile(profile, values, label, logarithmic)
    _layers(flow, series.names)
    if diagnosis is not None:
        _marks(flow, diagnosis)
    return figure


def distributions(histograms: Histograms) -> Picture:
    """A panel a layer: which share of the elements has which magnitude, step by step."""
    chosen = _spread(len(histograms.layers), _MOST_PANELS)
    columns = min(3, max(1, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    figure = Picture(figsize=(3.5 * columns + 0.8, 2.3 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    counted = [_by_decade(histograms.layers[index]) for index in chosen]
    found = [part for part in counted if part is not None]
    low, high = (
        min((_lowest(*part) for part in found), default=-1.0),
        max((edges[-1] for edges, _ in found), default=0.0),
    )
    largest = max((float(np.quantile(shares, 0.999)) for _, shares in found), default=1.0) or 1.0
    mesh: Any = None
    for axes, index, part in zip(panels.flat, chosen, counted, strict=False):
        axes.set_title(histograms.layers[index].name, fontsize=10, loc="left")
        axes.set_facecolor(mpl.colormaps["viridis"](0.0))
        if part is not None and histograms.steps.size:
            edges, shares = part
            mesh = axes.pcolormesh(
                _edges(histograms.steps),
                edges,
                shares,
                cmap="viridis",
                norm=PowerNorm(0.5, 0, largest),
                rasterized=True,
            )
        axes.set_ylim(low, high)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda exponent, _: f"$10^{{{exponent:g}}}$"))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in panels.flat[len(chosen) :]:
        axes.set_visible(False)
    symbol = _SYMBOLS["output_gradients" if histograms.of == "outputs" else "weight_gradients"]
    if mesh is not None:
        figure.colorbar(mesh, ax=panels, label="share of elements in a quarter decade", shrink=0.8, extend="max")
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel(f"magnitude |{symbol}|", fontsize=10)
    left = f", {len(chosen)} of {len(histograms.layers)} layers" if len(chosen) < len(histograms.layers) else ""
    figure.suptitle(f"How |{symbol}| is distributed · {histograms.experiment_id}{left}", fontsize=11, x=0.01, ha="left")
    return figure


def _columns(series: Series, statistic: str, logarithmic: bool) -> tuple[NDArray[np.int64], Floats]:
    """Steps [S] and values [L, S]; of a bucket that gives its minimum and its maximum, the (geometric) mean of both."""
    values = np.abs(series.matrix(statistic))
    if series.reduction.bucket == 1 or not series.steps.size:
        return series.steps, values
    starts = np.flatnonzero(np.diff(series.steps // series.reduction.bucket, prepend=-1))
    return series.steps[starts], _merged(values, starts, logarithmic)


def _label(series: Series, statistic: str) -> str:
    symbol = _SYMBOLS.get(series.tensor, series.of)
    return _FORMS.get(statistic, statistic.replace("_", " ") + " of {}").format(symbol)


def _title(figure: Figure, series: Series, diagnosis: DiagnosisDocument | None) -> None:
    what = f"{_NAMES.get(series.tensor, series.tensor)} · {series.experiment_id}"
    if series.reduction.bucket > 1:
        what += f" · {series.reduction.bucket} iterations a column"
    if diagnosis is None:
        figure.suptitle(what[0].upper() + what[1:], fontsize=11, x=0.01, ha="left")
        return
    verdict = "\n".join(textwrap.wrap(diagnosis.summary, 108))
    figure.suptitle(verdict, fontsize=12, fontweight="bold", x=0.01, ha="left")
    figure.supxlabel(what, fontsize=_SMALL, color="#666666", x=0.01, ha="left")


def _scale(values: Floats, logarithmic: bool) -> Normalize | None:
    """The range of colours; None where there is nothing to show."""
    finite = values[np.isfinite(values)]
    if not logarithmic:
        return Normalize(0.0, float(finite.max()) or 1.0) if finite.size else None
    positive = finite[finite > 0]
    if not positive.size:
        return None
    low, high = float(positive.min()), float(positive.max())
    return LogNorm(low, high) if high > 1.01 * low else LogNorm(low / 2, high * 2)


def _flow(figure: Figure, axes: Axes, steps: NDArray[np.int64], drawn: tuple[Floats, Normalize, str]) -> None:
    values, scale, label = drawn
    logarithmic = isinstance(scale, LogNorm)
    shown = np.where(np.isfinite(values) & ((values > 0) | (not logarithmic)), values, np.nan)
    condensed, starts = _condensed(shown, logarithmic)
    colours = mpl.colormaps["magma"].with_extremes(bad=_WITHOUT)
    axes.set_facecolor(_WITHOUT)
    edges = _edges(steps)[[*starts, steps.size]]
    places = np.arange(values.shape[0] + 1) + 0.5
    mesh = axes.pcolormesh(edges, places, np.ma.masked_invalid(condensed), cmap=colours, norm=scale, rasterized=True)
    bar = figure.colorbar(mesh, ax=axes, location="left", pad=0.02, aspect=28)
    bar.set_label(label, fontsize=10)
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    if np.isnan(condensed).any():
        axes.set_xlabel(f"training step      (grey: {'zero or ' if logarithmic else ''}not finite)")


def _profile(axes: Axes, values: Floats, label: str, logarithmic: bool) -> None:
    """Each layer's mean over the run and its first step, on the same scale."""
    places = np.arange(values.shape[0]) + 1
    finite = np.where(np.isfinite(values), values, np.nan)
    means = np.array([row[~np.isnan(row)].mean() if (~np.isnan(row)).any() else np.nan for row in finite])
    axes.plot(finite[:, 0], places, color=_FIRST, marker="o", markersize=3.5, linewidth=1.2, label="first step")
    axes.plot(means, places, color=_MEAN, marker="o", markersize=4.5, linewidth=1.8, label="mean of the run")
    if logarithmic and (finite > 0).any():
        drawn = np.concatenate([finite[:, 0], means])
        drawn = drawn[drawn > 0]
        axes.set_xlim(float(drawn.min()) / 1.6, float(drawn.max()) * 1.6)
        axes.set_xscale("log", nonpositive="mask")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.grid(True, axis="x", color="#dddddd", linewidth=0.8)
    axes.tick_params(labelleft=False, left=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=_SMALL, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1)


def _layers(axes: Axes, names: tuple[str, ...]) -> None:
    """The input's side below, the loss's above: gradients travel downwards."""
    every = -(-len(names) // _MOST_LAYER_LABELS)
    shown = [*range(0, len(names), every)]
    axes.set_yticks([index + 1 for index in shown], [names[index] for index in shown])
    axes.set_ylim(0.5, max(1, len(names)) + 0.5)
    axes.tick_params(axis="y", length=0)


def _marks(axes: Axes, diagnosis: DiagnosisDocument) -> None:
    """Above: since when each finding holds, the weightiest first; and a line at each such step but the very first."""
    begun = {finding.rule: finding.first_step for finding in reversed(diagnosis.findings)}
    found = [*reversed(begun.items())][:_MOST_MARKS]
    left, right = axes.get_xlim()
    for _, step in found:
        if step > left + 0.005 * (right - left):
            axes.axvline(step, color=_MARK, linewidth=1.2, linestyle=(0, (4, 2)))
    words = " · ".join(f"{rule.replace('_', ' ')} from step {step:,}" for rule, step in found)
    axes.set_title(words, color=_MARK, fontsize=_SMALL, loc="left", pad=5)


def _condensed(values: Floats, logarithmic: bool) -> tuple[Floats, NDArray[np.int64]]:
    """At most so many columns, each the mean of its steps (the geometric one), and the first step's place of each."""
    steps = values.shape[1]
    starts = np.unique(np.linspace(0, steps, min(steps, _MOST_COLUMNS), endpoint=False).astype(np.int64))
    return (values, starts) if starts.size == steps else (_merged(values, starts, logarithmic), starts)


def _merged(values: Floats, starts: NDArray[np.int64], logarithmic: bool) -> Floats:
    """The mean of what is a number from each start to the next; of logarithms, that of what is above zero."""
    present = np.isfinite(values) & ((values > 0) | (not logarithmic))
    taken = np.where(present, values, 1.0)
    sums = np.add.reduceat(np.where(present, np.log(taken) if logarithmic else taken, 0.0), starts, axis=1)
    counts = np.add.reduceat(present.astype(np.int64), starts, axis=1)
    means: Floats = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.asarray(np.exp(means)) if logarithmic else means


def _edges(steps: NDArray[np.int64]) -> Floats:
    """Where each step's column begins, and where the last one ends, float64 [S + 1]; two points of a step share it."""
    centres = steps.astype(np.float64)
    if centres.size < 2:
        return np.array([centres[0] - 0.5, centres[0] + 0.5]) if centres.size else np.array([0.0, 1.0])
    last = max(1.0, centres[-1] - centres[-2])
    return np.append(centres, centres[-1] + last)


def _by_decade(layer: LayerCounts) -> tuple[Floats, Floats] | None:
    """Exponents of 10 [B + 1], and the share of elements between them at each step [B, S]; None: all are zero."""
    centres = np.abs((layer.edges[:-1] + layer.edges[1:]) / 2)
    filled = np.flatnonzero((layer.counts.sum(axis=0) > 0) & (centres > 0))
    if not filled.size:
        return None
    place = np.floor(np.log10(centres[filled]) * _BINS_A_DECADE).astype(np.int64)
    first, bins = int(place.min()), int(place.max() - place.min()) + 1
    shares = np.zeros((bins, layer.counts.shape[0]))
    np.add.at(shares, place - first, layer.counts[:, filled].T)
    elements = layer.counts.sum(axis=1) + layer.zero + layer.nonfinite
    edges = (first + np.arange(bins + 1)) / _BINS_A_DECADE
    return edges, shares / np.maximum(elements, 1)


def _lowest(edges: Floats, shares: Floats) -> float:
    """The exponent below which hardly an element lies: a few in a million reach down to nothing, and say nothing."""
    reached = np.cumsum(shares.sum(axis=1)) / shares.sum()
    return float(edges[np.searchsorted(reached, _UNSEEN)])


def _spread(count: int, most: int) -> list[int]:
    """At most so many of the places 0 … count − 1, evenly, the first and the last among them."""
    if count <= most:
        return [*range(count)]
    return sorted({round(place) for place in np.linspace(0, count - 1, most)})
