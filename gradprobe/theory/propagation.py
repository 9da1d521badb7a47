"""Second moments through one network: forwards of z and h, backwards of δ = ∂L/∂z, layer by layer.

Widths, fans, the data's scale, normalizations, skip connections and dropout are this network's own; that layers are
wide, that W is independent of what passes through it, and that forward and backward signals are independent of each
other are mean-field theory's assumptions. All moments are per unit, over weights and samples.
"""

import math
from dataclasses import dataclass

from gradprobe.spec import WeightLayer
from gradprobe.subject import AnyNetwork
from gradprobe.theory.activations import Function, function_of
from gradprobe.theory.gaussian import Moments, moments
from gradprobe.theory.inputs import Inputs, LossGradient, loss_gradient
from gradprobe.theory.weights import Drawn, drawn, fans

_EPSILON = 1e-5  # of every normalization


@dataclass(frozen=True, slots=True)
class Signal:
    """What enters a layer, per unit: E[h], E[h²], and h's variance over the samples."""

    mean: float
    second: float
    centered: float


@dataclass(frozen=True, slots=True)
class Forward:
    """One layer on the way forwards.

    Attributes:
        drawn: its initial numbers.
        entry: what enters it.
        z_mean: E[z], the constant bias.
        z_variance: the variance of z.
        scale: what a normalization multiplies squared gradients with, 1/σ²; 1 without one.
        slope_second: E[φ′²] where its activation is; 1 for the output layer.
        saturated: expected saturated share.
        out: what leaves the layer.
    """

    drawn: Drawn
    entry: Signal
    z_mean: float
    z_variance: float
    scale: float
    slope_second: float
    saturated: float
    out: Signal


@dataclass(frozen=True, slots=True)
class Passage:
    """A whole network: each layer's forward moments, the loss at the start, and E[δ²] per unit of each layer."""

    layers: list[WeightLayer]
    forward: list[Forward]
    loss: LossGradient
    delta_second: list[float]
    function: Function

    def squared_norm(self, index: int) -> float:
        """E‖δ‖² of one sample, of a layer."""
        return self.delta_second[index] * math.prod(self.layers[index].output_shape)


def propagate(network: AnyNetwork, inputs: Inputs) -> Passage:
    """Second moments of a network at its initialization."""
    layers, function = network.layers, function_of(network.activation)
    signal = Signal(inputs.mean, inputs.second, inputs.centered)
    forward: list[Forward] = []
    # A resnet's skip connection goes around two layers and comes before the second's activation.
    skipped: Signal | None = None
    for index, layer in enumerate(layers[:-1]):
        if network.kind == "resnet" and index % 2 == 1:
            skipped = signal
        joins = skipped if network.kind == "resnet" and index and index % 2 == 0 else None
        found = _hidden(network, layer, function, signal, joins)
        forward.append(found)
        signal = found.out
        if network.residual and layer.keeps_width:
            signal = _added(found.entry, found.out)
    forward.append(_output(network, layers[-1], signal))
    loss = loss_gradient(forward[-1].z_variance)
    return Passage(layers, forward, loss, _backward(network, layers, forward, loss), function)


def _z_variance(layer: WeightLayer, weights: Drawn, second: float) -> float:
    return weights.weight * fans(layer)[0] * second * _inside(layer) + weights.bias_variance


def _inside(layer: WeightLayer) -> float:
    """The share of a 3×3 window that lies inside the image, averaged over positions; 1 for a dense layer."""
    if not layer.is_convolution:
        return 1.0
    side = layer.output_shape[1]
    rows = (3 * side - (2 if layer.stride == 1 else 1)) / (3 * side)
    return rows * rows


def _hidden(
    network: AnyNetwork, layer: WeightLayer, function: Function, entry: Signal, joins: Signal | None
) -> Forward:
    weights = drawn(network.initialization, layer)
    variance, mean = _z_variance(layer, weights, entry.second), weights.bias_mean
    scale, entering, entering_mean = 1.0, variance, mean
    if network.normalization != "none":
        over = variance
        if network.normalization == "batch":
            over = weights.weight * fans(layer)[0] * entry.centered * _inside(layer)
        elif network.normalization == "rms":
            over = variance + mean * mean
        scale = 1.0 / (over + _EPSILON)
        entering = over * scale if network.normalization != "rms" else variance * scale
        entering_mean = mean * math.sqrt(scale) if network.normalization == "rms" else 0.0
    if joins is not None:
        entering, entering_mean = entering + joins.second - joins.mean**2, entering_mean + joins.mean
    found = moments(function, min(entering, 1e14), entering_mean)
    kept = 1.0 - network.dropout
    out = Signal(found.mean, found.second / kept, _varies(network, layer, entry, found) / kept)
    return Forward(weights, entry, mean, variance, scale, found.slope_second / kept, found.saturated, out)


def _varies(network: AnyNetwork, layer: WeightLayer, entry: Signal, found: Moments) -> float:
    """h's variance over the samples: all of Var[φ] behind batch normalization, else in the entry's proportion."""
    if network.normalization == "batch" or entry.second <= 0:
        return found.variance
    return found.variance * min(1.0, entry.centered / entry.second)


def _added(entry: Signal, found: Signal) -> Signal:
    """A skip connection: h + φ(z), independent of each other but for their means."""
    cross = 2.0 * entry.mean * found.mean
    return Signal(entry.mean + found.mean, entry.second + found.second + cross, entry.centered + found.centered)


def _output(network: AnyNetwork, layer: WeightLayer, entry: Signal) -> Forward:
    weights = drawn(network.initialization, layer)
    variance = _z_variance(layer, weights, entry.second)
    return Forward(weights, entry, weights.bias_mean, variance, 1.0, 1.0, 0.0, entry)


def _backward(
    network: AnyNetwork, layers: list[WeightLayer], forward: list[Forward], loss: LossGradient
) -> list[float]:
    seconds = [0.0] * len(layers)
    outputs = layers[-1].weight_shape[0]
    seconds[-1] = loss.squared_norm / outputs
    positions = math.prod(layers[-2].output_shape[1:]) if len(layers) > 1 else 1
    # E[(∂L/∂h)²] of what leaves the layer below; a mean over an image's positions shares it out among them.
    gradient = forward[-1].drawn.weight * outputs * seconds[-1] / positions**2
    past_block = 0.0  # what a resnet's skip connection carries past its block
    for index in range(len(layers) - 2, -1, -1):
        here = forward[index]
        before_activation = here.slope_second * gradient
        seconds[index] = before_activation * here.scale
        below = here.drawn.weight * _reached(layers[index]) * seconds[index]
        if network.kind == "resnet" and index and index % 2 == 0:
            past_block, gradient = before_activation, below
        elif network.kind == "resnet" and index % 2 == 1:
            gradient = below + past_block / layers[index].stride ** 2
        elif network.residual and layers[index].keeps_width:
            gradient = gradient / max(layers[index].stride, 1) ** 2 + below
        else:
            gradient = below
    return seconds


def _reached(layer: WeightLayer) -> float:
    """How many of a layer's outputs one of its inputs reaches, on average."""
    if not layer.is_convolution:
        return float(layer.weight_shape[0])
    return layer.weight_shape[0] * 9.0 * _inside(layer) / layer.stride**2
