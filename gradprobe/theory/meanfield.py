"""Signals in infinitely wide layers: z = W h + b, h = φ(z), W ~ N(0, σ_w²/fan_in), b ~ N(0, σ_b²).

Sources: Poole et al. 2016 (length and correlation maps), Schoenholz et al. 2017 (χ₁, ξ, depth limits). `weight` is σ_w²
and `bias` is σ_b² throughout; q is the variance of z.
"""

import math
from dataclasses import dataclass
from typing import Final

from gradprobe.theory.activations import Function
from gradprobe.theory.gaussian import Correlated, moments

#: Networks are trainable to about so many correlation lengths (Schoenholz et al. 2017).
TRAINABLE_LENGTHS: Final = 6.0
#: |ln χ₁| under which a network is called critical: over a thousand layers δ² then changes less than e-fold.
CRITICAL: Final = 1e-3

_SMALLEST: Final = 1e-14
_LARGEST: Final = 1e14
_HALVINGS: Final = 90
_PRECISION: Final = 1.0 + 1e-10


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Where signals settle with depth.

    Attributes:
        q: the variance of z; infinite where it grows without bound.
        chi: χ₁ = σ_w² E[φ′²], the factor of E|δ|² a layer, backwards.
    """

    q: float
    chi: float

    @property
    def xi(self) -> float:
        """ξ = −1/ln χ₁ in layers: positive where gradients vanish, negative where they explode, else infinite."""
        return correlation_length(self.chi)

    @property
    def phase(self) -> str:
        """`ordered` (vanishing), `critical`, `chaotic` (exploding)."""
        logarithm = math.log(self.chi) if self.chi > 0 else -math.inf
        if abs(logarithm) < CRITICAL:
            return "critical"
        return "ordered" if logarithm < 0 else "chaotic"


def correlation_length(chi: float) -> float:
    """−1/ln χ; infinite at χ = 1, 0 at χ = 0."""
    if chi <= 0:
        return 0.0
    logarithm = math.log(chi)
    return math.inf if abs(logarithm) < 1e-9 else -1.0 / logarithm


def length_map(function: Function, q: float, weight: float, bias: float = 0.0, mean: float = 0.0) -> float:
    """The next layer's variance of z: σ_w² E[φ(√q z)²] + σ_b²."""
    return weight * moments(function, q, mean).second + bias


def chi(function: Function, q: float, weight: float, mean: float = 0.0) -> float:
    """χ₁ at a variance q: σ_w² E[φ′(√q z)²]."""
    return weight * moments(function, q, mean).slope_second


def singular_value_spread(function: Function, q: float, mean: float = 0.0, *, orthogonal: bool = False) -> float:
    """What a layer adds to Var[s²]/E[s²]² of the Jacobian's singular values s: E[φ′⁴]/E[φ′²]² − 1 − s₁.

    s₁ is −1 for Gaussian weights and 0 for orthogonal ones (Pennington et al. 2017). 0 is dynamical isometry: a signal
    keeps its length whatever its direction; at ξ = ∞ the mean alone does.
    """
    found = moments(function, q, mean)
    if found.slope_second <= 0:
        return math.inf
    return found.slope_fourth / found.slope_second**2 - (1.0 if orthogonal else 0.0)


def fixed_point(
    function: Function, weight: float, bias: float = 0.0, mean: float = 0.0, start: float = 1.0
) -> FixedPoint:
    """Where the length map settles from a variance `start`; a biases' constant `mean` moves the activation's input.

    A homogeneous activation at its critical weights keeps any variance: the answer is then `start` itself.
    """
    if function.homogeneous and bias == 0.0 and mean == 0.0:
        # The map is linear: q → λq, and χ is the same at every q.
        growth = length_map(function, 1.0, weight)
        settled = start if abs(growth - 1.0) < 1e-12 else 0.0 if growth < 1.0 else math.inf
        return FixedPoint(settled, chi(function, 1.0, weight))
    q = _settled(function, weight, bias, mean, start)
    return FixedPoint(q, chi(function, min(q, _LARGEST), weight, mean))


