"""What an initialization comes to: the variance of one weight and of one bias, layer by layer."""

import math
from dataclasses import dataclass
from typing import Final

from gradprobe.spec import (
    AnyActivation,
    AnyInitialization,
    LeakyReLU,
    NormalBias,
    NormalInitialization,
    PReLU,
    ScaledInitialization,
    TorchInitialization,
    UniformInitialization,
    WeightLayer,
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """One layer's initial numbers.

    Attributes:
        weight: variance of one weight.
        bias_variance: variance of one bias.
        bias_mean: the constant that all biases are.
    """

    weight: float
    bias_variance: float
    bias_mean: float


def fans(layer: WeightLayer) -> tuple[int, int]:
    """(fan_in, fan_out); those of a convolution count its nine positions."""
    outputs, inputs, *kernel = layer.weight_shape
    positions = math.prod(kernel)
    return inputs * positions, outputs * positions


def drawn(scheme: AnyInitialization, layer: WeightLayer) -> Drawn:
    """The variances that `initialize` draws with (Glorot & Bengio 2010, He et al. 2015, LeCun et al. 1998).

    Of a layer that was measured: its own.
    """
    if layer.drawn is not None:
        return Drawn(*layer.drawn)
    fan_in, _ = fans(layer)
    if isinstance(scheme, TorchInitialization):
        return Drawn(1.0 / (3.0 * fan_in), 1.0 / (3.0 * fan_in), 0.0)
    match scheme:
        case ScaledInitialization():
            weight = scheme.gain**2 * _scaled(scheme.name, layer)
        case NormalInitialization():
            weight = scheme.std**2
        case UniformInitialization():
            weight = scheme.bound**2 / 3.0
        case _:
            weight = 0.0
    if isinstance(scheme.bias, NormalBias):
        return Drawn(weight, scheme.bias.std**2, 0.0)
    return Drawn(weight, 0.0, scheme.bias)


def _scaled(name: str, layer: WeightLayer) -> float:
    fan_in, fan_out = fans(layer)
    if name.startswith("xavier"):
        return 2.0 / (fan_in + fan_out)
    if name == "orthogonal":
        # Orthonormal rows or columns, whichever are fewer, of the matrix [outputs, everything else].
        return 1.0 / max(layer.weight_shape[0], fan_in)
    return (2.0 if name.startswith("he") else 1.0) / fan_in


#: σ_w² = fan_in · Var W of the initialization that is usual for an activation: He et al. 2015 for those that pass one
#: half of the line, LeCun et al. 1998 for the others (for SELU: Klambauer et al. 2017).
_USUAL: Final = {"relu": 2.0, "gelu": 2.0, "silu": 2.0, "softplus": 2.0}


def usual_weight(activation: AnyActivation) -> float:
    """σ_w² of the usual initialization for an activation: 2 for ReLU, 2/(1 + a²) for a leaky one, 1 for tanh."""
    match activation:
        case LeakyReLU():
            return 2.0 / (1.0 + activation.negative_slope**2)
        case PReLU():
            return 2.0 / (1.0 + activation.initial_slope**2)
        case _:
            return _USUAL.get(activation.name, 1.0)
