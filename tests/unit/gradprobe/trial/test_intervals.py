"""Paired intervals: the quantiles against the integral of the density, the interval against its own definition."""

import math

import numpy as np
import pytest

from gradprobe.trial.intervals import MOST_PAIRS, paired, quantile


@pytest.mark.parametrize("degrees", range(1, MOST_PAIRS))
def test_each_quantile_leaves_two_and_a_half_percent(degrees: int) -> None:
    """With t = √ν tan θ the density becomes cosᵛ⁻¹ θ, of which no tail has to be cut off."""
    theta = np.linspace(0.0, math.atan(quantile(degrees) / math.sqrt(degrees)), 200_001)
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    below = 0.5 + constant * float(np.trapezoid(np.cos(theta) ** (degrees - 1), theta))
    assert below == pytest.approx(0.975, abs=4e-7)


def test_an_interval_is_of_the_mean_and_its_deviation() -> None:
    found = paired([0.1, 0.2, 0.6])
    assert found is not None
    half = 4.30265 * np.std([0.1, 0.2, 0.6], ddof=1) / math.sqrt(3)
    assert (found.mean, found.pairs) == (pytest.approx(0.3), 3)
    assert (found.low, found.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_it_holds_the_true_mean_in_95_of_100_cases() -> None:
    drawn = np.random.default_rng(0).normal(1.0, 2.0, (4000, 3))
    found = [paired(row.tolist()) for row in drawn]
    held = np.mean([one is not None and (one.low or 0) <= 1.0 <= (one.high or 0) for one in found])
    assert 0.94 < held < 0.96


def test_one_pair_has_no_interval_and_none_has_nothing() -> None:
    assert paired([]) is None
    single = paired([0.5])
    assert single is not None
    assert (single.mean, single.low, single.high) == (0.5, None, None)
    alike = paired([0.5, 0.5])
    assert alike is not None
    assert (alike.low, alike.high) == (0.5, 0.5)
