"""The collector for the CPU: each step is reduced at once, in one compiled pass over the tensors where they lie.

Memory does not grow with the net's tensors: kept are a few numbers a layer and step, sparse counts, and one copy of
the weights for the update ratio.
"""

from collections.abc import Sequence
from math import log1p
from struct import Struct
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.histogram import BINS
from gradprobe.probe import native, saturation
from gradprobe.probe.collector import NOTHING, Captured, Measured, Moment
from gradprobe.probe.compiled import described, mark_kept
from gradprobe.probe.tap import Recording, Tap
from gradprobe.statistics import STATISTICS
from gradprobe.statistics import Tensor as TensorName

_MAXIMUM_ROWS = 256
_NOT_WANTED = np.empty((0, 0, 0), np.float64)
_BYTES_PER_COUNT = 6  # a uint16 bin and a uint32 count


_address: Final = Tensor.data_ptr


class Addresses:
    """Where a kind's tensors lie: float32, contiguous, one after another in `of`, with their `sizes`."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.of = np.zeros(len(tensors), np.int64)
        # Half the time of an assignment from a list.
        self._write, self._memory = Struct(f"{len(tensors)}q").pack_into, self.of.data
        self.sizes = np.array([tensor.numel() for tensor in tensors], np.int64)
        self._alive: Sequence[Tensor] = ()
        self._lasting: Sequence[Tensor] | None = None
        self._sources: list[Tensor] = []
        self._copies: list[Tensor] = []

    def set(self, tensors: Sequence[Tensor], lasting: bool = False, readable: bool = False) -> None:
        """Point to these; ones of another layout or type are copied first.

        `lasting`: later calls with this very sequence mean the same memory, so that only the copies are made again.
        `readable`: it is known that they are float32 and contiguous.
        """
        if readable:
            self._alive, self._sources, self._lasting = tensors, [], None
            self._write(self._memory, 0, *map(_address, tensors))
            return
        if self._lasting is tensors:
            if self._copies:
                _copy_again(self._copies, self._sources)
            return
        # Written out, not called: this is asked of every tensor at every step of somebody's loop.
        single = torch.float32
        addresses = [
            tensor.data_ptr() if tensor.dtype is single and tensor.is_contiguous() else 0 for tensor in tensors
        ]
        self._alive = tensors
        self._sources = []
        if 0 in addresses:  # unreadable ones, or ones without elements
            self._sources = [tensor for tensor in tensors if not _readable(tensor)]
            self._alive = [tensor if _readable(tensor) else _as_readable(tensor) for tensor in tensors]
            self._copies = [now for now, tensor in zip(self._alive, tensors, strict=True) if now is not tensor]
            addresses = [tensor.data_ptr() for tensor in self._alive]
        self._lasting = tensors if lasting else None
        self._write(self._memory, 0, *addresses)


@torch.no_grad()
def _copy_again(copies: list[Tensor], sources: list[Tensor]) -> None:
    torch._foreach_copy_(copies, sources)


def _readable(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.is_contiguous()


def _as_readable(tensor: Tensor) -> Tensor:
    copy: Tensor = tensor.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return copy


def _sizes(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.numel() for tensor in tensors]


def _start(counts: "SparseCounts | None") -> int:
    return counts.used if counts is not None else 0


class SparseCounts:
    """Histograms of one kind of tensor, step after step, in one pair of arrays."""

    def __init__(self, sizes: npt.NDArray[np.int64], rows: int, bytes_wanted: int) -> None:
        self.worst = int(np.minimum(sizes, BINS).sum())
        entries = max(self.worst, min(self.worst * rows, bytes_wanted // _BYTES_PER_COUNT))
        self.bins = np.empty(entries + 1, np.uint16)
        self.counts = np.empty(entries + 1, np.uint32)
        self.lengths = np.zeros((rows, len(sizes)), np.uint16)
        self.used = 0

    def resize(self, sizes: npt.NDArray[np.int64]) -> None:
        """Make room for one step of tensors of these sizes, beside what is held."""
        self.worst = int(np.minimum(sizes, BINS).sum())
        missing = self.used + self.worst + 1 - len(self.bins)
        if missing > 0:
            self.bins = np.concatenate([self.bins, np.empty(missing, np.uint16)])
            self.counts = np.concatenate([self.counts, np.empty(missing, np.uint32)])

    @property
    def full(self) -> bool:
        """Whether the next step could need more than is left."""
        return self.used + self.worst >= len(self.bins)

    def take(self, steps: npt.NDArray[np.int64]) -> CountsBlock:
        """All of it, as a block; empty afterwards."""
        starts = np.concatenate([[0], np.cumsum(self.lengths[: len(steps)].ravel(), dtype=np.int64)])
        block = CountsBlock(
            steps, self.lengths.shape[1], starts, self.bins[: self.used].copy(), self.counts[: self.used].copy()
        )
        self.used = 0
        return block


class NativeCollector:
    """Reduces each step as it comes. Made for the shapes of the first step's tensors."""

    def __init__(
        self, taps: Sequence[Tap], recording: Recording, captured: Captured, weights: Sequence[Tensor]
    ) -> None:
        self._wanted = recording.tensors
        self._every = recording.every
        layers = len(taps)
        self._gradients = Addresses(captured.gradients)
        self._weight_gradients = Addresses(captured.gradients[:layers])
        self._deltas = Addresses(captured.deltas)
        self._outputs, self._inputs = Addresses(captured.outputs), Addresses(captured.inputs)
        self._weights = Addresses(weights)
        self._weights.set(weights)  # once: an optimizer writes into the same memory
        self._shapes = np.array([_batch_units_positions(tensor) for tensor in captured.outputs], np.int64)
        rules = [native_rule(tap.activation_name, tap.negative_slope) for tap in taps]
        self._rules = np.array([rule for rule, *_ in rules], np.int64)
        self._thresholds = np.array([thresholds for _, *thresholds in rules], np.float32)
        self._before = np.empty(int(self._weights.sizes.sum()) if "weights" in self._wanted else 0, np.float32)
        self._table = np.zeros(2 * BINS, np.uint32)
        largest = max(int(self._deltas.sizes.max()), int(self._weight_gradients.sizes.max()))
        self._scratch = np.empty(largest, np.float32)
        self._allocate(layers, recording)
        self._known = np.empty((7, layers), np.float64)
        self._known_step = -1  # the step whose weights `_known` and `_before` describe already
        self._trusted = False
        self._step = 0
        self._steps: list[int] = []
        self._counted_steps: list[int] = []
        self._row = -1
        self._used_before = 0, 0
        self._bind()

    def _allocate(self, layers: int, recording: Recording) -> None:
        kinds: list[TensorName] = [*self._wanted, "clipped_weight_gradients"]
        memory = recording.memory_mebibytes * 1024 * 1024
        per_row = 8 * layers * sum(len(STATISTICS[kind]) for kind in kinds)
        self._rows = max(1, min(_MAXIMUM_ROWS, memory // 2 // per_row))
        # One row more: what a step writes that wants a histogram alone, and nobody reads.
        self._out = {kind: np.empty((self._rows + 1, len(STATISTICS[kind]), layers), np.float64) for kind in kinds}
        self._out["clipped_weight_gradients"][:] = np.nan
        self._gradient_norm = np.empty(self._rows + 1, np.float64)
        self._clipped = False
        sizes = {"weight_gradients": self._weight_gradients.sizes, "output_gradients": self._deltas.sizes}
        self._counts: dict[TensorName, SparseCounts] = {
            kind: SparseCounts(sizes[kind], self._rows, memory // 4) for kind in self._wanted if kind in sizes
        }
        self._no_counts = SparseCounts(self._deltas.sizes, 1, 0)
        self._counts_of_gradients = self._counts.get("weight_gradients")
        self._counts_of_deltas = self._counts.get("output_gradients")

    def _bind(self) -> None:
        """Describe the arrays that `native.collect` is given at every step, in its order."""
        kinds: tuple[TensorName, ...] = ("weight_gradients", "output_gradients", "activations", "weights")
        statistics = [self._out[kind] if kind in self._wanted else _NOT_WANTED for kind in kinds]
        counts = [self._counts_of_gradients or self._no_counts, self._counts_of_deltas or self._no_counts]
        self._arrays = (
            self._gradients.of, self._gradients.sizes, self._deltas.of, self._deltas.sizes,
            self._outputs.of, self._shapes, self._rules, self._thresholds,
            self._weights.of, self._weights.sizes, self._before, self._known,
            *statistics, self._gradient_norm, self._table, self._scratch,
            *(array for kind in counts for array in (kind.bins, kind.counts, kind.lengths)),
        )  # fmt: skip
        self._described = described(self._arrays)

    @property
    def full(self) -> bool:
        """Whether rows or room for counts could run out with the next step."""
        rows = max(len(self._steps), len(self._counted_steps))
        return rows >= self._rows or any(counts.full for counts in self._counts.values())

    def fit(self, captured: Captured) -> None:
        """Take tensors of other sizes from now on: a last batch that is smaller, sequences of another length."""
        if _sizes(captured.deltas) != self._deltas.sizes.tolist():
            self._deltas.sizes[:] = _sizes(captured.deltas)
            self._scratch = np.empty(max(len(self._scratch), int(self._deltas.sizes.max())), np.float32)
            if "output_gradients" in self._counts:
                self._counts["output_gradients"].resize(self._deltas.sizes)
        if _sizes(captured.outputs) != self._outputs.sizes.tolist():
            self._outputs.sizes[:] = self._inputs.sizes[:] = _sizes(captured.outputs)
            self._shapes = np.array([_batch_units_positions(tensor) for tensor in captured.outputs], np.int64)
        self._gradients.sizes[:] = _sizes(captured.gradients)
        self._weight_gradients.sizes[:] = self._gradients.sizes[: len(self._weight_gradients.sizes)]
        self._bind()

    def withdraw(self) -> None:
        """Take the last step back: more of its gradient has come, and it will be collected anew."""
        if self._counted_steps and self._counted_steps[-1] == self._step:
            self._counted_steps.pop()
            self._set_used(self._used_before)
        if self._steps and self._steps[-1] == self._step:
            self._steps.pop()

    def distrust(self) -> None:
        """Somebody other than the optimizer has changed the weights since its step."""
        self._known_step = -1

    def collect(self, moment: Moment, captured: Captured, weights: Sequence[Tensor]) -> None:
        """Reduce one step's gradients, δ, activations and weights."""
        self._row = len(self._steps) if moment.statistics else self._rows
        self._step, self._trusted = moment.step, captured.trusted
        self._point(captured)
        self._used_before = _start(self._counts_of_gradients), _start(self._counts_of_deltas)
        used = native.collect_from(
            self._row,
            len(self._counted_steps) if moment.counts else 0,
            moment.counts,
            captured.gradient_scale,
            captured.delta_scale,
            self._known_step == self._step,
            *self._used_before,
            self._outputs.of if captured.inputs is captured.outputs else self._inputs.of,
            self._described,
        )
        self._set_used(used)
        if moment.statistics:
            self._steps.append(moment.step)
        if moment.counts:
            self._counted_steps.append(moment.step)

    def _point(self, captured: Captured) -> None:
        lasting = captured.lasting
        self._gradients.set(captured.gradients, lasting)
        if self._counts_of_deltas is not None:
            self._deltas.set(captured.deltas, lasting)
        if "activations" in self._wanted:
            self._outputs.set(captured.outputs, lasting, captured.readable)
            if captured.inputs is not captured.outputs:
                self._inputs.set(captured.inputs, lasting, captured.readable)

    def _set_used(self, used: tuple[int, int]) -> None:
        if self._counts_of_gradients is not None:
            self._counts_of_gradients.used = used[0]
        if self._counts_of_deltas is not None:
            self._counts_of_deltas.used = used[1]

    def collect_clipped(self, gradients: Sequence[Tensor]) -> None:
        """Reduce the gradients that clipping left."""
        self._clipped = True
        self._weight_gradients.set(gradients)
        nothing = self._no_counts
        native.measure(
            self._weight_gradients.of,
            self._weight_gradients.sizes,
            1.0,
            self._out["clipped_weight_gradients"][self._row],
            False,
            self._table,
            self._scratch,
            nothing.bins,
            nothing.counts,
            nothing.lengths[0],
        )

    def collect_update(self, weights: Sequence[Tensor]) -> None:
        """The update ratio, from the weights after the optimizer's step, with which a trusted next step begins."""
        if "weights" not in self._wanted or self._row == self._rows:
            return
        ratios = self._out["weights"][self._row, -1]
        if self._trusted and self._every == 1:
            native.advance(self._weights.of, self._weights.sizes, self._before, ratios, self._known)
            self._known_step = self._step + 1
        else:
            native.update_ratios(self._weights.of, self._weights.sizes, self._before, ratios)

    def drain(self) -> Measured:
        """Everything since the last drain, [statistic, layer, step] float32."""
        if not self._steps and not self._counted_steps:
            return NOTHING
        steps = np.array(self._steps, np.int64)
        count = len(steps)
        kinds = [kind for kind in self._out if kind != "clipped_weight_gradients" or self._clipped]
        with np.errstate(over="ignore"):  # a norm beyond float32's range is stored as infinite, and told as such
            statistics = {
                kind: StatisticsBlock(
                    steps, np.ascontiguousarray(self._out[kind][:count].transpose(1, 2, 0), np.float32)
                )
                for kind in kinds
                if count
            }
            gradient_norm = self._gradient_norm[:count].astype(np.float32)
        counted = np.array(self._counted_steps, np.int64)
        counts = {kind: sparse.take(counted) for kind, sparse in self._counts.items() if len(counted)}
        self._steps, self._counted_steps = [], []
        if self._clipped:  # steps that are not clipped, where others are, must not tell what an earlier one was
            self._out["clipped_weight_gradients"][:] = np.nan
        return Measured(steps, statistics, counts, gradient_norm)


def warm_up() -> None:
    """Compile what a step needs, or load it from the cache, so that the first experiment does not wait for it."""
    layer = torch.nn.Linear(2, 2)
    taps = [Tap("layer1", layer)]
    weight = layer.weight.detach()
    captured = Captured([weight], [weight], [weight], [weight], 2.0)
    collector = NativeCollector(taps, Recording(), captured, [weight])
    collector.collect(Moment(0, True, True), captured, [weight])
    collector.collect_update([weight])
    collector.drain()
    mark_kept()


def _batch_units_positions(tensor: Tensor) -> tuple[int, int, int]:
    batch, units = tensor.shape[0], tensor.shape[1]
    return batch, units, tensor.numel() // (batch * units)


_Rule = tuple[int, float, float, float]
_RULES: dict[str, _Rule] = {
    "sigmoid": (native.SIGMOID, 0.0, 0.0, 0.0),
    "tanh": (native.TANH, 0.0, 0.0, 0.0),
    "relu": (native.EQUAL_ZERO, 0.0, 0.0, 0.0),
    "elu": (native.BELOW, saturation.SHARE - 1, 0.0, 0.0),
    "selu": (native.BELOW, (saturation.SHARE - 1) * saturation.SELU_FLOOR, 0.0, 0.0),
    "softplus": (native.BELOW, -log1p(-saturation.SHARE), 0.0, 0.0),
    "hardtanh": (native.ABSOLUTE_ONE, 0.0, 0.0, 0.0),
}


def native_rule(activation: str, negative_slope: float) -> _Rule:
    """The kernel's number for `saturation.rule`, and its thresholds."""
    if activation == "leaky_relu" and negative_slope < saturation.SHARE:
        return (native.BELOW if negative_slope else native.EQUAL_ZERO, 0.0, 0.0, 0.0)
    if activation in saturation.NEEDS_INPUT:
        return (native.WITHIN, *saturation.limits(activation))
    return _RULES.get(activation, (native.NEVER, 0.0, 0.0, 0.0))
