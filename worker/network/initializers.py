"""Initial weights and biases. Every number comes from the generator given, never from torch's global one."""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn

from gradprobe.spec import (
    AnyInitialization,
    NormalBias,
    NormalInitialization,
    ScaledInitialization,
    TorchInitialization,
    UniformInitialization,
    ZeroInitialization,
)


def initialize(layer: nn.Linear | nn.Conv2d, scheme: AnyInitialization, generator: Generator) -> None:
    """Fill a layer's weight [outputs, inputs, …] and bias [outputs] in place."""
    assert layer.bias is not None, "every weight layer has a bias"  # noqa: S101 - a fact of `builders`
    with torch.no_grad():
        match scheme:
            case ScaledInitialization():
                _SCALED[scheme.name](layer.weight, scheme.gain, generator)
            case NormalInitialization():
                layer.weight.normal_(0.0, scheme.std, generator=generator)
            case UniformInitialization():
                layer.weight.uniform_(-scheme.bound, scheme.bound, generator=generator)
            case ZeroInitialization():
                layer.weight.zero_()
            case TorchInitialization():
                bound = 1.0 / math.sqrt(_fans(layer.weight)[0])
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
                return
        _initialize_bias(layer.bias, scheme.bias, generator)


def _initialize_bias(bias: Tensor, scheme: float | NormalBias, generator: Generator) -> None:
    if isinstance(scheme, NormalBias):
        bias.normal_(0.0, scheme.std, generator=generator)
    else:
        bias.fill_(scheme)


def _fans(weight: Tensor) -> tuple[int, int]:
    positions = math.prod(weight.shape[2:])  # of a convolution's kernel
    return weight.shape[1] * positions, weight.shape[0] * positions


def _uniform(weight: Tensor, variance: float, generator: Generator) -> None:
    bound = math.sqrt(3.0 * variance)
    weight.uniform_(-bound, bound, generator=generator)


def _normal(weight: Tensor, variance: float, generator: Generator) -> None:
    weight.normal_(0.0, math.sqrt(variance), generator=generator)


Draw = Callable[[Tensor, float, Generator], None]


def _scaled(draw: Draw, variance_of: Callable[[int, int], float]) -> Draw:
    return lambda weight, gain, generator: draw(weight, gain * gain * variance_of(*_fans(weight)), generator)


def _xavier(fan_in: int, fan_out: int) -> float:
    return 2.0 / (fan_in + fan_out)  # Glorot & Bengio 2010, eq. 16


def _he(fan_in: int, _fan_out: int) -> float:
    return 2.0 / fan_in  # He et al. 2015, eq. 10


def _lecun(fan_in: int, _fan_out: int) -> float:
    return 1.0 / fan_in  # LeCun et al. 1998, eq. 16


def _orthogonal(weight: Tensor, gain: float, generator: Generator) -> None:
    nn.init.orthogonal_(weight, gain, generator=generator)  # Saxe et al. 2014


_SCALED: dict[str, Draw] = {
    "xavier_uniform": _scaled(_uniform, _xavier),
    "xavier_normal": _scaled(_normal, _xavier),
    "he_uniform": _scaled(_uniform, _he),
    "he_normal": _scaled(_normal, _he),
    "lecun_uniform": _scaled(_uniform, _lecun),
    "lecun_normal": _scaled(_normal, _lecun),
    "orthogonal": _orthogonal,
}
