"""Expectations over Gaussian pre-activations, by quadrature.

Gauss–Legendre over panels that end at the activation's kinks and narrow towards zero as the variance grows, so that the
error is that of rounding for variances from 1e-12 to 1e12 alike (Gauss–Hermite converges slowly at a kink).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from gradprobe.theory.activations import Floats, Function

_REACH: Final = 10.0  # standard deviations: what lies beyond weighs 1e-23
_NODES: Final = 12
_SATURATED: Final = 0.05
_LEGENDRE: Final = np.polynomial.legendre.leggauss(_NODES)
#: Where an activation bends: the panels are finest here, in units of x.
_BENDS: Final = (1.0, 3.0, 8.0, 20.0)
_PANELS: Final = (0.0, 1.0, 2.0, 3.5, 5.0, 7.0, _REACH)


@dataclass(frozen=True, slots=True)
class Moments:
    """Of h = φ(x), x ~ N(mean, variance): E[h], E[h²], E[φ′²], E[φ′⁴], and E[φ φ′ z] with z the standardized x.

    `saturated` is the probability that |φ′(x)| is under 5 % of its largest, as `statistics.SATURATION` has it.
    """

    mean: float
    second: float
    slope_second: float
    slope_fourth: float
    growth: float
    saturated: float

    @property
    def variance(self) -> float:
        """Var[h]."""
        return max(0.0, self.second - self.mean**2)


@lru_cache(maxsize=4096)
def _rule(kinks: tuple[float, ...], mean: float, deviation: float) -> tuple[Floats, Floats]:
    """Nodes z [n] and weights [n] with Σ w f(z) = E f(z), exact where f is smooth between kinks."""
    ends = {sign * end for end in _PANELS for sign in (-1.0, 1.0)}
    if deviation > 0:
        places = [*kinks, *(sign * bend for bend in _BENDS for sign in (-1.0, 1.0)), 0.0]
        ends |= {z for z in ((place - mean) / deviation for place in places) if abs(z) < _REACH}
    edges = np.array(sorted(ends))
    middle, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    points, weights = _LEGENDRE
    z = (middle[:, None] + half[:, None] * points).ravel()
    density = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return z, (half[:, None] * weights).ravel() * density


@lru_cache(maxsize=4096)
def moments(function: Function, variance: float, mean: float = 0.0) -> Moments:
    """The moments of φ(x), x ~ N(mean, variance); variance ≥ 0."""
    deviation = math.sqrt(variance)
    z, weight = _rule(function.kinks, mean, deviation)
    x = mean + deviation * z
    value, slope = function.value(x), function.slope(x)
    return Moments(
        float(weight @ value),
        float(weight @ (value * value)),
        float(weight @ (slope * slope)),
        float(weight @ slope**4),
        float(weight @ (value * slope * z)),
        float(weight[np.abs(slope) < _SATURATED * function.largest_slope].sum()),
    )


@dataclass(frozen=True, slots=True)
class Correlated:
    """E[f(x₁) f(x₂)] as a function of the correlation c of x₁ and x₂, both N(mean, variance).

    Mehler's formula: Σ aₙ² cⁿ with aₙ the coefficients in normalized Hermite polynomials; what the terms leave of
    E[f²] is given to the last power, so that c = 1 is exact.
    """

    squares: Floats

    @classmethod
    def of(
        cls, function: Function, variance: float, mean: float = 0.0, *, slope: bool = False, terms: int = 128
    ) -> "Correlated":
        """Of φ, or of φ′ where `slope` is asked for."""
        deviation = math.sqrt(variance)
        z, weight = _rule(function.kinks, mean, deviation)
        x = mean + deviation * z
        values = function.slope(x) if slope else function.value(x)
        squares = np.empty(terms + 1)
        before, polynomial = np.zeros_like(z), np.ones_like(z)
        for n in range(terms):
            squares[n] = float(weight @ (values * polynomial)) ** 2
            following = (z * polynomial - math.sqrt(n) * before) / math.sqrt(n + 1)
            before, polynomial = polynomial, following
        squares[terms] = max(0.0, float(weight @ (values * values)) - float(squares[:terms].sum()))
        return cls(squares)

    def at(self, correlation: float) -> float:
        """E[f(x₁) f(x₂)] at −1 ≤ c ≤ 1."""
        return float(np.polynomial.polynomial.polyval(correlation, self.squares))
