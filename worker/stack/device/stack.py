"""Members side by side on a device: what `worker.stack.stack` is on the CPU, in the hands of the same training loop.

Between two drains the host only enqueues steps, some tens ahead of the device, and knows which rows of the ring they
write; what was measured crosses at a drain.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradprobe.blocks import StatisticsBlock
from gradprobe.probe import Measured, Tap
from worker.checkpoint import Position
from worker.crossing import fetch
from worker.evaluate import Evaluation, block_of
from worker.loop import Chunk, FinalLoss
from worker.network import builders
from worker.stack.ahead import Ahead
from worker.stack.device.data import DeviceData
from worker.stack.device.evaluation import DeviceEvaluator
from worker.stack.device.ring import Drained
from worker.stack.device.step import AHEAD, DeviceStep
from worker.stack.lane import Lane, Row, packed

#: So many draw the members' orders at once: an epoch's permutations for a thousand members take one of them a second.
_THREADS = 8


@dataclass(slots=True)
class _Saved:
    """Members' numbers on the host: parameters [M, P], slots [S, M, P], moments [M, …]."""

    parameters: Tensor
    slots: Tensor
    moments: Tensor


class DeviceStack:
    """Trains its lanes from where they are; take them out again with `lane`."""

    def __init__(self, lanes: Sequence[Lane], data: DeviceData, memory_mebibytes: int) -> None:
        spec = lanes[0].spec
        self._device = data.device
        taps = [Tap(name, nn.Identity(), None, kind, slope) for name, kind, slope in builders.activations(spec.network)]
        self._step = DeviceStep(lanes, data, taps, memory_mebibytes)
        self._evaluator = DeviceEvaluator(self._step.network, self._step.layout, data)
        self.rows = [Row(lane, FinalLoss(lane.position.losses)) for lane in lanes]
        self._done = np.array([lane.position.step for lane in lanes], np.int64)
        self._ahead = Ahead(lanes, spec.training.batch_size, AHEAD, min(_THREADS, os.cpu_count() or 1))
        recordings = [lane.spec.recording for lane in lanes]
        self._every = np.array([recording.every for recording in recordings])
        self._histograms_every = np.array([recording.histograms_every for recording in recordings])
        self._evaluate_every = np.array([recording.evaluate_every for recording in recordings])
        self._evaluated: list[tuple[list[int], npt.NDArray[np.int64], Tensor]] = []
        self._times = _Times(len(lanes))
        self._rates: list[npt.NDArray[np.float64]] = []
        self._saved: _Saved | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def gradients(self) -> Tensor:
        """Of the last step, as the optimizer used them: a row [P] a member, on the device."""
        return self._step.gradients

    @property
    def remaining(self) -> int:
        """Steps until the first member has done all of its own."""
        lengths = np.array([row.lane.spec.training.iterations for row in self.rows])
        return int((lengths - self._done).min())

    def done(self, member: int) -> bool:
        """Whether a member has done all of its iterations."""
        return int(self._done[member]) >= self.rows[member].lane.spec.training.iterations

    @property
    def full(self) -> bool:
        """Whether it must be drained before the next step."""
        return self._step.ring.full

    def position(self, member: int) -> Position:
        """Where a member is; call it when it was drained."""
        row = self.rows[member]
        share = row.lane.position.seconds + self._times.seconds / len(self)
        return Position(int(self._done[member]), share, row.losses.last)

    def step(self) -> None:
        """One iteration of every member, enqueued."""
        self._times.begin()
        due = np.flatnonzero(self._done % self._evaluate_every == 0).tolist()
        if due:
            self._note_evaluation(due)
        if self._ahead.used_up:
            self._ahead.look(self._done, self._step.chosen)
            self._step.load(self._ahead.rates)
        ring = self._step.ring
        statistics, counts = self._done % self._every == 0, self._done % self._histograms_every == 0
        if statistics.any():
            ring.recorded.note(self._done, statistics)
            self._rates.append(self._ahead.rates[self._ahead.taken])
        if counts.any() and self._step.counts_anything:
            ring.counted.note(self._done, counts)
        self._step(bool(statistics.any()), bool(counts.any()) and self._step.counts_anything)
        self._ahead.taken += 1
        self._done += 1
        self._saved = None
        self._times.stepped(recorded=bool(statistics.any()))

    def _note_evaluation(self, members: list[int]) -> Tensor:
        found = self._evaluator.test(self._step.parameters, self._step.moments, members)
        self._evaluated.append((members, self._done[members], found))
        return found

    def evaluate(self, members: Sequence[int]) -> list[Evaluation]:
        """These members' figures over the test set as they are now, kept for their series."""
        self.settle()
        return _evaluations(self._note_evaluation(list(members))) if members else []

    def evaluate_training_set(self, members: Sequence[int]) -> list[Evaluation]:
        """These members' figures over the training set as they are now."""
        self.settle()
        found = self._evaluator.train(self._step.parameters, self._step.moments, list(members)) if members else None
        return [] if found is None else _evaluations(found)

    def drain(self, saving: Sequence[int] = ()) -> list[Chunk]:
        """Everything measured since the last drain, of every member; with a checkpoint of those in `saving`."""
        self.settle()
        drained, times = self._step.ring.drain(), self._times.take()
        rates, self._rates = np.array(self._rates).reshape(-1, len(self)), []
        evaluated = self._take_evaluations()
        chunks = []
        for member, row in enumerate(self.rows):
            measured = drained.of(member, row.lane.spec)
            _, chosen = drained.recorded.of(member)
            metrics = row.losses.note(_metrics(drained, member, measured, rates[chosen, member], times[chosen]))
            state = self.save(member) if member in saving else None
            chunks.append(Chunk(int(self._done[member]), measured, metrics, block_of(evaluated[member]), state))
        return chunks

    def _take_evaluations(self) -> list[list[tuple[int, Evaluation]]]:
        found: list[list[tuple[int, Evaluation]]] = [[] for _ in self.rows]
        for members, steps, figures in self._evaluated:
            for member, step, evaluation in zip(members, steps.tolist(), _evaluations(figures), strict=True):
                found[member].append((step, evaluation))
        self._evaluated = []
        return found

    def settle(self) -> None:
        """Wait for all that was enqueued: its time is training's, and nobody else's."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._times.settle()

    def save(self, member: int) -> bytes:
        """A member's checkpoint; call it when it was drained."""
        saved = self._on_host()
        numbers = saved.parameters[member], saved.slots[:, member], saved.moments[member]
        order = self._ahead.order_of(member)
        return packed(order, *numbers, self.position(member), self._device.type)

    def lane(self, member: int) -> Lane:
        """A member as it is now, to go on in another stack; call it when it was drained."""
        lane, saved = self._ahead.leave(member), self._on_host()
        lane.position = self.position(member)
        lane.parameters, lane.slots = saved.parameters[member].clone(), saved.slots[:, member].clone()
        lane.moments = saved.moments[member].clone()
        return lane

    def _on_host(self) -> _Saved:
        """All members' numbers, fetched once after each step at most."""
        if self._saved is None:
            members, step = len(self), self._step
            halves = [half.view(members, -1) for both in step.moments for half in both]
            moments = torch.cat(halves, dim=1) if halves else torch.empty(members, 0)
            found = [torch.from_numpy(one) for one in fetch([step.parameters, step.slots, moments])]
            self._saved = _Saved(*found)
        return self._saved


