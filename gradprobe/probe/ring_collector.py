"""The collector for any device: steps are copied into rings there, reduced in bulk, and cross to the host once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.blocks import CountsBlock, StatisticsBlock, Steps
from gradprobe.errors import UnsupportedModule
from gradprobe.probe import reduce, saturation
from gradprobe.probe.collector import NOTHING, Captured, Measured, Moment
from gradprobe.probe.ring import Ring, rows_within
from gradprobe.probe.tap import Recording, Tap
from gradprobe.statistics import HISTOGRAM_TENSORS
from gradprobe.statistics import Tensor as TensorName

Rows = Tensor | slice


@dataclass(slots=True)
class Rings:
    """One ring a kind of tensor; None where the kind is not recorded."""

    rows: int
    gradients: Ring
    deltas: Ring | None
    outputs: Ring | None
    inputs: Ring | None
    weights: Ring | None
    updated: Ring | None


def _shapes(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors]


class RingCollector:
    """Nothing crosses to the host between two drains, so that a GPU is never waited for.

    The rings are made for the shapes of the first step's tensors.
    """

    def __init__(
        self, taps: Sequence[Tap], recording: Recording, captured: Captured, weights: Sequence[Tensor]
    ) -> None:
        self._taps = list(taps)
        self._recording = recording
        self._moments: list[Moment] = []
        self._scales: list[float] = []
        self._gradient_scales: list[float] = []
        self._shapes = _shapes(captured.deltas), _shapes(captured.outputs)
        self._clipped: Ring | None = None
        self._rings = self._allocate(captured, weights)
        # Where replayed steps write: they are captured once, and every step has another row.
        self._row = torch.zeros(1, dtype=torch.int64, device=weights[0].device)

    @property
    def full(self) -> bool:
        """Whether every row is taken."""
        return len(self._moments) >= self._rings.rows

    def fit(self, captured: Captured) -> None:
        """Rings have the first step's shapes; raises UnsupportedModule for any other."""
        if self._shapes != (_shapes(captured.deltas), _shapes(captured.outputs)):
            raise UnsupportedModule("A batch of another size than the first one is not measured on this device.")

    def withdraw(self) -> None:
        """Take the last step back: more of its gradient has come, and it will be collected anew."""
        self._moments.pop()
        self._scales.pop()
        self._gradient_scales.pop()

    def distrust(self) -> None:
        """Weights are copied at every step, whoever changed them."""

    @torch.no_grad()
    def collect(self, moment: Moment, captured: Captured, weights: Sequence[Tensor]) -> None:
        """Copy one step's tensors, one fused call a kind."""
        for ring, tensors in self._taken(captured, weights):
            ring.write(len(self._moments), tensors)
        self.note(moment, captured.delta_scale, captured.gradient_scale)

    def note(self, moment: Moment, delta_scale: float, gradient_scale: float = 1.0) -> None:
        """The row behind those in use has a step's tensors."""
        self._scales.append(delta_scale)
        self._gradient_scales.append(gradient_scale)
        self._moments.append(moment)

    def _taken(self, captured: Captured, weights: Sequence[Tensor]) -> list[tuple[Ring, Sequence[Tensor]]]:
        rings = self._rings
        pairs = [
            (rings.gradients, captured.gradients),
            (rings.deltas, captured.deltas),
            (rings.outputs, captured.outputs),
            (rings.inputs, captured.inputs),
            (rings.weights, weights),
        ]
        return [(ring, tensors) for ring, tensors in pairs if ring is not None]

    def point(self, clipped: Sequence[Tensor] = ()) -> None:
        """Before a replayed step: say on the device which row it writes; `clipped` are as in `record_clipped`."""
        self._row.fill_(len(self._moments))
        if clipped:
            self._make_clipped(clipped)

    @torch.no_grad()
    def record(self, captured: Captured, weights: Sequence[Tensor]) -> None:
        """`collect` as part of a step that is captured: on the device alone, at the row that `point` said."""
        for ring, tensors in self._taken(captured, weights):
            ring.write_at(self._row, tensors)

    @torch.no_grad()
    def record_clipped(self, gradients: Sequence[Tensor]) -> None:
        """`collect_clipped` the same way."""
        self._make_clipped(gradients).write_at(self._row, gradients)

    @torch.no_grad()
    def record_update(self, weights: Sequence[Tensor]) -> None:
        """`collect_update` the same way."""
        if self._rings.updated is not None:
            self._rings.updated.write_at(self._row, weights)

    def _make_clipped(self, gradients: Sequence[Tensor]) -> Ring:
        if self._clipped is None:
            self._clipped = Ring(_shapes(gradients), self._rings.rows, gradients[0].device)
        return self._clipped

    @torch.no_grad()
    def collect_clipped(self, gradients: Sequence[Tensor]) -> None:
        """Copy the gradients that clipping left."""
        self._make_clipped(gradients).write(len(self._moments) - 1, gradients)

    @torch.no_grad()
    def collect_update(self, weights: Sequence[Tensor]) -> None:
        """Copy the weights after the optimizer's step."""
        if self._rings.updated is not None:
            self._rings.updated.write(len(self._moments) - 1, weights)

    def drain(self) -> Measured:
        """Reduce the rows in use and free them."""
        if not self._moments:
            return NOTHING
        statistics: dict[TensorName, StatisticsBlock] = {}
        gradient_norm = NOTHING.gradient_norm
        steps, rows = self._chosen([moment.statistics for moment in self._moments])
        if len(steps):
            norm = reduce.norm(self._rings.gradients.buffer[rows])
            gradient_norm = _to_host(norm * self._scaling(self._gradient_scales, rows, norm))
            for tensor in self._tensors():
                columns = [self._reduce(tensor, layer, rows) for layer in range(len(self._taps))]
                statistics[tensor] = StatisticsBlock(steps, _to_host(torch.stack(columns, dim=1)))
        measured = Measured(steps, statistics, self._count(), gradient_norm)
        self._moments, self._scales, self._gradient_scales = [], [], []
        return measured

    def _tensors(self) -> list[TensorName]:
        clipped: list[TensorName] = ["clipped_weight_gradients"] if self._clipped is not None else []
        return [*self._recording.tensors, *clipped]

    def _chosen(self, flags: list[bool]) -> tuple[Steps, Rows]:
        positions = [row for row, flag in enumerate(flags) if flag]
        steps = np.array([self._moments[row].step for row in positions], dtype=np.int64)
        if len(positions) == len(flags):
            return steps, slice(0, len(positions))
        return steps, torch.tensor(positions, dtype=torch.int64, device=self._rings.gradients.buffer.device)

    def _reduce(self, tensor: TensorName, layer: int, rows: Rows) -> Tensor:
        rings = self._rings
        if tensor == "activations":
            return self._reduce_activations(layer, rows)
        if tensor == "weights":
            before, after = _made(rings.weights).segment(layer, rows), _made(rings.updated).segment(layer, rows)
            return torch.cat([reduce.distribution(before), reduce.update_ratio(before, after)[None]])
        if tensor == "clipped_weight_gradients":
            return reduce.distribution(_made(self._clipped).segment(layer, rows))
        return reduce.distribution(self._elements(tensor, layer, rows))

    def _reduce_activations(self, layer: int, rows: Rows) -> Tensor:
        ring, tap = _made(self._rings.outputs), self._taps[layer]
        output = ring.segment(layer, rows)
        entry = output if self._rings.inputs is None else self._rings.inputs.segment(layer, rows)
        saturated = saturation.rule(tap.activation_name, tap.negative_slope)(output, entry)
        batch, units, *_ = ring.shapes[layer]
        per_unit = output.view(len(output), batch, units, -1).transpose(2, 3).reshape(len(output), -1, units)
        return torch.cat(
            [
                reduce.mean_and_std(output),
                reduce.share(saturated, output)[None],
                reduce.dead_fraction(per_unit)[None],
            ]
        )

    def _count(self) -> dict[TensorName, CountsBlock]:
        steps, rows = self._chosen([moment.counts for moment in self._moments])
        counts: dict[TensorName, CountsBlock] = {}
        if not len(steps):
            return counts
        for tensor in HISTOGRAM_TENSORS:
            if tensor in self._recording.tensors:
                layers = [reduce.histogram(self._elements(tensor, n, rows)) for n in range(len(self._taps))]
                counts[tensor] = CountsBlock.from_dense(steps, torch.stack(layers, dim=1).cpu().numpy())
        return counts

    def _elements(self, tensor: TensorName, layer: int, rows: Rows) -> Tensor:
        if tensor == "weight_gradients":
            elements = self._rings.gradients.segment(layer, rows)
            if all(scale == 1.0 for scale in self._gradient_scales):
                return elements
            return elements * self._scaling(self._gradient_scales, rows, elements)[:, None]
        elements = _made(self._rings.deltas).segment(layer, rows)
        return elements * self._scaling(self._scales, rows, elements)[:, None]

    @staticmethod
    def _scaling(scales: Sequence[float], rows: Rows, like: Tensor) -> Tensor:
        return torch.tensor(scales, dtype=torch.float32, device=like.device)[rows]

    def _allocate(self, captured: Captured, weights: Sequence[Tensor]) -> Rings:
        wanted = self._recording.tensors
        of_weights = _shapes(weights) if "weights" in wanted else []
        outputs = _shapes(captured.outputs) if "activations" in wanted else []
        needs_input = any(tap.activation_name in saturation.NEEDS_INPUT for tap in self._taps)
        kinds = [
            _shapes(captured.gradients),
            _shapes(captured.deltas) if "output_gradients" in wanted else [],
            outputs,
            _shapes(captured.inputs) if outputs and needs_input else [],
            of_weights,
            of_weights,
        ]
        elements = sum(torch.Size(shape).numel() for kind in kinds for shape in kind)
        rows = rows_within(elements, sum(map(len, kinds)), self._recording.memory_mebibytes)
        device = weights[0].device
        rings = [Ring(kind, rows, device) if kind else None for kind in kinds[1:]]
        return Rings(rows, Ring(kinds[0], rows, device), *rings)


def _made(ring: Ring | None) -> Ring:
    assert ring is not None, "a recorded tensor has a ring"  # noqa: S101 - a fact of `_allocate`
    return ring


def _to_host(values: Tensor) -> npt.NDArray[np.float32]:
    return values.to(torch.float32).cpu().numpy()
