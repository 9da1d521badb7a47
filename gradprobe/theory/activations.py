"""Activations as theory needs them: φ, its slope φ′, and where either has a kink.

The definitions are torch's (`gelu` in its exact form), which the networks use. At a kink the slope is that from the
left; a single point has no weight in a Gaussian expectation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from gradprobe.spec import AnyActivation, LeakyReLU, PReLU

Floats = npt.NDArray[np.float64]
Elementwise = Callable[[Floats], Floats]

_ALPHA: Final = 1.6732632423543772  # SELU's constants, Klambauer et al. 2017
_LAMBDA: Final = 1.0507009873554805

_erf: Final = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True, slots=True)
class Function:
    """φ and φ′ of arrays of any shape; `kinks` are the places where a quadrature must not step across."""

    name: str
    value: Elementwise
    slope: Elementwise
    kinks: tuple[float, ...] = ()
    #: φ(cz) = cφ(z) for c > 0: its moments scale exactly, whatever the variance.
    homogeneous: bool = False
    #: The largest slope it can have, against which saturation is told.
    largest_slope: float = 1.0


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + e⁻ˣ), without overflow at either end."""
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * x))
    return half


@lru_cache(maxsize=256)
def _leaky(name: str, slope: float) -> Function:
    return Function(
        name,
        lambda x: np.where(x > 0, x, slope * x),
        lambda x: np.where(x > 0, 1.0, slope),
        (0.0,),
        homogeneous=True,
    )


def _elu(name: str, scale: float, alpha: float) -> Function:
    return Function(
        name,
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0))),
        lambda x: scale * np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0))),
        (0.0,),
        largest_slope=scale * max(1.0, alpha),
    )


def _normal_distribution(x: Floats) -> Floats:
    found: Floats = 0.5 * (1.0 + np.asarray(_erf(x / math.sqrt(2.0)), dtype=np.float64))
    return found


def _density(x: Floats) -> Floats:
    found: Floats = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return found


def _sigmoid_slope(x: Floats) -> Floats:
    gate = sigmoid(x)
    return gate * (1.0 - gate)


def _silu_slope(x: Floats) -> Floats:
    gate = sigmoid(x)
    return gate * (1.0 + x * (1.0 - gate))


_PLAIN: Final[dict[str, Function]] = {
    function.name: function
    for function in (
        Function("sigmoid", sigmoid, _sigmoid_slope, largest_slope=0.25),
        Function("tanh", np.tanh, lambda x: 1.0 - np.tanh(x) ** 2),
        _leaky("relu", 0.0),
        _leaky("identity", 1.0),
        _elu("elu", 1.0, 1.0),
        _elu("selu", _LAMBDA, _ALPHA),
        Function(
            "gelu",
            lambda x: x * _normal_distribution(x),
            lambda x: _normal_distribution(x) + x * _density(x),
            largest_slope=1.1289,
        ),
        Function("silu", lambda x: x * sigmoid(x), _silu_slope, largest_slope=1.0998),
        Function("softplus", lambda x: np.logaddexp(0.0, x), sigmoid),
        Function(
            "hardtanh",
            lambda x: np.clip(x, -1.0, 1.0),
            lambda x: (np.abs(x) < 1.0).astype(np.float64),
            (-1.0, 1.0),
        ),
    )
}


def function_of(activation: AnyActivation) -> Function:
    """The function of a spec's activation; a PReLU is the leaky ReLU that it starts as."""
    match activation:
        case LeakyReLU():
            return _leaky("leaky_relu", activation.negative_slope)
        case PReLU():
            return _leaky("prelu", activation.initial_slope)
        case _:
            return _PLAIN[activation.name]


def named(name: str, slope: float = 0.01) -> Function:
    """By name alone: `slope` is that of `leaky_relu` and `prelu`. Raises KeyError for a name not in the spec."""
    return _leaky(name, slope) if name in ("leaky_relu", "prelu") else _PLAIN[name]
