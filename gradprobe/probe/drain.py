"""Empty the rings: statistics and histograms of all captured steps, in bulk, to the host in one go."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.blocks import CountsBlock, StatisticsBlock, Steps
from gradprobe.probe import reduce, saturation
from gradprobe.probe.ring import Ring
from gradprobe.probe.tap import Tap
from gradprobe.spec import TensorName
from gradprobe.statistics import HISTOGRAM_TENSORS


@dataclass(slots=True)
class Rows:
    """The steps that the rings' rows hold, and which of them want statistics and which a histogram."""

    steps: list[int] = field(default_factory=list)
    statistics: list[bool] = field(default_factory=list)
    counts: list[bool] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    def begin(self, step: int, statistics: bool, counts: bool) -> None:
        """The next row is this step's."""
        self.steps.append(step)
        self.statistics.append(statistics)
        self.counts.append(counts)

    def chosen(self, flags: list[bool], device: torch.device) -> tuple[Steps, Tensor | slice]:
        """The steps of the flagged rows, and what picks those rows."""
        positions = [row for row, flag in enumerate(flags) if flag]
        steps = np.array([self.steps[row] for row in positions], dtype=np.int64)
        if len(positions) == len(self.steps):
            return steps, slice(0, len(positions))
        return steps, torch.tensor(positions, dtype=torch.int64, device=device)


@dataclass(slots=True)
class Rings:
    """One ring a kind of tensor; None where the kind is not recorded."""

    rows: int
    gradients: Ring
    weights: Ring | None
    updated: Ring | None
    deltas: Ring | None
    activations: Ring | None
    inputs: Ring | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What was captured between two drains. `gradient_norm` float32 [S] belongs to the statistics' `steps` [S]."""

    steps: Steps
    statistics: dict[TensorName, StatisticsBlock]
    counts: dict[TensorName, CountsBlock]
    gradient_norm: npt.NDArray[np.float32]


def drain(rings: Rings | None, rows: Rows, taps: list[Tap], tensors: tuple[TensorName, ...], batch: int) -> Measured:
    """Reduce the rings' first `len(rows)` rows.

    δ of the batch's mean loss is 1/batch of the per-sample δ; that factor is undone here.
    """
    if rings is None or not len(rows):
        return Measured(np.empty(0, np.int64), {}, {}, np.empty(0, np.float32))
    steps, picked = rows.chosen(rows.statistics, rings.gradients.buffer.device)
    layers = range(len(taps))
    reduced: dict[TensorName, list[Tensor]] = {}
    if len(steps):
        for tensor in tensors:
            reduced[tensor] = [_reduce(rings, tensor, layer, taps[layer], picked, batch) for layer in layers]
    statistics = {
        tensor: StatisticsBlock(steps, _to_host(torch.stack(columns, dim=1))) for tensor, columns in reduced.items()
    }
    gradient_norm = _to_host(reduce.norm(rings.gradients.buffer[picked])) if len(steps) else np.empty(0, np.float32)
    return Measured(steps, statistics, _count(rings, rows, tensors, len(taps), batch), gradient_norm)


def _reduce(rings: Rings, tensor: TensorName, layer: int, tap: Tap, rows: Tensor | slice, batch: int) -> Tensor:
    if tensor == "activations":
        return _reduce_activations(rings, layer, tap, rows)
    if tensor == "weights":
        before, after = _ring(rings.weights).segment(layer, rows), _ring(rings.updated).segment(layer, rows)
        return torch.cat([reduce.distribution(before), reduce.update_ratio(before, after)[None]])
    return reduce.distribution(_gradients(rings, tensor, layer, rows, batch))


def _reduce_activations(rings: Rings, layer: int, tap: Tap, rows: Tensor | slice) -> Tensor:
    ring = _ring(rings.activations)
    output = ring.segment(layer, rows)
    entry = output if rings.inputs is None else rings.inputs.segment(layer, rows)
    saturated = saturation.rule(tap.activation_name, tap.negative_slope)(output, entry)
    units = output.view(len(output), ring.shapes[layer][0], -1)
    return torch.cat(
        [
            reduce.mean_and_std(output),
            reduce.share(saturated, output)[None],
            reduce.dead_fraction(units)[None],
        ]
    )


def _count(
    rings: Rings, rows: Rows, tensors: tuple[TensorName, ...], layers: int, batch: int
) -> dict[TensorName, CountsBlock]:
    steps, picked = rows.chosen(rows.counts, rings.gradients.buffer.device)
    if not len(steps):
        return {}
    counts: dict[TensorName, CountsBlock] = {}
    for tensor in HISTOGRAM_TENSORS:
        if tensor in tensors:
            per_layer = [reduce.histogram(_gradients(rings, tensor, layer, picked, batch)) for layer in range(layers)]
            counts[tensor] = CountsBlock.from_dense(steps, torch.stack(per_layer, dim=1).cpu().numpy())
    return counts


def _gradients(rings: Rings, tensor: TensorName, layer: int, rows: Tensor | slice, batch: int) -> Tensor:
    if tensor == "weight_gradients":
        return rings.gradients.segment(layer, rows)
    return _ring(rings.deltas).segment(layer, rows) * batch


def _ring(ring: Ring | None) -> Ring:
    assert ring is not None, "a recorded tensor has a ring"  # noqa: S101 - a fact of `Probe._allocate`
    return ring


def _to_host(values: Tensor) -> npt.NDArray[np.float32]:
    return values.to(torch.float32).cpu().numpy()
