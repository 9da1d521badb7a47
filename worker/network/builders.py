"""The module that a spec describes, and the taps by which its layers are measured."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from gradprobe.probe import Tap
from gradprobe.spec import AnyActivation, LeakyReLU, Network, PReLU
from worker.network.initializers import initialize

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


class MLP(nn.Module):
    """Dense layers with an activation after each but the last, whose outputs are the classes' logits."""

    def __init__(self, layers: list[nn.Linear], activations: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activations = nn.ModuleList(activations)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 784] → logits [B, 10]."""
        hidden = images
        for layer, activation in zip(self.layers, self.activations, strict=False):
            hidden = activation(layer(hidden))
        logits: Tensor = self.layers[-1](hidden)
        return logits


def build(network: Network, generator: Generator) -> MLP:
    """The network with its initial weights, on the CPU: the same for the same generator on every device."""
    layers = []
    for outputs, inputs in network.layer_shapes:
        # Linear's own initialization would draw from the global generator.
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        assert isinstance(layer, nn.Linear)  # noqa: S101 - skip_init is typed as Module
        initialize(layer, network.initialization, generator)
        layers.append(layer)
    return MLP(layers, [_activation(network.activation) for _ in layers[:-1]])


def taps(module: MLP, network: Network) -> list[Tap]:
    """One tap a layer, named as the spec names them."""
    activation = network.activation
    slope = activation.negative_slope if isinstance(activation, LeakyReLU) else 0.0
    hidden = [
        Tap(name, layer, following, activation.name, slope)
        for name, layer, following in zip(network.layer_names, module.layers, module.activations, strict=False)
    ]
    return [*hidden, Tap(network.layer_names[-1], module.layers[-1])]


def _activation(activation: AnyActivation) -> nn.Module:
    match activation:
        case LeakyReLU():
            return nn.LeakyReLU(activation.negative_slope)
        case PReLU():
            return nn.PReLU(init=activation.initial_slope)
        case _:
            return _PLAIN[activation.name]()


def device_of(wanted: str) -> torch.device:
    """`auto` takes CUDA where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