class _Times:
    """How long steps take, which only who waits for the device can tell: what all took since, in equal shares."""

    def __init__(self, members: int) -> None:
        self.seconds = 0.0  # of training, of all members together
        self._members = members
        self._since: float | None = None
        self._steps = 0
        self._recorded: list[float] = []
        self._waiting = 0

    def begin(self) -> None:
        """A step is about to be enqueued."""
        if self._since is None:
            self._since = time.perf_counter()

    def stepped(self, recorded: bool) -> None:
        """It was."""
        self._steps += 1
        self._waiting += recorded

    def settle(self) -> None:
        """All of them are done."""
        if self._since is None:
            return
        took = time.perf_counter() - self._since
        self.seconds += took
        self._recorded += [took / self._steps / self._members] * self._waiting if self._steps else []
        self._since, self._steps, self._waiting = None, 0, 0

    def take(self) -> npt.NDArray[np.float64]:
        """A member's seconds of each recorded step since the last time, [R]."""
        taken, self._recorded = np.array(self._recorded), []
        return taken


def _metrics(
    drained: Drained, member: int, measured: Measured, rates: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]
) -> StatisticsBlock:
    """One member's recorded steps as `statistics.STATISTICS["metrics"]`, [5, 1, S]."""
    losses, accuracies = drained.metric(member, "loss"), drained.metric(member, "accuracy")
    columns: list[npt.NDArray[np.floating]] = [losses, accuracies, rates, measured.gradient_norm, seconds]
    return StatisticsBlock(measured.steps, np.stack(columns).astype(np.float32)[:, None, :])


def _evaluations(found: Tensor) -> list[Evaluation]:
    losses, shares = found.tolist()
    return [Evaluation(loss, share) for loss, share in zip(losses, shares, strict=True)]
