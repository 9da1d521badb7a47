"""When an activation counts as saturated: its slope |φ′| is under 5 % of the largest it can have.

Told by the output h where that determines the slope, by the input z for the two activations that are not monotone.
The table in words: `gradprobe.statistics.SATURATION`.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

#: (h, z) → bool, elementwise. z is only given for the activations of `NEEDS_INPUT`.
Rule = Callable[[Tensor, Tensor], Tensor]

SHARE = 0.05
NEEDS_INPUT = frozenset({"gelu", "silu"})
SELU_FLOOR = 1.0507009873554805 * 1.6732632423543772


def _never(output: Tensor, _input: Tensor) -> Tensor:
    return torch.zeros_like(output, dtype=torch.bool)


def _gelu_slope(z: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * density


def _silu_slope(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 + z * (1 - gate))


#: The largest slopes of GELU, at z = √2, and of SiLU, at z ≈ 2.3994.
GELU_LARGEST = float(_gelu_slope(torch.tensor(math.sqrt(2), dtype=torch.float64)))
SILU_LARGEST = float(_silu_slope(torch.tensor(2.3993572805154677, dtype=torch.float64)))


def _crossing(slope: Callable[[Tensor], Tensor], level: float, left: float, right: float) -> float:
    """Where the slope, monotone between `left` and `right`, crosses the level; by bisection in float64."""
    rises = float(slope(torch.tensor(right, dtype=torch.float64))) > level
    for _ in range(80):
        middle = (left + right) / 2
        above = float(slope(torch.tensor(middle, dtype=torch.float64))) > level
        left, right = (left, middle) if above == rises else (middle, right)
    return left


def _limits(slope: Callable[[Tensor], Tensor], largest: float, lowest: float) -> tuple[float, float, float]:
    """|slope| is under its share below the first, and between the second and the third.

    From the left the slope falls from 0 to its minimum, at z = `lowest`, rises through 0 and stays above the share.
    """
    level = SHARE * largest
    return (
        _crossing(slope, -level, -30.0, lowest),
        _crossing(slope, -level, lowest, 0.0),
        _crossing(slope, level, lowest, 0.0),
    )


@cache
def limits(activation: str) -> tuple[float, float, float]:
    """Of `gelu` and `silu`: z saturates below the first, and between the second and the third.

    Found when first asked for; their slopes are smallest at z = −√2 and z ≈ −2.3994.
    """
    if activation == "gelu":
        return _limits(_gelu_slope, GELU_LARGEST, -math.sqrt(2))
    return _limits(_silu_slope, SILU_LARGEST, -2.3993572805154677)


_RULES: dict[str, Rule] = {
    "sigmoid": lambda h, _: h * (1 - h) < SHARE * 0.25,
    "tanh": lambda h, _: 1 - h * h < SHARE,
    "relu": lambda h, _: h == 0,
    "prelu": _never,
    "elu": lambda h, _: h < SHARE - 1,
    "selu": lambda h, _: h < (SHARE - 1) * SELU_FLOOR,
    "gelu": lambda _, z: _gelu_slope(z).abs() < SHARE * GELU_LARGEST,
    "silu": lambda _, z: _silu_slope(z).abs() < SHARE * SILU_LARGEST,
    "softplus": lambda h, _: -torch.expm1(-h) < SHARE,
    "hardtanh": lambda h, _: h.abs() == 1,
    "identity": _never,
}


def rule(activation: str, negative_slope: float = 0.0) -> Rule:
    """The rule of an activation; raises KeyError for a name that is not in the spec."""
    if activation == "leaky_relu":
        return _RULES["identity"] if negative_slope >= SHARE else (lambda h, _: h < 0 if negative_slope else h == 0)
    return _RULES[activation]
