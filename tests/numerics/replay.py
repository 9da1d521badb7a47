"""The worker's training, seen from both sides: with the probe, and again by hand without it, every number kept."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.spec import Spec, TensorName
from gradprobe.statistics import names
from worker import batches, optimizers
from worker.data import Dataset
from worker.loop import Chunk, Outcome, Pace, train
from worker.network import builders
from worker.network.layers import Classifier

Array = npt.NDArray[np.float32]
CPU = torch.device("cpu")


def small_dataset(train_count: int = 90, test_count: int = 40, seed: int = 0) -> Dataset:
    """Images with MNIST's share of background, and labels that have nothing to do with them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        pixels = torch.rand(count, 784, generator=generator)
        lit = torch.rand(count, 784, generator=generator) < 0.2
        return pixels * lit, torch.randint(10, (count,), generator=generator)

    return Dataset("small", *draw(train_count), *draw(test_count), sha256=None)


@dataclass
class Recorded:
    """All that one run's probe measured, chunks joined."""

    outcome: Outcome
    chunks: list[Chunk] = field(default_factory=list)

    def statistics(self, tensor: TensorName) -> StatisticsBlock:
        return StatisticsBlock.join([chunk.measured.statistics[tensor] for chunk in self._with_statistics()])

    def counts(self, tensor: TensorName) -> CountsBlock:
        return CountsBlock.join(
            [chunk.measured.counts[tensor] for chunk in self.chunks if tensor in chunk.measured.counts]
        )

    @property
    def metrics(self) -> StatisticsBlock:
        return StatisticsBlock.join([chunk.metrics for chunk in self.chunks])

    @property
    def evaluations(self) -> StatisticsBlock:
        return StatisticsBlock.join([chunk.evaluations for chunk in self.chunks])

    def of_layer(self, tensor: TensorName, layer: int, step: int) -> dict[str, float]:
        """One layer's statistics at one position of the series, by name."""
        return dict(zip(names(tensor), self.statistics(tensor).values[:, layer, step].tolist(), strict=True))

    def _with_statistics(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if chunk.measured.statistics]


def record(spec: Spec, dataset: Dataset, pace: Pace | None = None) -> Recorded:
    """Train with the probe."""
    chunks: list[Chunk] = []

    def keep(chunk: Chunk) -> None:
        chunks.append(chunk)

    outcome = train(spec, dataset, CPU, keep, pace or Pace())
    return Recorded(outcome, chunks)


@dataclass
class Step:
    """One iteration of the training without a probe; arrays are copies, a list has one entry a layer."""

    images: Array
    labels: npt.NDArray[np.int64]
    weights: list[Array]
    biases: list[Array]
    slopes: list[float]
    loss: float
    weight_gradients: list[Array]
    deltas: list[Array]
    gradients: list[Array]
    weights_after: list[Array]


def replay(spec: Spec, dataset: Dataset) -> list[Step]:
    """Train without the probe; δ by `retain_grad`, its 1/B undone."""
    network = builders.build(spec.network, batches.initialization_generator(spec.training.seed))
    optimizer = optimizers.build(spec.optimizer, network.parameters(), network.slopes)
    data = batches.Batches(dataset, spec.training.batch_size, spec.training.seed, CPU)
    return [_step(network, optimizer, *data.next()) for _ in range(spec.training.iterations)]


def _step(network: Classifier, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Step:
    weights = [_copy(layer.weight) for layer in _layers(network)]
    biases = [_copy(layer.bias) for layer in _layers(network)]
    slopes = [float(slope.detach()) for slope in network.slopes]
    outputs, hidden = [], images
    for layer, activation in zip(network.layers, [*network.activations, nn.Identity()], strict=True):
        output = layer(hidden)
        output.retain_grad()
        outputs.append(output)
        hidden = activation(output)
    loss = functional.cross_entropy(hidden, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [_copy(parameter.grad) for parameter in network.parameters()]
    weight_gradients = [_copy(layer.weight.grad) for layer in _layers(network)]
    deltas = [_copy(output.grad) * np.float32(len(images)) for output in outputs]
    optimizer.step()
    return Step(
        _copy(images),
        labels.numpy().copy(),
        weights,
        biases,
        slopes,
        float(loss.detach()),
        weight_gradients,
        deltas,
        gradients,
        [_copy(layer.weight) for layer in _layers(network)],
    )


def _layers(network: Classifier) -> list[Any]:
    return list(network.layers)


def _copy(tensor: Tensor | None) -> Array:
    assert tensor is not None
    copied: Array = tensor.detach().numpy().copy()
    return copied
