"""Members side by side: one set of kernels a step, and of each member its own row, order, recording and series."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradprobe.blocks import StatisticsBlock
from gradprobe.probe import Captured, Measured, Recording, Tap
from gradprobe.probe.collector import NOTHING, Moment
from gradprobe.probe.native_collector import NativeCollector
from gradprobe.spec import Network
from worker.checkpoint import Position
from worker.evaluate import Evaluation, block_of
from worker.loop import Chunk, FinalLoss, recording_of
from worker.network import builders
from worker.stack.ahead import Ahead
from worker.stack.evaluation import Evaluator
from worker.stack.images import Data
from worker.stack.lane import Lane, Row, packed
from worker.stack.layout import Layout
from worker.stack.network import StackedNetwork, flat
from worker.stack.optimizers import Optimizer
from worker.stack.passes import Computed, Numbers, StackedPass, spare_rows


@dataclass(slots=True)
class _Row(Row):
    recording: Recording
    collector: NativeCollector | None = None


class Stack:
    """Trains its lanes from where they are; take them out again with `lanes`."""

    def __init__(self, lanes: Sequence[Lane], data: Data, memory_mebibytes: int) -> None:
        spec = lanes[0].spec
        self._data, self._batch = data, spec.training.batch_size
        self._layout, network = Layout(spec.network), StackedNetwork(spec.network)
        self._numbers = _numbers(lanes, spare_rows(self._layout, self._batch), self._layout, network)
        self._slots = torch.stack([lane.slots for lane in lanes], dim=1).contiguous()
        self._pass = StackedPass(network, self._layout, self._numbers, data.images, self._batch)
        self._labels = self._pass.labels[: len(lanes)].view(-1)
        specs, members = [lane.spec for lane in lanes], len(lanes)
        mine = self._numbers.parameters[:members], self._numbers.gradients[:members]
        self._optimizer = Optimizer(specs, *mine, self._slots, self._layout.spared)
        self._evaluator = Evaluator(network, self._layout, data)
        memory = max(1, memory_mebibytes // len(lanes))
        self.rows = [_Row(lane, FinalLoss(lane.position.losses), recording_of(lane.spec, memory)) for lane in lanes]
        self._taps = _taps(spec.network)
        self._done = np.array([lane.position.step for lane in lanes], np.int64)
        self._seconds = 0.0  # of training, of all members together
        self._history = History(len(lanes))
        self._evaluations: list[list[tuple[int, Evaluation]]] = [[] for _ in lanes]
        self._clipped = {member for member, lane in enumerate(lanes) if lane.spec.gradient_clipping is not None}
        recordings = [lane.spec.recording for lane in lanes]
        self._every = np.array([recording.every for recording in recordings])
        self._histograms_every = np.array([recording.histograms_every for recording in recordings])
        self._evaluate_every = np.array([recording.evaluate_every for recording in recordings])
        self._full = False
        self._ahead = Ahead(lanes, self._batch)
        self._ahead.look(self._done)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def gradients(self) -> Tensor:
        """Of the last step, as the optimizer used them: a row [P] a member."""
        return self._numbers.gradients[: len(self)]

    @property
    def remaining(self) -> int:
        """Steps until the first member has done all of its own."""
        return int(
            min(row.lane.spec.training.iterations - done for row, done in zip(self.rows, self._done, strict=True))
        )

    def done(self, member: int) -> bool:
        """Whether a member has done all of its iterations."""
        return int(self._done[member]) >= self.rows[member].lane.spec.training.iterations

    @property
    def full(self) -> bool:
        """Whether a member must be drained before the next step."""
        return self._history.full or self._full

    def position(self, member: int) -> Position:
        """Where a member is; call it when it was drained."""
        row = self.rows[member]
        share = row.lane.position.seconds + self._seconds / len(self)
        return Position(int(self._done[member]), share, row.losses.last)

    def step(self) -> None:
        """One iteration of every member."""
        began = time.perf_counter()
        self._evaluate_where_due()
        if self._ahead.used_up:
            self._ahead.look(self._done)
        chosen, rates = self._ahead.chosen[self._ahead.taken], self._ahead.rates[self._ahead.taken]
        torch.index_select(self._data.labels, 0, chosen.view(-1), out=self._labels)
        self._ahead.taken += 1
        computed = self._pass(chosen.numpy())
        due = self._collect(computed)
        if self._optimizer.clips:
            self._clip(due)
        self._done += 1
        self._optimizer.step(rates, self._done)
        for member in due:
            self._collector(member).collect_update(self._weights[member])
        took = time.perf_counter() - began
        self._seconds += took
        self._history.note(computed, self._pass.labels, rates, took / len(self))

    def _evaluate_where_due(self) -> None:
        self.evaluate(np.flatnonzero(self._done % self._evaluate_every == 0).tolist())

    def evaluate(self, members: Sequence[int]) -> list[Evaluation]:
        """These members' figures over the test set as they are now, kept for their series."""
        found = []
        for member in members:
            found.append(self._evaluator.test(self._numbers.parameters[member], self._pass.moments_of(member)))
            self._evaluations[member].append((int(self._done[member]), found[-1]))
        return found

    def evaluate_training_set(self, members: Sequence[int]) -> list[Evaluation]:
        """These members' figures over the training set as they are now."""
        parameters = self._numbers.parameters
        return [self._evaluator.train(parameters[member], self._pass.moments_of(member)) for member in members]

    def _collect(self, computed: Computed) -> list[int]:
        """Measure those members that record this step; returns whose statistics are recorded."""
        if self.rows[0].collector is None:
            self._make_collectors(computed)
        statistics, counts = self._done % self._every == 0, self._done % self._histograms_every == 0
        due = np.flatnonzero(statistics | counts).tolist()
        for member in due:
            moment = Moment(int(self._done[member]), bool(statistics[member]), bool(counts[member]))
            collector = self._collector(member)
            collector.collect(moment, self._captured[member], self._weights[member])
            self._full |= collector.full
        return [member for member in due if statistics[member]]

    def _clip(self, due: Sequence[int]) -> None:
        self._optimizer.clip()
        for member in due:
            if member in self._clipped:
                self._collector(member).collect_clipped(self._captured[member].gradients[: self._layout.layers])

    def _collector(self, member: int) -> NativeCollector:
        collector = self.rows[member].collector
        assert collector is not None, "made at the first step"  # noqa: S101 - a fact of `_collect`
        return collector

    def _make_collectors(self, computed: Computed) -> None:
        self._captured = [
            Captured(
                gradients=self._layout.weights_first(self._numbers.gradients[member]),
                deltas=[delta[member] for delta in computed.deltas],
                outputs=[output[member] for output in computed.outputs],
                inputs=[entry[member] for entry in computed.inputs],
                delta_scale=float(self._batch),
                trusted=True,
                lasting=True,
            )
            for member in range(len(self))
        ]
        layers = self._layout.layers
        self._weights = [self._layout.weights_first(self._numbers.parameters[m])[:layers] for m in range(len(self))]
        for row, captured, weights in zip(self.rows, self._captured, self._weights, strict=True):
            row.collector = NativeCollector(self._taps, row.recording, captured, weights)

    def settle(self) -> None:
        """Nothing is waited for: a step is done when it returns."""

    def drain(self, saving: Sequence[int] = ()) -> list[Chunk]:
        """Everything measured since the last drain, of every member; with a checkpoint of those in `saving`."""
        history, chunks, self._full = self._history.take(), [], False
        for member, row in enumerate(self.rows):
            measured = row.collector.drain() if row.collector is not None else NOTHING
            metrics = row.losses.note(history.of(member, measured, int(self._done[member])))
            state = self.save(member) if member in saving else None
            chunks.append(Chunk(int(self._done[member]), measured, metrics, self._take_evaluations(member), state))
        return chunks

    def _take_evaluations(self, member: int) -> StatisticsBlock:
        taken, self._evaluations[member] = self._evaluations[member], []
        return block_of(taken)

    def save(self, member: int) -> bytes:
        """A member's checkpoint; call it when it was drained."""
        numbers = self._numbers.parameters[member], self._slots[:, member], self._moments(member)
        return packed(self._ahead.order_of(member), *numbers, self.position(member))

    def _moments(self, member: int) -> Tensor:
        return flat(self._pass.moments_of(member))

    def lane(self, member: int) -> Lane:
        """A member as it is now, to go on in another stack; call it when it was drained."""
        lane = self._ahead.leave(member)
        lane.position = self.position(member)
        lane.parameters = self._numbers.parameters[member].clone()
        lane.slots = self._slots[:, member].clone()
        lane.moments = self._moments(member).clone()
        return lane


