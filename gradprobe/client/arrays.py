"""Series, histograms and metrics as NumPy arrays. S is the number of recorded steps, L of layers.

In every float array a value that JSON can't hold is itself again: ±inf where the document's `nonfinite` says so, NaN
where it says `nan` or where nothing was recorded.

Where fewer points were asked for (`max_points`), S is the number of points, and `reduction` says what each stands for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from gradprobe import display
from gradprobe.client.frames import Column, Columns, Part, Tabular, joined, long, words
from gradprobe.client.optional import require
from gradprobe.client.requests import AnyGradientKind
from gradprobe.resources import (
    HistogramDocument,
    MetricsDocument,
    Nonfinite,
    Quantiles,
    Reduction,
    SeriesDocument,
)
from gradprobe.state import Status
from gradprobe.statistics import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradprobe.resources import DiagnosisDocument

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Named = TypeVar("Named", "Layer", "LayerCounts")

_GRADIENTS: Final[dict[str, Tensor]] = {
    "weights": "weight_gradients",
    "outputs": "output_gradients",
    "clipped_weights": "clipped_weight_gradients",
}


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer's statistics, each float64 [S]."""

    name: str
    shape: tuple[int, ...]
    size: int
    statistics: Mapping[str, Floats]

    def __getitem__(self, statistic: str) -> Floats:
        if statistic not in self.statistics:
            raise KeyError(f"no statistic {statistic!r}; there are {', '.join(self.statistics) or 'none'}")
        return self.statistics[statistic]


@dataclass(frozen=True, eq=False)
class QuantileSeries:
    """Quantiles of the elements: `quantiles["layer1"][0.5]` is float64 [S]; they have steps of their own."""

    steps: Integers
    layers: Mapping[str, Mapping[float, Floats]]
    reduction: Reduction

    def __getitem__(self, layer: str) -> Mapping[float, Floats]:
        return self.layers[layer]

    @classmethod
    def of_document(cls, document: Quantiles, nonfinite: Iterable[Nonfinite]) -> Self:
        """The arrays of a document's part as it came over HTTP."""
        steps = np.array(document.steps, dtype=np.int64)
        marks = _by_column(nonfinite)
        layers = {
            layer.name: {
                float(share): _column(values, steps, marks.get((layer.name, f"quantile_{share}"), ()))
                for share, values in layer.values.items()
            }
            for layer in document.layers
        }
        return cls(steps, layers, document.reduction)


