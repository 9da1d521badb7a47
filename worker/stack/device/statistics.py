"""What is recorded of a step, of all members and layers at once, and nothing of it looked at on the host.

The definitions are `gradprobe.statistics`, the reductions `gradprobe.probe.reduce`. Layers of one size are reduced
together: a small network's statistics are mostly the cost of starting kernels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from gradprobe.histogram import BINS
from gradprobe.probe import Tap, reduce, saturation
from gradprobe.spec import TensorName
from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS
from gradprobe.statistics import Tensor as StatisticsName
from worker.stack.layout import Layout

#: What is recorded of a step beside the layers' statistics, one figure a member.
METRICS: Final = ("loss", "accuracy", "gradient_norm")


@dataclass(slots=True)
class Computed:
    """What a step computed before the optimizer: losses [M], logits [M, B, 10], labels [M, B]; a layer at a time δ/B, h
    and what the activation got, [M, B, U]."""

    losses: Tensor
    logits: Tensor
    labels: Tensor
    deltas: Sequence[Tensor]
    outputs: Sequence[Tensor]
    inputs: Sequence[Tensor]


class Meter:
    """Measures the steps of M members, whose parameters and gradients are rows [M, P].

    Attributes:
        tensors: what is recorded of each layer, in the order of `columns`.
        counted: those that have histograms.
        columns: figures of a member and step: each tensor's statistics by layer, then `METRICS`.
    """

    def __init__(
        self, layout: Layout, taps: Sequence[Tap], wanted: Sequence[TensorName], clips: bool, batch: int
    ) -> None:
        self._layout, self._taps, self._batch = layout, taps, batch
        clipped: list[StatisticsName] = ["clipped_weight_gradients"] if clips else []
        self.tensors: list[StatisticsName] = [*wanted, *clipped]
        self.counted = [tensor for tensor in HISTOGRAM_TENSORS if tensor in wanted]
        self.columns = len(taps) * sum(len(STATISTICS[tensor]) for tensor in self.tensors) + len(METRICS)

    def measure(self, computed: Computed, parameters: Tensor, gradients: Tensor) -> dict[str, Tensor]:
        """Before clipping and the optimizer: of each tensor its statistics [K, L, M], and `METRICS` [3, 1, M]."""
        found: dict[str, Tensor] = {}
        for tensor in self.tensors:
            if tensor == "activations":
                found[tensor] = self._activations(computed)
            elif tensor == "weights":
                found[tensor] = _by_size(_distribution, self._weights(parameters))
            elif tensor != "clipped_weight_gradients":
                found[tensor] = _by_size(_distribution, self._elements(tensor, computed, gradients))
        accuracy = (computed.logits.argmax(2) == computed.labels).double().mean(1)
        norm = reduce.norm(gradients, looking=False)
        found["metrics"] = torch.stack([computed.losses.double(), accuracy, norm])[:, None]
        return found

    def measure_clipped(self, found: dict[str, Tensor], gradients: Tensor) -> None:
        """What clipping left, where there is any."""
        if "clipped_weight_gradients" in self.tensors:
            found["clipped_weight_gradients"] = _by_size(_distribution, self._weights(gradients))

    def row(self, found: dict[str, Tensor], before: Tensor, after: Tensor) -> Tensor:
        """All of it as float32 [columns, M], when the optimizer has made of the parameters `before` those `after`."""
        if "weights" in found:
            pairs = zip(self._weights(before), self._weights(after), strict=True)
            ratios = _by_size(_update_ratio, [torch.cat(pair, dim=1) for pair in pairs])
            found["weights"] = torch.cat([found["weights"], ratios])
        return torch.cat([found[tensor].flatten(0, 1) for tensor in [*self.tensors, "metrics"]]).float()

    def count(self, computed: Computed, gradients: Tensor, into: Tensor, row: Tensor) -> None:
        """Count each layer's elements on the fixed grid: into [T, M, R, L, 4096] int32, at the row [1] of R."""
        into.index_fill_(2, row, 0)
        counts, layers = into.view(-1), len(self._taps)
        _, members, rows, *_ = into.shape
        member = torch.arange(members, device=into.device)[:, None]
        one = torch.ones(1, dtype=torch.int32, device=into.device)
        for place, tensor in enumerate(self.counted):
            first = ((place * members + member) * rows + row) * layers  # each member's first layer's histogram
            elements = self._elements(tensor, computed, gradients)
            for alike in _of_one_size(elements):
                histograms = torch.cat([first + layer for layer in alike])
                bins = reduce.bins(torch.cat([elements[layer] for layer in alike]))
                chosen = (histograms * BINS + bins).flatten()
                # Whole numbers: the order in which they are added is of no account.
                counts.scatter_add_(0, chosen, one.expand_as(chosen))

    def _weights(self, rows: Tensor) -> list[Tensor]:
        parts = self._layout.parts[: 2 * self._layout.layers : 2]
        return [rows[:, part.start : part.end] for part in parts]

    def _elements(self, tensor: str, computed: Computed, gradients: Tensor) -> list[Tensor]:
        if tensor == "weight_gradients":
            return self._weights(gradients)
        return [delta.flatten(1) * float(self._batch) for delta in computed.deltas]

    def _activations(self, computed: Computed) -> Tensor:
        rules = [(tap.activation_name, tap.negative_slope) for tap in self._taps]
        alike = [slice(0, len(rules) - 1), slice(len(rules) - 1, len(rules))]  # hidden layers, and the output layer
        found = []
        for layers in alike:
            if outputs := computed.outputs[layers]:
                shape, rule = outputs[0].shape, saturation.rule(*rules[layers.start])
                entries = torch.cat(list(computed.inputs[layers]))
                found.append(_of_activations(torch.cat(list(outputs)), entries, rule).unflatten(1, (-1, shape[0])))
        return torch.cat(found, dim=1)


def _of_activations(outputs: Tensor, inputs: Tensor, rule: saturation.Rule) -> Tensor:
    """`STATISTICS["activations"]` of each row of [S, B, U]: [4, S]."""
    elements = outputs.flatten(1)
    saturated = reduce.share(rule(elements, inputs.flatten(1)), elements)
    dead = reduce.dead_fraction(outputs)
    return torch.cat([reduce.mean_and_std(elements, looking=False), saturated[None], dead[None]])


def _distribution(elements: Tensor) -> Tensor:
    return reduce.distribution(elements, looking=False)


def _update_ratio(pairs: Tensor) -> Tensor:
    before, after = pairs.unflatten(1, (2, -1)).unbind(1)
    return reduce.update_ratio(before, after, looking=False)[None]


def _of_one_size(layers: Sequence[Tensor]) -> list[list[int]]:
    """The places of layers [M, N] that have as many elements, those of each size together."""
    sizes = [layer.shape[1] for layer in layers]
    return [[place for place, size in enumerate(sizes) if size == one] for one in dict.fromkeys(sizes)]


def _by_size(reduction: Callable[[Tensor], Tensor], layers: Sequence[Tensor]) -> Tensor:
    """A reduction [S, N] → [K, S] of each layer's elements [M, N], those of one size together: [K, L, M]."""
    found: dict[int, Tensor] = {}
    for places in _of_one_size(layers):
        together = layers[places[0]] if len(places) == 1 else torch.cat([layers[place] for place in places])
        reduced = reduction(together).unflatten(1, (len(places), -1))
        found |= {place: reduced[:, index] for index, place in enumerate(places)}
    return torch.stack([found[place] for place in range(len(layers))], dim=1)
