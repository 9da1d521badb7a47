"""The training loop, on one screen. What one iteration does to the network is in `worker.learner`."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import WorkerStopping
from gradprobe.probe import Measured, Recording, attach
from gradprobe.spec import Spec
from worker import batches, randomness
from worker.checkpoint import Calendar, Checkpoint, Position, Run
from worker.data import Dataset
from worker.evaluate import Evaluation, block_of, evaluate
from worker.learner import Learner
from worker.metrics import Metrics
from worker.network import builders
from worker.network.layers import Classifier

_FINAL_LOSS_STEPS = 100


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was measured since the last one; `iteration` counts the iterations done.

    `state`, where a checkpoint was due, is the run after that iteration.
    """

    iteration: int
    measured: Measured
    metrics: StatisticsBlock
    evaluations: StatisticsBlock
    state: bytes | None = None


class Sink(Protocol):
    """Takes chunks as they come. May raise to stop the training."""

    def __call__(self, chunk: Chunk) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training came to; losses in nats, accuracies as shares; `seconds` are the loop's alone."""

    final_loss: float
    test: Evaluation
    train: Evaluation
    seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How long measured statistics may stay in memory, and how much memory they may take.

    `checkpoint_seconds`: how often the run is saved. `resume`: the checkpoint to go on from.
    """

    flush_seconds: float = 1.0
    first_flush_seconds: float = 0.25
    memory_mebibytes: int = 64
    checkpoint_seconds: float = math.inf
    resume: Checkpoint | None = None


def train(
    spec: Spec,
    dataset: Dataset,
    device: torch.device,
    sink: Sink,
    pace: Pace,
    keep_going: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train a network as the spec says, and hand what was measured to `sink`.

    `keep_going` is called before every iteration and may raise to stop; before WorkerStopping is passed on, a last
    checkpoint is handed to `sink`.

    Raises:
        CheckpointUnusable: when `pace.resume` is another network's or another device's.
        UnsupportedModule: when a layer can't be measured.
    """
    learner = Learner(spec, device)
    data = batches.Batches(dataset, spec.training.batch_size, spec.training.seed, device)
    run, calendar = Run(learner, data, device), Calendar(pace.checkpoint_seconds)
    tests, metrics = Tests(learner.network, dataset, device, spec.recording.evaluate_every), Metrics()
    recording = recording_of(spec, pace.memory_mebibytes)
    began = time.perf_counter()
    flush_at = began + pace.first_flush_seconds
    with (
        randomness.dropout_from(spec.training.seed, device),
        attach(builders.taps(learner.network, spec.network), recording, learner.parameters, learner.network) as probe,
    ):
        start = run.restore(pace.resume) if pace.resume else Position()
        losses = FinalLoss(start.losses)

        def flush(iteration: int, saving: bool = False) -> None:
            measured = probe.drain()
            block = losses.note(metrics.drain(measured.steps, measured.gradient_norm))
            now = time.perf_counter()
            here = Position(iteration, start.seconds + now - began, losses.last)
            sink(Chunk(iteration, measured, block, tests.drain(), run.save(here) if saving else None))
            if saving:
                calendar.saved(time.perf_counter() - now)

        for step in range(start.step, spec.training.iterations):
            try:
                keep_going()
            except WorkerStopping:
                flush(step, saving=True)
                raise
            started = time.perf_counter()
            tests.evaluate_if_due(step)
            images, labels = data.next()
            learned = learner.learn(step, images, labels, probe)
            now = time.perf_counter()
            if recording.statistics_at(step):
                metrics.record(learned.loss, learned.logits, labels, learned.learning_rate, now - started)
            if probe.full or now > flush_at:
                flush(step + 1, calendar.due)
                flush_at = time.perf_counter() + pace.flush_seconds
        seconds = start.seconds + time.perf_counter() - began
        final = tests.evaluate(spec.training.iterations)
        flush(spec.training.iterations)
    return Outcome(losses.mean, final, _over_training_set(learner.network, dataset, device), seconds)


def _over_training_set(network: Classifier, dataset: Dataset, device: torch.device) -> Evaluation:
    return evaluate(network, dataset.train_images.to(device), dataset.train_labels.to(device))


def recording_of(spec: Spec, memory_mebibytes: int) -> Recording:
    """What a spec wants recorded, within so much memory."""
    wanted = spec.recording
    return Recording(wanted.every, wanted.histograms_every, wanted.tensors, memory_mebibytes)


class Tests:
    """The test set's figures since the last drain."""

    def __init__(self, network: Classifier, dataset: Dataset, device: torch.device, every: int) -> None:
        self._network = network
        self._every = every
        self._test = dataset.test_images.to(device), dataset.test_labels.to(device)
        self._found: list[tuple[int, Evaluation]] = []

    def evaluate_if_due(self, step: int) -> None:
        """Evaluate before every so many steps."""
        if step % self._every == 0:
            self.evaluate(step)

    def evaluate(self, step: int) -> Evaluation:
        """Evaluate the network as it is before this step, and keep the figures."""
        evaluation = evaluate(self._network, *self._test)
        self._found.append((step, evaluation))
        return evaluation

    def drain(self) -> StatisticsBlock:
        """As a block of `statistics.STATISTICS["evaluation"]`, [2, 1, S]."""
        taken, self._found = self._found, []
        return block_of(taken)


class FinalLoss:
    """Mean training loss over the last 100 recorded steps; not finite when one of them is not."""

    def __init__(self, last: npt.NDArray[np.float32]) -> None:
        self.last = last

    def note(self, metrics: StatisticsBlock) -> StatisticsBlock:
        """Take the losses of one block, and pass it on."""
        self.last = np.concatenate([self.last, metrics.values[0, 0]])[-_FINAL_LOSS_STEPS:]
        return metrics

    @property
    def mean(self) -> float:
        """The mean, in nats."""
        return float(self.last.mean(dtype=np.float64))
