"""Twins of every network: dense ones by hand in NumPy, those on images by torch's derivatives of plain functions.

All in float64, without a module, a hook or a line of what they judge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gradprobe.spec import Network, ValueClipping
from tests.numerics.reference import activation
from tests.numerics.retrain import Iteration, Layer, Wide

EPSILON = 1e-5
Backward = Callable[[Wide], tuple[Wide, list[Wide]]]


@dataclass
class Result:
    """One batch's forward and backward pass; lists have one entry a layer. δ is per sample."""

    loss: float
    activations: list[Wide]
    deltas: list[Wide]
    weight_gradients: list[Wide]
    gradient_norm: float

    def clipped(self, clipping: object) -> list[Wide]:
        """The weights' gradients after clipping."""
        if isinstance(clipping, ValueClipping):
            return [np.clip(g, -clipping.max_value, clipping.max_value) for g in self.weight_gradients]
        factor = min(1.0, getattr(clipping, "max_norm") / self.gradient_norm)  # noqa: B009 - the other kind
        return [g * factor for g in self.weight_gradients]


def dense(network: Network, step: Iteration) -> Result:
    """δ by the chain rule, layer by layer from the loss back; skip connections carry it past."""
    count = len(step.images)
    entries, activations, backwards = [step.images], [], []
    for layer in step.layers[:-1]:
        skips = network.residual and layer.weight.shape[0] == layer.weight.shape[1]
        output = entries[-1] @ layer.weight.T + layer.bias
        hidden, leave, backward = _dense_hidden(network, layer, output)
        activations.append(hidden)
        entries.append(leave + entries[-1] if skips else leave)
        backwards.append((backward, skips))
    last = step.layers[-1]
    logits = entries[-1] @ last.weight.T + last.bias
    logarithms = logits - np.log(np.exp(logits - logits.max()).sum(1, keepdims=True)) - logits.max()
    deltas = [(np.exp(logarithms) - np.eye(10)[step.labels]) / count]
    others: list[Wide] = [deltas[0].sum(0)]
    arriving = deltas[0] @ last.weight
    for layer, (backward, skips) in zip(reversed(step.layers[:-1]), reversed(backwards), strict=True):
        delta, parameters = backward(arriving)
        others += [delta.sum(0), *parameters]
        arriving = delta @ layer.weight + (arriving if skips else 0.0)
        deltas.insert(0, delta)
    gradients = [delta.T @ entry for delta, entry in zip(deltas, entries, strict=True)]
    return Result(
        loss=-math.fsum(logarithms[np.arange(count), step.labels]) / count,
        activations=[*activations, logits],
        deltas=[delta * count for delta in deltas],
        weight_gradients=gradients,
        gradient_norm=math.sqrt(math.fsum(float((g * g).sum()) for g in [*gradients, *others])),
    )


def _dense_hidden(network: Network, layer: Layer, output: Wide) -> tuple[Wide, Wide, Backward]:
    """From z: h, what leaves the layer, and the way back: ∂L/∂(what leaves) → ∂L/∂z and ∂L/∂(other parameters)."""
    function, slope = activation(network.activation.name, layer.slope or 0.0)
    normalized, normalize_back = _normalize(network.normalization, layer, output)
    hidden = function(normalized)
    mask = np.ones_like(hidden) if layer.mask is None else layer.mask

    def backward(arriving: Wide) -> tuple[Wide, list[Wide]]:
        at_activation = arriving * mask
        slopes = [np.array([(at_activation * np.minimum(normalized, 0)).sum()])] if layer.slope is not None else []
        delta, scales = normalize_back(at_activation * slope(normalized))
        return delta, [*slopes, *scales]

    return hidden, hidden * mask, backward


def _normalize(name: str, layer: Layer, z: Wide) -> tuple[Wide, Backward]:
    if layer.scale is None or layer.shift is None:
        return z, lambda gradient: (gradient, [])
    axis, scale = (0 if name == "batch" else 1), layer.scale
    center = z if name == "rms" else z - z.mean(axis, keepdims=True)
    size = 1.0 / np.sqrt((center * center).mean(axis, keepdims=True) + EPSILON)
    normal = center * size

    def backward(gradient: Wide) -> tuple[Wide, list[Wide]]:
        inner = gradient * scale
        along = normal * (inner * normal).mean(axis, keepdims=True)
        mean = 0.0 if name == "rms" else inner.mean(axis, keepdims=True)
        shifts = [] if name == "rms" else [gradient.sum(0)]
        return size * (inner - mean - along), [(gradient * normal).sum(0), *shifts]

    return normal * scale + layer.shift, backward


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "silu": lambda z: z * torch.sigmoid(z),
}


