"""The training loop, on one screen. What one iteration does to the network is in `worker.learner`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from gradprobe.blocks import StatisticsBlock
from gradprobe.probe import Measured, Recording, attach
from gradprobe.spec import Spec
from worker import batches, randomness
from worker.data import Dataset
from worker.evaluate import Evaluation, evaluate
from worker.learner import Learner
from worker.metrics import Metrics
from worker.network import builders
from worker.network.layers import Classifier

_FINAL_LOSS_STEPS = 100


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was measured since the last one; `iteration` counts the iterations done."""

    iteration: int
    measured: Measured
    metrics: StatisticsBlock
    evaluations: StatisticsBlock


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
    """How long measured statistics may stay in memory, and how much memory they may take."""

    flush_seconds: float = 1.0
    first_flush_seconds: float = 0.25
    memory_mebibytes: int = 64


def train(
    spec: Spec,
    dataset: Dataset,
    device: torch.device,
    sink: Sink,
    pace: Pace,
    keep_going: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train a network as the spec says, and hand what was measured to `sink`.

    `keep_going` is called before every iteration and may raise to stop.

    Raises:
        UnsupportedModule: when a layer can't be measured.
    """
    learner = Learner(spec, device)
    network = learner.network
    data = batches.Batches(dataset, spec.training.batch_size, spec.training.seed, device)
    tests = Tests(network, dataset, device)
    metrics, losses = Metrics(), FinalLoss()
    recording = Recording(
        spec.recording.every, spec.recording.histograms_every, spec.recording.tensors, pace.memory_mebibytes
    )
    began = flushed = time.perf_counter()
    patience = pace.first_flush_seconds
    with (
        randomness.dropout_from(spec.training.seed, device),
        attach(builders.taps(network, spec.network), recording, learner.parameters, network) as probe,
    ):

        def flush(iteration: int) -> None:
            measured = probe.drain()
            block = metrics.drain(measured.steps, measured.gradient_norm)
            losses.note(block)
            sink(Chunk(iteration, measured, block, tests.drain()))

        for step in range(spec.training.iterations):
            keep_going()
            started = time.perf_counter()
            if step % spec.recording.evaluate_every == 0:
                tests.evaluate(step)
            images, labels = data.next()
            learned = learner.learn(step, images, labels, probe)
            now = time.perf_counter()
            if recording.statistics_at(step):
                metrics.record(learned.loss, learned.logits, labels, learned.learning_rate, now - started)
            if probe.full or now - flushed > patience:
                flush(step + 1)
                flushed, patience = time.perf_counter(), pace.flush_seconds
        seconds = time.perf_counter() - began
        final = tests.evaluate(spec.training.iterations)
        flush(spec.training.iterations)
    training = evaluate(network, dataset.train_images.to(device), dataset.train_labels.to(device))
    return Outcome(losses.mean, final, training, seconds)


class Tests:
    """The test set's figures since the last drain."""

    def __init__(self, network: Classifier, dataset: Dataset, device: torch.device) -> None:
        self._network = network
        self._test = dataset.test_images.to(device), dataset.test_labels.to(device)
        self._steps: list[int] = []
        self._values: list[Evaluation] = []

    def evaluate(self, step: int) -> Evaluation:
        """Evaluate the network as it is before this step, and keep the figures."""
        evaluation = evaluate(self._network, *self._test)
        self._steps.append(step)
        self._values.append(evaluation)
        return evaluation

    def drain(self) -> StatisticsBlock:
        """As a block of `statistics.STATISTICS["evaluation"]`, [2, 1, S]."""
        steps = np.array(self._steps, dtype=np.int64)
        values = np.array([[value.loss, value.accuracy] for value in self._values], np.float32).reshape(-1, 2)
        self._steps, self._values = [], []
        return StatisticsBlock(steps, values.T[:, None, :])


class FinalLoss:
    """Mean training loss over the last 100 recorded steps; not finite when one of them is not."""

    def __init__(self) -> None:
        self._last = np.empty(0, np.float32)

    def note(self, metrics: StatisticsBlock) -> None:
        """Take the losses of one block."""
        self._last = np.concatenate([self._last, metrics.values[0, 0]])[-_FINAL_LOSS_STEPS:]

    @property
    def mean(self) -> float:
        """The mean, in nats."""
        return float(self._last.mean(dtype=np.float64))