def _settled(function: Function, weight: float, bias: float, mean: float, start: float) -> float:
    def rises(q: float) -> bool:
        return length_map(function, q, weight, bias, mean) > q

    # The first fixed point met on the way from `start`: stable, because the map comes to it from one side.
    low = high = start
    if rises(start):
        while rises(high):
            low, high = high, high * 2.0
            if high > _LARGEST:
                return math.inf
    else:
        while not rises(low):
            low, high = low / 2.0, low
            if low < _SMALLEST:
                return 0.0
    while high / low > _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if rises(middle) else (low, middle)
    return math.sqrt(low * high)


def variance_length(function: Function, q: float, weight: float) -> float:
    """ξ_q: over how many layers the variance settles; −1/ln(dq′/dq), the slope by Stein's lemma σ_w² E[φφ′z]/√q."""
    return correlation_length(weight * moments(function, q).growth / math.sqrt(q))


@dataclass(frozen=True, slots=True)
class CorrelationPoint:
    """Where the correlation of two inputs settles: c*, and over how many layers (ξ_c)."""

    c: float
    xi: float


def correlation_point(function: Function, weight: float, bias: float, q: float) -> CorrelationPoint:
    """c* and ξ_c = −1/ln(σ_w² E[φ′(x₁)φ′(x₂)]) at the fixed point q (Poole et al. 2016, eq. 7)."""
    value, slope = Correlated.of(function, q), Correlated.of(function, q, slope=True)

    def mapped(c: float) -> float:
        return (weight * value.at(c) + bias) / q

    settled = 1.0
    if weight * slope.at(1.0) > 1.0 + CRITICAL:  # chaotic: c = 1 repels
        low, high = 0.0, 1.0 - 1e-9
        for _ in range(_HALVINGS if mapped(0.0) > 0 else 0):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if mapped(middle) > middle else (low, middle)
        settled = 0.5 * (low + high) if mapped(0.0) > 0 else 0.0
    return CorrelationPoint(settled, correlation_length(weight * slope.at(settled)))


def critical_weight(function: Function, bias: float, mean: float = 0.0) -> tuple[float, float]:
    """(σ_w², q*) on the critical line χ₁ = 1, for a given σ_b² and constant bias `mean`; NaN where there is none.

    On the line σ_w² = 1/E[φ′²] and σ_b² = q − σ_w² E[φ²], both functions of q alone.
    """
    if function.homogeneous and bias == 0.0 and mean == 0.0:
        return 1.0 / moments(function, 1.0).slope_second, math.nan

    def bias_at(q: float) -> float:
        found = moments(function, q, mean)
        return q - found.second / found.slope_second if found.slope_second > 0 else math.inf

    low, high = 1e-9, 1.0
    if bias_at(low) >= bias:
        slope_second = moments(function, 0.0, mean).slope_second
        return (1.0 / slope_second, 0.0) if bias == 0.0 and slope_second > 0 else (math.nan, math.nan)
    while bias_at(high) < bias:
        high *= 4.0
        if high > _LARGEST:
            return math.nan, math.nan
    while high / low > _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if bias_at(middle) < bias else (low, middle)
    q = math.sqrt(low * high)
    return 1.0 / moments(function, q, mean).slope_second, q


def batch_normalized_rate(function: Function) -> float:
    """χ through batch normalization of a large batch: E[φ′(z)²] / Var[φ(z)], never under 1 (Yang et al. 2019)."""
    found = moments(function, 1.0)
    return found.slope_second / found.variance


def layer_normalized_rate(function: Function) -> float:
    """χ through layer or rms normalization of a wide layer: E[φ′(z)²] / E[φ(z)²], whatever the weights' scale."""
    found = moments(function, 1.0)
    return found.slope_second / found.second