class Images:
    """A network on images as plain functions of float64 tensors; what is differentiated by is kept on the way."""

    def __init__(self, network: Network, step: Iteration) -> None:
        self._network = network
        self._layers = step.layers
        self._outputs: list[Tensor] = []
        self._activations: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._others: list[Tensor] = []
        self._step = step

    def result(self) -> Result:
        """Forward and back."""
        logits = self._logits(torch.from_numpy(self._step.images).view(-1, 1, 28, 28))
        loss = functional.cross_entropy(logits, torch.from_numpy(self._step.labels))
        wanted = [*self._outputs, *self._weights, *self._others]
        found = [gradient.numpy() for gradient in torch.autograd.grad(loss, wanted)]
        depth, count = len(self._layers), len(logits)
        return Result(
            loss=float(loss.detach()),
            activations=[tensor.detach().numpy() for tensor in self._activations],
            deltas=[gradient * count for gradient in found[:depth]],
            weight_gradients=found[depth : 2 * depth],
            gradient_norm=math.sqrt(math.fsum(float((g * g).sum()) for g in found[depth:])),
        )

    def _logits(self, images: Tensor) -> Tensor:
        depth, kind = len(self._layers), self._network.kind
        hidden = images
        if kind == "resnet":
            hidden = self._hidden(0, hidden, 1)
            blocks = (depth - 2) // 2
            for block in range(blocks):
                stride = 2 if block and 3 * block // blocks != 3 * (block - 1) // blocks else 1
                inner = self._hidden(2 * block + 1, hidden, stride)
                hidden = self._hidden(2 * block + 2, inner, 1, hidden[:, :, ::stride, ::stride])
        else:
            for index in range(depth - 1):
                stride = 2 if index and 3 * index // (depth - 1) != 3 * (index - 1) // (depth - 1) else 1
                after = self._hidden(index, hidden, stride)
                skips = self._network.residual and index
                hidden = after + hidden[:, :, ::stride, ::stride] if skips else after
        logits = hidden.mean((2, 3)) @ self._parameter(self._layers[-1].weight, self._weights).T
        logits = logits + self._parameter(self._layers[-1].bias, self._others)
        self._outputs.append(logits)
        self._activations.append(logits)
        return logits

    def _hidden(self, index: int, entry: Tensor, stride: int, skipped: Tensor | float = 0.0) -> Tensor:
        layer = self._layers[index]
        weight, bias = self._parameter(layer.weight, self._weights), self._parameter(layer.bias, self._others)
        output = _convolve(entry, weight, stride) + bias[:, None, None]
        self._outputs.append(output)
        hidden = _FUNCTIONS[self._network.activation.name](self._normalized(layer, output) + skipped)
        self._activations.append(hidden)
        return hidden if layer.mask is None else hidden * torch.from_numpy(layer.mask)

    def _normalized(self, layer: Layer, output: Tensor) -> Tensor:
        name = self._network.normalization
        if layer.scale is None or layer.shift is None:
            return output
        over = (0, 2, 3) if name == "batch" else (1, 2, 3)
        center = output if name == "rms" else output - output.mean(over, keepdim=True)
        normal = center / (center.square().mean(over, keepdim=True) + EPSILON).sqrt()
        normal = normal * self._parameter(layer.scale, self._others)[:, None, None]
        return normal if name == "rms" else normal + self._parameter(layer.shift, self._others)[:, None, None]

    def _parameter(self, values: Wide, among: list[Tensor]) -> Tensor:
        parameter = torch.from_numpy(values).requires_grad_()
        among.append(parameter)
        return parameter


def _convolve(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """3×3 with a border of zeros, as a sum of nine shifted products."""
    side = images.shape[2] // stride
    padded = functional.pad(images, (1, 1, 1, 1))
    return sum(  # type: ignore[return-value]  # never empty
        torch.einsum(
            "oi,bihw->bohw",
            weight[:, :, row, column],
            padded[:, :, row : row + stride * side : stride, column : column + stride * side : stride],
        )
        for row in range(3)
        for column in range(3)
    )


def twin(network: Network, step: Iteration) -> Result:
    """The twin of a network's kind."""
    return dense(network, step) if network.kind == "mlp" else Images(network, step).result()