class History:
    """Loss, accuracy, learning rate and time of the last steps, of all members."""

    def __init__(self, members: int, most: int = 256) -> None:
        self._losses = torch.empty(most, members)
        self._accuracies = torch.empty(most, members, dtype=torch.float64)
        self._rates = np.empty((most, members))
        self._seconds = np.empty(most)
        self._used = 0

    @property
    def full(self) -> bool:
        """Whether there is no room for another step."""
        return self._used == len(self._seconds)

    def note(self, computed: Computed, labels: Tensor, rates: npt.NDArray[np.float64], seconds: float) -> None:
        """Keep one step's figures; `seconds` are a member's share."""
        members = self._losses.shape[1]
        self._losses[self._used] = computed.losses[:members]
        self._accuracies[self._used] = (computed.logits.argmax(2) == labels).double().mean(1)[:members]
        self._rates[self._used], self._seconds[self._used] = rates, seconds
        self._used += 1

    def take(self) -> "Taken":
        """All of it; empty afterwards."""
        used, self._used = self._used, 0
        losses, accuracies = self._losses[:used].numpy().copy(), self._accuracies[:used].numpy().copy()
        return Taken(losses, accuracies, self._rates[:used].copy(), self._seconds[:used].copy())


@dataclass(frozen=True, slots=True)
class Taken:
    """Losses, accuracies and rates [S, M], seconds [S], of the last S steps."""

    losses: npt.NDArray[np.float32]
    accuracies: npt.NDArray[np.float64]
    rates: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]

    def of(self, member: int, measured: Measured, done: int) -> StatisticsBlock:
        """One member's recorded steps as `statistics.STATISTICS["metrics"]`, [5, 1, S]; it has done so many."""
        places = measured.steps - (done - len(self.seconds))
        columns = [
            self.losses[places, member],
            self.accuracies[places, member],
            self.rates[places, member],
            measured.gradient_norm,
            self.seconds[places],
        ]
        return StatisticsBlock(measured.steps, np.stack(columns).astype(np.float32)[:, None, :])


def _numbers(lanes: Sequence[Lane], spare: int, layout: Layout, network: StackedNetwork) -> Numbers:
    nobody = torch.zeros(spare, layout.size)
    parameters = torch.cat([torch.stack([lane.parameters for lane in lanes]), nobody])
    moments = torch.stack([*(lane.moments for lane in lanes), *[network.first_moments()] * spare])
    return Numbers(parameters, torch.zeros_like(parameters), moments)


def _taps(network: Network) -> list[Tap]:
    # Collectors ask for the activation alone.
    return [Tap(name, nn.Identity(), None, kind, slope) for name, kind, slope in builders.activations(network)]
