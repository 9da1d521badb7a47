"""Stored statistics as the rules want them: named series, e-folds of δ, windows of the run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from gradprobe.blocks import StatisticsBlock
from gradprobe.spec import CLASSES
from gradprobe.statistics import Tensor, names
from gradprobe.subject import AnySpec, WatchedSpec
from gradprobe.theory import Prediction, predict
from gradprobe.theory.inputs import inputs_of
from gradprobe.theory.propagation import Passage, propagate

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

#: A run is judged in so many windows at most: onset and end are told to one of them.
WINDOWS: Final = 50
#: What is read of each tensor: decoding the rest would only cost time.
USED: Final[dict[Tensor, tuple[str, ...]]] = {
    "weight_gradients": ("mean_abs", "norm", "max_abs", "zero_fraction", "nonfinite_count"),
    "output_gradients": ("norm", "max_abs", "nonfinite_count"),
    "weights": ("norm", "max_abs", "std", "nonfinite_count", "update_ratio"),
    "activations": names("activations"),
    "metrics": names("metrics"),
    "evaluation": names("evaluation"),
}


def positions(tensor: Tensor) -> list[int]:
    """Which of a tensor's statistics the rules read, as `StatisticsBlock.decode` and `Reader.statistics` take them."""
    return [names(tensor).index(name) for name in USED[tensor]]


@dataclass(frozen=True)
class Measurements:
    """One run. L layers, S recorded steps.

    `blocks` hold, of each tensor that was recorded, all its statistics or those of `positions`. A run that has not
    ended is judged by what there is.
    """

    spec: AnySpec
    blocks: Mapping[Tensor, StatisticsBlock]

    @cached_property
    def prediction(self) -> Prediction | None:
        """What theory says of the spec; None of a network that it does not know."""
        return None if self.unknown else predict(self.spec)

    @property
    def unknown(self) -> str | None:
        """Why theory can't speak of this network, in a sentence; None where it can."""
        return self.spec.network.unknown

    @property
    def imported(self) -> bool:
        """Whether the run was read from another tool's files."""
        return isinstance(self.spec, WatchedSpec) and self.spec.network.imported

    @property
    def guess(self) -> float | None:
        """The loss of a guess among all classes, in nats; None where the loss is of another kind, or not known."""
        if not isinstance(self.spec, WatchedSpec):
            return math.log(CLASSES)
        return math.log(self.spec.loss.classes) if self.spec.loss.classes and self.spec.loss.recorded else None

    @cached_property
    def passage(self) -> Passage:
        """The spec's second moments at its start, layer by layer."""
        return propagate(self.spec.network, inputs_of(self.spec.dataset))

    @property
    def layer_names(self) -> list[str]:
        """`layer1` … `layerN`."""
        return self.spec.network.layer_names

    def steps(self, tensor: Tensor = "metrics") -> Integers:
        """The recorded steps, int64 [S]; none where the tensor was not recorded."""
        block = self.blocks.get(tensor)
        return block.steps if block is not None else np.empty(0, np.int64)

    def series(self, tensor: Tensor, statistic: str) -> Floats | None:
        """One statistic, float64 [L, S]; None where it was not recorded."""
        block = self.blocks.get(tensor)
        if block is None or not len(block.steps):
            return None
        every = names(tensor)
        known: Sequence[str] = every if len(block.values) == len(every) else USED[tensor]
        return block.values[known.index(statistic)].astype(np.float64) if statistic in known else None

    def metric(self, statistic: str) -> Floats:
        """One of the run's own series, [S]; empty where there is none."""
        found = self.series("metrics", statistic)
        return found[0] if found is not None else np.empty(0)

    @cached_property
    def loss(self) -> Floats:
        """The training loss, [S]; empty where the loop did not tell it."""
        if isinstance(self.spec, WatchedSpec) and not self.spec.loss.recorded:
            return np.empty(0)
        return self.metric("loss")

    @cached_property
    def log_delta(self) -> Floats | None:
        """ln‖δ_l‖² − ln‖δ_N‖², N the output layer, [L, S]: −∞ where δ is zero, NaN where nothing is finite."""
        norms = self.series("output_gradients", "norm")
        if norms is None:
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms = 2.0 * np.log(norms)
            found: Floats = logarithms - logarithms[-1]
        return found

    @cached_property
    def weight_scale(self) -> Floats | None:
        """σ_w² of each layer as it is, ‖W‖² ÷ outputs, [L, S]; at the start it is fan_in · Var W."""
        norms = self.series("weights", "norm")
        if norms is None:
            return None
        outputs = np.array([layer.weight_shape[0] for layer in self.spec.network.layers], dtype=np.float64)
        return norms**2 / outputs[:, None]

    @cached_property
    def entry_second(self) -> Floats | None:
        """E[h²] of what enters each layer, [L, S]: the data's own for the first."""
        mean, std = self.series("activations", "mean"), self.series("activations", "std")
        if mean is None or std is None:
            return None
        second = mean**2 + std**2
        pixels = np.full((1, second.shape[1]), inputs_of(self.spec.dataset).second)
        return np.vstack([pixels, second[:-1]])


def windows(count: int, most: int = WINDOWS) -> Integers:
    """Where each of at most `most` windows of `count` recorded steps begins, and the end: int64 [K + 1]."""
    number = max(1, min(most, count))
    return np.linspace(0, count, number + 1).astype(np.int64)


def window_means(values: Floats, edges: Integers) -> Floats:
    """Means of [..., S] over windows, [..., K]; NaN is left out where it can be, −∞ stays."""
    finite = ~np.isnan(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), edges[:-1], axis=-1)
    counts = np.add.reduceat(finite, edges[:-1], axis=-1, dtype=np.int64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(counts > 0, sums / counts, np.nan)


@dataclass(frozen=True, slots=True)
class Spell:
    """Windows first ≤ k ≤ last during which something held; `ongoing` where that is the run's end."""

    first: int
    last: int
    ongoing: bool


def spells(enter: Flags, leave: Flags, least: int = 2) -> list[Spell]:
    """Hysteresis: a spell begins where `enter` holds and ends where `leave` does; [K] each.

    Those shorter than `least` windows are left out, unless the run is as short as that.
    """
    found, began = [], None
    for position, (enters, leaves) in enumerate(zip(enter.tolist(), leave.tolist(), strict=True)):
        if began is None and enters:
            began = position
        elif began is not None and leaves:
            found.append(Spell(began, position - 1, ongoing=False))
            began = None
    if began is not None:
        found.append(Spell(began, len(enter) - 1, ongoing=True))
    return [spell for spell in found if spell.last - spell.first + 1 >= min(least, len(enter))]
