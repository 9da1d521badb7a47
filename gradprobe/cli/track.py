"""The mean absolute gradients of a run, fetched window by window and kept in bounded memory."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gradprobe.client import Client, GradientKind
from gradprobe.resources import Experiment

Floats = NDArray[np.float64]

_WINDOW_VALUES = 250_000  # in one answer
_MOST_COLUMNS = 4_096  # kept for drawing
_TENSORS: dict[GradientKind, str] = {"weights": "weight_gradients", "outputs": "output_gradients"}


@dataclass(frozen=True)
class Summary:
    """One layer over a run: the first recorded value, the newest, and the mean of all finite ones."""

    name: str
    first: float
    newest: float
    mean: float


def _nothing() -> Floats:
    return np.empty((0, 0))


@dataclass
class Track:
    """What was recorded of one kind of gradient so far; L layers.

    `columns` [L, C] draws the run: each column is the mean of `stride` recorded steps, and where there would be too
    many columns, pairs become one. A NaN or an infinity in a pair stays in its column.
    """

    kind: GradientKind
    names: tuple[str, ...] = ()
    columns: Floats = field(default_factory=_nothing)
    stride: int = 1
    recorded: int = 0
    next_step: int = 0
    first_step: int = 0
    _pending: Floats = field(default_factory=_nothing)
    _ends: Floats = field(default_factory=_nothing)  # [L, 2]: the first value and the newest
    _sums: Floats = field(default_factory=_nothing)  # [L, 2]: of finite values, and their number

    def fetch(self, client: Client, experiment: Experiment) -> None:
        """Fetch everything recorded since the last time."""
        spec = experiment.spec
        every = int(spec.get("recording", {}).get("every", 1))
        network = spec.get("network", {})
        depth = int(network.get("depth") or len(network.get("measured", (1,))))
        window = max(1, _WINDOW_VALUES // depth) * every
        while True:
            stop = self.next_step + window
            series = client.gradients(
                experiment.id, self.kind, statistics=("mean_abs",), start=self.next_step, stop=stop
            )
            if series.steps.size:
                self.append(series.names, series.steps, series.matrix("mean_abs"))
            if stop >= experiment.progress.iteration:
                return
            self.next_step = stop

    def append(self, names: tuple[str, ...], steps: NDArray[np.int64], values: Floats) -> None:
        """Add newer steps: values [L, S]."""
        if not self.names:
            empty = np.empty((len(names), 0))
            self.names, self.columns, self._pending = names, empty, empty
            self.first_step, self._ends = int(steps[0]), np.repeat(values[:, :1], 2, axis=1)
            self._sums = np.zeros((len(names), 2))
        finite = np.isfinite(values)
        self._sums += np.stack([np.where(finite, values, 0.0).sum(axis=1), finite.sum(axis=1)], axis=1)
        self._ends[:, 1] = values[:, -1]
        self.recorded += steps.size
        self.next_step = int(steps[-1]) + 1
        self._pending = np.hstack([self._pending, values])
        self._condense()

    def drawn(self) -> Floats:
        """The columns to draw [L, C], with the steps that do not fill one yet."""
        if self._pending.shape[1] == 0:
            return self.columns
        return np.hstack([self.columns, self._pending.mean(axis=1, keepdims=True)])

    def summaries(self) -> list[Summary]:
        """A summary of each layer, input side first."""
        with np.errstate(invalid="ignore"):
            means = self._sums[:, :1] / self._sums[:, 1:] if self.names else self._sums
        return [
            Summary(name, float(first), float(newest), float(mean))
            for name, (first, newest), (mean,) in zip(self.names, self._ends, means, strict=True)
        ]

    def _condense(self) -> None:
        while True:
            layers, waiting = self._pending.shape
            full = waiting // self.stride * self.stride
            groups = self._pending[:, :full].reshape(layers, -1, self.stride)
            self.columns = np.hstack([self.columns, groups.mean(axis=2)])
            self._pending = self._pending[:, full:]
            if self.columns.shape[1] <= _MOST_COLUMNS:
                return
            odd = self.columns.shape[1] % 2
            if odd:  # the last column has no partner yet: it waits, as the steps that it was the mean of
                self._pending = np.hstack([np.repeat(self.columns[:, -1:], self.stride, axis=1), self._pending])
            paired = self.columns[:, : self.columns.shape[1] - odd]
            self.columns = paired.reshape(layers, -1, 2).mean(axis=2)
            self.stride *= 2


def tracks_of(experiment: Experiment) -> dict[GradientKind, Track]:
    """An empty track for each kind of gradient that this experiment records."""
    tensors = experiment.spec.get("recording", {}).get("tensors", list(_TENSORS.values()))
    return {kind: Track(kind) for kind, tensor in _TENSORS.items() if tensor in tensors}
