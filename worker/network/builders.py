"""The module that a spec describes, and the taps by which its layers are measured."""

from collections.abc import Callable

import torch
from torch import Generator, nn

from gradprobe.probe import Tap
from gradprobe.spec import AnyActivation, LeakyReLU, Network, PReLU, WeightLayer
from worker.network.initializers import initialize
from worker.network.layers import Block, Classifier, Hidden, Skipped
from worker.network.normalizations import normalization

_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
}


def build(network: Network, generator: Generator) -> Classifier:
    """The network with its initial weights, on the CPU: the same for the same generator on every device."""
    module = skeleton(network)
    begin(module, network, generator)
    return module


def begin(module: Classifier, network: Network, generator: Generator) -> None:
    """Give a network its initial weights."""
    for weight in module.layers:
        initialize(weight, network.initialization, generator)


def skeleton(network: Network) -> Classifier:
    """The network with whatever its weights' memory holds, to be given its weights by `begin`."""
    *convolutions_or_dense, output = [_weight_layer(layer) for layer in network.layers]
    hidden = [_hidden(layer, network) for layer in convolutions_or_dense]
    assert isinstance(output, nn.Linear), "the last layer is dense"  # noqa: S101 - a fact of `Network.layers`
    return Classifier(hidden, _parts(hidden, network), output)


def _weight_layer(layer: WeightLayer) -> nn.Linear | nn.Conv2d:
    # Their own initialization would draw from the global generator.
    outputs, inputs, *kernel = layer.weight_shape
    if layer.is_convolution:
        module = nn.utils.skip_init(nn.Conv2d, inputs, outputs, tuple(kernel), stride=layer.stride, padding=1)
    else:
        module = nn.utils.skip_init(nn.Linear, inputs, outputs)
    assert isinstance(module, nn.Linear | nn.Conv2d)  # noqa: S101 - skip_init is typed as Module
    return module


def _hidden(layer: nn.Linear | nn.Conv2d, network: Network) -> Hidden:
    normalized = None
    if network.normalization != "none":
        normalized = normalization(network.normalization, network.width, isinstance(layer, nn.Conv2d))
    dropout = nn.Dropout(network.dropout) if network.dropout else None
    return Hidden(layer, normalized, activation(network.activation), dropout)


def _parts(hidden: list[Hidden], network: Network) -> list[nn.Module]:
    if network.kind == "resnet":
        pairs = zip(hidden[1::2], hidden[2::2], strict=True)
        return [hidden[0], *(Block(first, second) for first, second in pairs)]
    return [
        Skipped(module) if network.residual and layer.keeps_width else module
        for module, layer in zip(hidden, network.layers[:-1], strict=True)
    ]


def activations(network: Network) -> list[tuple[str, str, float]]:
    """Of each layer its name, the activation after it, and that one's negative slope; the output layer's is none."""
    kind = network.activation
    slope = kind.negative_slope if isinstance(kind, LeakyReLU) else 0.0
    *hidden, output = network.layer_names
    return [*((name, kind.name, slope) for name in hidden), (output, "identity", 0.0)]


def taps(module: Classifier, network: Network) -> list[Tap]:
    """One tap a layer, named as the spec names them."""
    following = [*module.activations, None]
    return [
        Tap(name, layer, after, kind, slope)
        for (name, kind, slope), layer, after in zip(activations(network), module.layers, following, strict=True)
    ]


def activation(wanted: AnyActivation) -> nn.Module:
    """The module of one activation."""
    match wanted:
        case LeakyReLU():
            return nn.LeakyReLU(wanted.negative_slope)
        case PReLU():
            return nn.PReLU(init=wanted.initial_slope)
        case _:
            return _PLAIN[wanted.name]()


def device_of(wanted: str) -> torch.device:
    """`auto` takes CUDA where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