@dataclass(frozen=True, eq=False)
class Series(Tabular):
    """Statistics of one tensor: `series["layer1"]["mean_abs"]` is float64 [S], `series.steps` int64 [S].

    As a table: `step`, `layer`, `tensor`, `statistic`, `value`, one value a row; quantiles as `quantile_0.5` and so on.
    """

    experiment_id: str
    status: Status
    of: str
    steps: Integers
    layers: tuple[Layer, ...]
    reduction: Reduction
    quantiles: QuantileSeries | None = None
    tensor: Tensor = "weight_gradients"

    def __getitem__(self, layer: str) -> Layer:
        return _named(self.layers, layer)

    @property
    def names(self) -> tuple[str, ...]:
        """The layers' names, input side first."""
        return tuple(layer.name for layer in self.layers)

    def matrix(self, statistic: str) -> Floats:
        """One statistic of all layers, float64 [L, S]."""
        columns = [layer[statistic] for layer in self.layers]
        return np.array(columns, dtype=np.float64).reshape(len(columns), self.steps.size)

    def columns(self) -> Columns:
        """As `Tabular` says."""
        parts = [
            Part(layer.name, statistic, self.steps, values)
            for layer in self.layers
            for statistic, values in layer.statistics.items()
        ]
        if self.quantiles:
            parts += [
                Part(name, f"quantile_{share}", self.quantiles.steps, values)
                for name, layer in self.quantiles.layers.items()
                for share, values in layer.items()
            ]
        tensor = words([self.tensor], [sum(part.steps.size for part in parts)])
        found = long(parts)
        return {"step": found["step"], "layer": found["layer"], "tensor": tensor} | found

    def plot_gradient_flow(self, statistic: str = "mean_abs", diagnosis: "DiagnosisDocument | None" = None) -> "Figure":
        """Layers over time in logarithmic colour, and beside it each layer's mean over the run and its first step.

        Args:
            statistic: one that this series has.
            diagnosis: puts its verdict above, and its findings' first steps on the time axis.

        Returns:
            A matplotlib figure that belongs to no window; `savefig` writes it, a notebook shows it.

        Raises:
            MissingLibrary: `pip install "gradprobe[plot]"` brings matplotlib.
            KeyError: this statistic was not asked for.
        """
        figure: Figure = require("gradprobe.client.plots", extra="plot").gradient_flow(self, statistic, diagnosis)
        return figure

    def _repr_html_(self) -> str:
        return display.series(self)

    @classmethod
    def of_document(cls, document: SeriesDocument, tensor: Tensor | None = None) -> Self:
        """The arrays of a document as it came over HTTP; `tensor`: whose, by default the gradients that it is `of`."""
        steps = np.array(document.steps, dtype=np.int64)
        marks = _by_column(document.nonfinite)
        layers = tuple(
            Layer(
                layer.name,
                tuple(layer.shape),
                layer.size,
                {
                    statistic: _column(values, steps, marks.get((layer.name, statistic), ()))
                    for statistic, values in layer.statistics.items()
                },
            )
            for layer in document.layers
        )
        told = document.quantiles
        quantiles = None if told is None else QuantileSeries.of_document(told, document.nonfinite)
        return cls(
            document.experiment_id,
            document.status,
            document.of,
            steps,
            layers,
            document.reduction,
            quantiles,
            tensor or tensor_of(document.of),
        )


@dataclass(frozen=True, eq=False)
class Metrics(Tabular):
    """The run's own series: `metrics["loss"]` is float64 [S]; those of the test set have steps of their own.

    As a table: `step`, `statistic`, `value`, those of the test set included.
    """

    experiment_id: str
    status: Status
    steps: Integers
    values: Mapping[str, Floats]
    evaluation_steps: Integers
    test_loss: Floats
    test_accuracy: Floats
    reduction: Reduction

    def __getitem__(self, metric: str) -> Floats:
        return self.values[metric]

    def columns(self) -> Columns:
        """As `Tabular` says."""
        parts = [Part("", name, self.steps, values) for name, values in self.values.items()]
        parts += [
            Part("", "test_loss", self.evaluation_steps, self.test_loss),
            Part("", "test_accuracy", self.evaluation_steps, self.test_accuracy),
        ]
        return {name: column for name, column in long(parts).items() if name != "layer"}

    def _repr_html_(self) -> str:
        return display.metrics(self)

    @classmethod
    def of_document(cls, document: MetricsDocument) -> Self:
        """The arrays of a document as it came over HTTP."""
        steps = np.array(document.steps, dtype=np.int64)
        evaluated = np.array(document.evaluation.steps, dtype=np.int64)
        marks: dict[str, list[Nonfinite]] = {}
        for mark in document.nonfinite:
            marks.setdefault(mark.statistic, []).append(mark)
        return cls(
            document.experiment_id,
            document.status,
            steps,
            {name: _column(values, steps, marks.get(name, ())) for name, values in document.metrics.items()},
            evaluated,
            _column(document.evaluation.test_loss, evaluated, marks.get("test_loss", ())),
            _column(document.evaluation.test_accuracy, evaluated, marks.get("test_accuracy", ())),
            document.reduction,
        )


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """One layer's histograms: `edges` float64 [bins + 1]; `counts` int64 [S, bins]; the rest int64 [S]."""

    name: str
    shape: tuple[int, ...]
    size: int
    edges: Floats
    counts: Integers
    zero: Integers
    nonfinite: Integers


