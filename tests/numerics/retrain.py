"""Training of any kind of network without the probe, every number that went into a step kept."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprobe.spec import Spec
from tests.numerics.replay import CPU
from worker import batches, optimizers, randomness, schedules
from worker.clipping import clip
from worker.data import Dataset
from worker.network import builders
from worker.network.layers import Classifier, Hidden
from worker.precision import Precision

Wide = npt.NDArray[np.float64]


@dataclass
class Layer:
    """A layer before a step, in float64; what a layer has not is None. `mask` is what dropout multiplied by."""

    weight: Wide
    bias: Wide
    scale: Wide | None = None
    shift: Wide | None = None
    slope: float | None = None
    mask: Wide | None = None


@dataclass
class Iteration:
    """One step: its batch, the layers before it, its loss and its learning rate."""

    images: Wide
    labels: npt.NDArray[np.int64]
    layers: list[Layer]
    loss: float
    learning_rate: float


def retrain(spec: Spec, dataset: Dataset) -> list[Iteration]:
    """Train as the worker does; dropout's masks are read off its inputs and outputs."""
    network = builders.build(spec.network, batches.initialization_generator(spec.training.seed))
    precision = Precision(spec.training.precision, CPU)
    optimizer = optimizers.build(spec.optimizer, network.parameters(), network.slopes, precision.skips_steps)
    data = batches.Batches(dataset, spec.training.batch_size, spec.training.seed, CPU)
    masks: list[Wide] = []
    for hidden in network.hidden:
        if hidden.dropout is not None:
            hidden.dropout.register_forward_hook(lambda _module, inputs, output: masks.append(_mask(inputs[0], output)))
    iterations = []
    with randomness.dropout_from(spec.training.seed, CPU):
        for step in range(spec.training.iterations):
            masks.clear()
            layers = snapshot(network)
            rate = schedules.apply(optimizer, spec.optimizer, step, spec.training.iterations)
            images, labels = data.next()
            loss = _step(spec, network, optimizer, precision, images, labels)
            for layer, mask in zip(layers, masks, strict=False):
                layer.mask = mask
            iterations.append(Iteration(_wide(images), labels.numpy().copy(), layers, loss, rate))
    return iterations


def _step(
    spec: Spec,
    network: Classifier,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    images: Tensor,
    labels: Tensor,
) -> float:
    with precision.forward():
        logits = network(images)
    loss = functional.cross_entropy(logits.float(), labels)
    optimizer.zero_grad(set_to_none=True)
    precision.backward(loss, optimizer)
    if spec.gradient_clipping is not None:
        clip(spec.gradient_clipping, list(network.parameters()))
    precision.step(optimizer)
    return float(loss.detach())


def snapshot(network: Classifier) -> list[Layer]:
    """Every layer's parameters as they are."""
    last = network.layers[-1]
    return [*map(_hidden, network.hidden), Layer(_wide(last.weight), _wide(last.bias))]


def _hidden(hidden: Hidden) -> Layer:
    layer = Layer(_wide(hidden.layer.weight), _wide(hidden.layer.bias))
    if hidden.normalization is not None:
        layer.scale = _wide(hidden.normalization.weight)
        shift = getattr(hidden.normalization, "bias", None)
        layer.shift = np.zeros_like(layer.scale) if shift is None else _wide(shift)
    if isinstance(hidden.activation, nn.PReLU):
        layer.slope = float(hidden.activation.weight.detach())
    return layer


def _mask(before: Tensor, after: Tensor) -> Wide:
    wide = _wide(before)
    return np.divide(_wide(after), wide, out=np.zeros_like(wide), where=wide != 0)


def _wide(tensor: Any) -> Wide:
    copied: Wide = tensor.detach().double().numpy().copy()
    return copied
