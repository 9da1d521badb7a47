"""From a survey of somebody's module to what the diagnosis reads: layers, activations, and whether theory knows it."""

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from gradprobe.parts.activation import AnyActivation, LeakyReLU, PlainActivation
from gradprobe.parts.watched import MAXIMUM_LAYERS, MAXIMUM_MOMENT, WatchedInputs, WatchedLayer, WatchedNetwork
from gradprobe.probe.graph import Layer, Survey

#: What may come, in this order, between a hidden layer and the next one in a chain that theory knows.
_ORDER: Final = ("batch", "layer", "activation", "dropout")


def describe(module: nn.Module, found: Survey) -> tuple[WatchedNetwork, WatchedInputs]:
    """What is known before the first update; output shapes follow with the first backward pass.

    Call it before the backward pass frees what the graph saved.
    """
    layers = found.layers
    entry = layers[0].entry
    normalization = next((step for layer in layers for step in layer.between if step in ("batch", "layer")), "none")
    unknown = _unknown(layers)
    dropout = _dropout(module, layers)
    if unknown is None and dropout is None:
        unknown, dropout = "its dropout layers have different probabilities", 0.0
    network = WatchedNetwork(
        module=type(module).__name__[:200],
        measured=tuple(_layer(layer) for layer in layers),
        normalization="batch" if normalization == "batch" else "layer" if normalization == "layer" else "none",
        dropout=dropout or 0.0,
        unknown=unknown,
        left_out=tuple(text[:300] for text in found.left_out[:MAXIMUM_LAYERS]),
    )
    return network, _moments(entry)


def with_shapes(network: WatchedNetwork, deltas: Sequence[Tensor | None]) -> WatchedNetwork:
    """The same network with each layer's output shape, as δ of its first backward pass has it."""
    measured = [
        layer.model_copy(update={"output_shape": tuple(delta.shape[1:]) or (1,)}) if delta is not None else layer
        for layer, delta in zip(network.measured, deltas, strict=True)
    ]
    return network.model_copy(update={"measured": tuple(measured)})


def _layer(layer: Layer) -> WatchedLayer:
    weight, bias = layer.weight.detach(), layer.bias
    shape = tuple(weight.shape)
    biases = bias.detach().double() if bias is not None else None
    return WatchedLayer(
        name=layer.name.replace(",", "_")[:200],
        weight_shape=shape,
        output_shape=(shape[0],),
        activation=_activation(layer),
        weight_variance=_finite(weight.double().square().mean()),
        bias_variance=_finite(biases.var(correction=0)) if biases is not None else 0.0,
        bias_mean=_finite(biases.mean()) if biases is not None else 0.0,
    )


def _activation(layer: Layer) -> AnyActivation | None:
    found = layer.activation
    if found is None:
        return None
    if found.name == "leaky_relu":
        return LeakyReLU(name="leaky_relu", negative_slope=min(max(found.negative_slope, 0.0), 1.0))
    document: dict[str, Any] = {"name": found.name}
    return PlainActivation.model_validate(document)


def _finite(value: Tensor) -> float:
    number = float(value)
    return min(max(number, -MAXIMUM_MOMENT), MAXIMUM_MOMENT) if math.isfinite(number) else 0.0


def _moments(entry: Tensor | None) -> WatchedInputs:
    if entry is None or not entry.is_floating_point():
        return WatchedInputs()
    values = entry.detach().double()
    varies = values.var(dim=0, correction=0).mean() if len(values) > 1 else torch.zeros(())
    return WatchedInputs(mean=_finite(values.mean()), second=_finite(values.square().mean()), centered=_finite(varies))


def _unknown(layers: Sequence[Layer]) -> str | None:
    """Why mean-field theory can't speak of it: it knows a chain of dense layers with one activation."""
    for layer in layers:
        if layer.node.name() == "ConvolutionBackward0":
            return f"{layer.name} is a convolution"
        if layer.broken is not None:
            return layer.broken
    *hidden, last = layers
    if last.activation is not None or last.between != ["output"]:
        return f"an operation follows the last layer, {last.name}"
    if layers[0].node.next_functions[_entry_edge(layers[0])][0] is not None:
        return f"something that is trained comes before the first layer, {layers[0].name}"
    if any(layer.between[-1:] != ["next layer"] for layer in hidden):
        return "its layers are no single chain"
    return _unlike(hidden)


def _unlike(hidden: Sequence[Layer]) -> str | None:
    """Why the hidden layers are not all of one kind, as theory wants them."""
    names = {(layer.activation.name, layer.activation.negative_slope) if layer.activation else None for layer in hidden}
    if len(names) > 1:
        return "its layers have different activations"
    forms = {tuple(step for step in layer.between if step not in ("next layer", "dropout")) for layer in hidden}
    if len(forms) > 1:
        return "only some of its layers are normalized"
    for form in forms:
        places = [_ORDER.index(step) for step in form]
        if places != sorted(set(places)):
            return "its normalization comes after the activation"
    return None


def _entry_edge(layer: Layer) -> int:
    return 1 if layer.node.name() == "AddmmBackward0" else 0


def _dropout(module: nn.Module, layers: Sequence[Layer]) -> float | None:
    """The probability that all dropout layers share; None where they do not share one."""
    seen = ["dropout" in layer.between for layer in layers[:-1]]
    if not any(seen):
        return 0.0
    shares = {child.p for child in module.modules() if isinstance(child, nn.Dropout) and child.p > 0}
    return float(shares.pop()) if len(shares) == 1 and all(seen) else None