@dataclass(frozen=True, eq=False)
class Histograms(Tabular):
    """Histograms of one kind of gradient: `histograms["layer1"].counts` is int64 [S, bins].

    `recorded` int64 [S] is the number of recorded steps that each point is the sum of.

    As a table: `step`, `layer`, `tensor`, `low`, `high`, `count`, a row for each bin that holds something. Elements
    that are exactly zero have `low` and `high` 0, those that are not finite NaN, so that the counts of a step sum to
    the layer's size.
    """

    experiment_id: str
    status: Status
    of: str
    steps: Integers
    layers: tuple[LayerCounts, ...]
    reduction: Reduction
    recorded: Integers

    def __getitem__(self, layer: str) -> LayerCounts:
        return _named(self.layers, layer)

    def columns(self) -> Columns:
        """As `Tabular` says."""
        found = [_bins(layer, self.steps) for layer in self.layers]
        lengths = [part["step"].size for part in found]
        kinds = {"step": np.int64, "low": np.float64, "high": np.float64, "count": np.int64}
        numbers: dict[str, Column] = {
            name: joined([part[name] for part in found], kind) for name, kind in kinds.items()
        }
        layers = words([layer.name for layer in self.layers], lengths)
        tensor = words([tensor_of(self.of)], [sum(lengths)])
        return {"step": numbers["step"], "layer": layers, "tensor": tensor} | numbers

    def plot_histograms(self) -> "Figure":
        """A panel a layer: how the elements' magnitudes are distributed, step by step; at most 12 layers.

        Raises:
            MissingLibrary: `pip install "gradprobe[plot]"` brings matplotlib.
        """
        figure: Figure = require("gradprobe.client.plots", extra="plot").distributions(self)
        return figure

    def _repr_html_(self) -> str:
        return display.histograms(self)

    @classmethod
    def of_document(cls, document: HistogramDocument) -> Self:
        """The arrays of a document as it came over HTTP."""
        layers = tuple(
            LayerCounts(
                layer.name,
                tuple(layer.shape),
                layer.size,
                np.array(layer.edges, dtype=np.float64),
                np.array(layer.counts, dtype=np.int64).reshape(len(document.steps), max(len(layer.edges) - 1, 0)),
                np.array(layer.zero, dtype=np.int64),
                np.array(layer.nonfinite, dtype=np.int64),
            )
            for layer in document.layers
        )
        steps = np.array(document.steps, dtype=np.int64)
        recorded = np.array(document.recorded, dtype=np.int64)
        return cls(document.experiment_id, document.status, document.of, steps, layers, document.reduction, recorded)


def tensor_of(of: AnyGradientKind | str) -> Tensor:
    """The tensor that `of` names where gradients are asked for; the other tensors name themselves."""
    return _GRADIENTS.get(of) or cast(Tensor, of)


def _bins(layer: LayerCounts, steps: Integers) -> dict[str, NDArray[np.generic]]:
    """The rows of one layer, step by step: bins that hold something, then zeros, then what is not finite."""
    counts = np.hstack([layer.counts, layer.zero[:, None], layer.nonfinite[:, None]])
    step, place = np.nonzero(counts)
    low, high = (np.concatenate([side, [0.0, np.nan]]) for side in (layer.edges[:-1], layer.edges[1:]))
    return {"step": steps[step], "low": low[place], "high": high[place], "count": counts[step, place]}


def _by_column(nonfinite: Iterable[Nonfinite]) -> dict[tuple[str, str], list[Nonfinite]]:
    marks: dict[tuple[str, str], list[Nonfinite]] = {}
    for mark in nonfinite:
        marks.setdefault((mark.layer, mark.statistic), []).append(mark)
    return marks


def _named(layers: tuple[Named, ...], name: str) -> Named:
    for layer in layers:
        if layer.name == name:
            return layer
    raise KeyError(f"no layer {name!r}; there are {', '.join(layer.name for layer in layers) or 'none'}")


def _column(values: list[float | None], steps: Integers, marks: Iterable[Nonfinite]) -> Floats:
    column = np.array(values, dtype=np.float64)  # None becomes NaN
    for mark in marks:
        # A mark of a reduced series can be of a few steps in a bucket whose other values are numbers.
        first, last = np.searchsorted(steps, [mark.step, mark.step + 1])
        hidden = np.isnan(column[first:last])
        column[first:last][hidden] = float(mark.value)
    return column
