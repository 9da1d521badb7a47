"""What was recorded since the last drain, on the device, a row a step, of all members; and how it leaves for the host.

Which row a step writes is a number on the device, so that the step can be captured; which members wanted the step is
known on the host alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.histogram import BINS
from gradprobe.probe import Measured
from gradprobe.spec import Spec
from gradprobe.statistics import STATISTICS
from gradprobe.statistics import Tensor as StatisticsName
from worker.crossing import Array, fetch
from worker.stack.device.statistics import METRICS, Meter

_MOST_ROWS = 256
_BYTES = 4
#: Histograms are made sparse on the device, so many bins at a time.
_AT_ONCE = 1 << 27

Steps = npt.NDArray[np.int64]
Chosen = npt.NDArray[np.bool_]


def _rows(bytes_per_row: int, most_bytes: int) -> int:
    return max(1, min(_MOST_ROWS, most_bytes // max(1, bytes_per_row)))


class Rows:
    """Which steps a ring holds, as the host knows them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._steps: list[Steps] = []
        self._wanted: list[Chosen] = []

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def full(self) -> bool:
        """Whether there is no room for another step."""
        return len(self) == self.most

    def note(self, steps: Steps, wanted: Chosen) -> None:
        """The next row has the members at these steps [M], and of some their recording wants it [M]."""
        self._steps.append(steps.copy())
        self._wanted.append(wanted)

    def take(self) -> "Held":
        """All of them; nothing is held afterwards."""
        held = Held(np.array(self._steps), np.array(self._wanted))
        self._steps, self._wanted = [], []
        return held


@dataclass(frozen=True, slots=True)
class Held:
    """Steps and who wanted them, [R, M]; [0] where there is no row."""

    steps: Steps
    wanted: Chosen

    def of(self, member: int) -> tuple[Steps, Chosen]:
        """The steps that a member wanted, and which rows they are in."""
        if not len(self.steps):
            return np.empty(0, np.int64), np.empty(0, np.bool_)
        chosen = self.wanted[:, member]
        return self.steps[chosen, member], chosen


class Ring:
    """Statistics [R, columns, M] float32 and counts [T, M, R', L, 4096] int32 of a meter's steps, in so much memory.

    Attributes:
        statistics, counts: what is on the device.
        next_statistics, next_counts: int64 [1] on the device, the rows that the next step writes.
        recorded, counted: the same rows, as the host knows them.
    """

    def __init__(self, meter: Meter, members: int, layers: int, mebibytes: int, device: torch.device) -> None:
        self._meter, self._layers, self._members = meter, layers, members
        memory = mebibytes * 2**20 // 2
        self.recorded = Rows(_rows(_BYTES * meter.columns * members, memory))
        bins = layers * BINS * members * len(meter.counted)
        self.counted = Rows(_rows(_BYTES * bins, memory))
        self.statistics = torch.empty(self.recorded.most, meter.columns, members, device=device)
        shape = len(meter.counted), members, self.counted.most, layers, BINS
        self.counts = torch.empty(shape, dtype=torch.int32, device=device)
        self.next_statistics = torch.zeros(1, dtype=torch.int64, device=device)
        self.next_counts = torch.zeros(1, dtype=torch.int64, device=device)

    @property
    def full(self) -> bool:
        """Whether it must be drained before the next step."""
        return self.recorded.full or self.counted.full

    def write(self, row: Tensor) -> None:
        """Keep one step's statistics [columns, M]."""
        self.statistics.index_copy_(0, self.next_statistics, row[None])
        self.next_statistics.add_(1)

    def drain(self) -> "Drained":
        """Everything in it, on the host; empty afterwards."""
        used = len(self.recorded)
        (statistics,) = fetch([self.statistics[:used].permute(2, 1, 0).contiguous()])
        counts = [self._sparse(tensor) for tensor in self.counts] if len(self.counted) else []
        drained = Drained(
            self._meter,
            self._layers,
            statistics.astype(np.float32, copy=False),
            dict(zip(self._meter.counted, counts, strict=False)),
            self.recorded.take(),
            self.counted.take(),
        )
        self.next_statistics.zero_()
        self.next_counts.zero_()
        return drained

    def _sparse(self, counts: Tensor) -> list[CountsBlock]:
        """Of counts [M, R', L, 4096] the rows in use, as a block a member."""
        used = len(self.counted)
        at_once = max(1, _AT_ONCE // max(1, used * self._layers * BINS))
        found: list[CountsBlock] = []
        for some in counts[:, :used].split(at_once):
            dense = some.reshape(-1)
            places = dense.nonzero()[:, 0]
            lengths = (some != 0).sum(-1).flatten(1)
            entries = [(places % BINS).short(), dense[places], lengths]
            found += _blocks(fetch(entries), self._layers)
        return found


def _blocks(entries: Sequence[Array], layers: int) -> list[CountsBlock]:
    """Of members' bins and counts, one after another, and how many each row has, [m, R' · L]: a block a member."""
    bins, counts, lengths = entries
    numbers = lengths.astype(np.int64)
    ends = np.cumsum(numbers.sum(1))
    found = []
    for mine, end in zip(numbers, ends.tolist(), strict=True):
        starts = np.concatenate([[0], np.cumsum(mine)])
        these = slice(end - int(starts[-1]), end)
        rows = np.arange(len(mine) // layers)  # steps come with the choice of rows, in `_only`
        found.append(CountsBlock(rows, layers, starts, bins[these].astype(np.uint16), counts[these].astype(np.uint32)))
    return found


@dataclass(slots=True)
class Drained:
    """What a ring held: statistics [M, columns, S], of each counted tensor a block a member, whose steps are rows."""

    meter: Meter
    layers: int
    statistics: npt.NDArray[np.float32]
    counts: Mapping[StatisticsName, Sequence[CountsBlock]]
    recorded: Held
    counted: Held

    def of(self, member: int, spec: Spec) -> Measured:
        """What a member wanted of it."""
        wanted: set[str] = {*spec.recording.tensors}
        if spec.gradient_clipping is not None:
            wanted.add("clipped_weight_gradients")
        steps, chosen = self.recorded.of(member)
        statistics: dict[StatisticsName, StatisticsBlock] = {}
        start = 0
        for tensor in self.meter.tensors if len(steps) else ():
            count = len(STATISTICS[tensor])
            values = self.statistics[member, start : start + count * self.layers][:, chosen]
            start += count * self.layers
            if tensor in wanted:
                statistics[tensor] = StatisticsBlock(steps, values.reshape(count, self.layers, -1))
        counted_steps, counted = self.counted.of(member)
        counts = {
            tensor: _only(blocks[member], counted, counted_steps)
            for tensor, blocks in self.counts.items()
            if tensor in wanted and len(counted_steps)
        }
        return Measured(steps, statistics, counts, self.metric(member, "gradient_norm"))

    def metric(self, member: int, name: str) -> npt.NDArray[np.float32]:
        """One of `METRICS` of a member at the steps that it wanted, [S]."""
        _, chosen = self.recorded.of(member)
        values: npt.NDArray[np.float32] = self.statistics[member, METRICS.index(name) - len(METRICS)][chosen]
        return values


def _only(block: CountsBlock, chosen: Chosen, steps: Steps) -> CountsBlock:
    """The chosen rows of a block, which are those steps."""
    lengths = np.diff(block.starts)
    kept = np.repeat(chosen, block.layers)
    entries = np.repeat(kept, lengths)
    starts = np.concatenate([[0], np.cumsum(lengths[kept])])
    return CountsBlock(steps, block.layers, starts, block.bins[entries], block.counts[entries])
