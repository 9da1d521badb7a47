"""The probe's reductions on adversarial arrays, against correctly rounded sums in pure Python."""

import math
import random

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradprobe import histogram
from gradprobe.probe import reduce, saturation
from gradprobe.statistics import DISTRIBUTION, SATURATION
from tests.numerics.reference import NAN, differences, distribution

Array = npt.NDArray[np.float32]

#: float64 sums over at most a few hundred elements.
FLOAT64_SUMS = 1e-12

ORDINARY = st.floats(-1e3, 1e3, width=32)
TINY = st.floats(-(2.0**-100), 2.0**-100, width=32)
HUGE = st.floats(2.0**120, float(np.finfo(np.float32).max), width=32).flatmap(lambda x: st.sampled_from([x, -x]))
SUBNORMAL = st.sampled_from([2.0**-149, -(2.0**-149), 2.0**-127, -(2.0**-126) + 2.0**-149])
SPECIAL = st.sampled_from([0.0, -0.0, math.inf, -math.inf, NAN])
FINITE = ORDINARY | TINY | HUGE | SUBNORMAL | st.sampled_from([0.0, -0.0])
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 40))


@st.composite
def rows(draw: st.DrawFn, kinds: st.SearchStrategy[float] | None = None) -> torch.Tensor:
    """Elements [S, N]: mixed, of one kind, constant, cancelling, or with whole rows of NaN; maybe not contiguous."""
    shape = draw(SHAPES)
    if kinds is not None:
        kind = kinds
    else:
        kind = draw(st.sampled_from([ORDINARY, TINY, HUGE, SUBNORMAL, FINITE, FINITE | SPECIAL, SPECIAL]))
    values = draw(arrays.arrays(np.float32, shape, elements=kind))
    match draw(st.sampled_from(["as drawn", "constant", "cancelling", "rows of NaN"])):
        case "constant":
            values[:] = values[0, 0]
        case "cancelling":
            values = np.concatenate([values, -values], axis=1)
        case "rows of NaN" if kinds is None:
            values[draw(st.integers(0, shape[0] - 1))] = NAN
    return strided(draw(st.sampled_from(["contiguous", "columns", "transposed", "rows"])), torch.from_numpy(values))


def strided(layout: str, values: torch.Tensor) -> torch.Tensor:
    """The same elements, laid out otherwise in memory, among others that must not be read."""
    match layout:
        case "columns":
            padded = torch.full((len(values), 2 * values.shape[1]), 7.0)
            padded[:, ::2] = values
            return padded[:, ::2]
        case "transposed":
            return values.t().contiguous().t()
        case "rows":
            padded = torch.full((2 * len(values), values.shape[1] + 3), 7.0)
            padded[::2, 3:] = values
            return padded[::2, 3:]
    return values


#: Whether the host looks at what is finite.
LOOKING = st.booleans()


def elements_of(row: torch.Tensor) -> list[float]:
    return [float(element) for element in row]


def named(column: torch.Tensor) -> dict[str, float]:
    return dict(zip((statistic.name for statistic in DISTRIBUTION), column.tolist(), strict=True))


@given(rows(), LOOKING)
def test_distribution(elements: torch.Tensor, looking: bool) -> None:
    reduced = reduce.distribution(elements, looking)
    assert reduced.dtype == torch.float64
    for number, row in enumerate(elements):
        actual, expected = named(reduced[:, number]), distribution(elements_of(row))
        assert not differences(actual, expected, FLOAT64_SUMS)


@given(rows(), LOOKING)
def test_mean_and_std(elements: torch.Tensor, looking: bool) -> None:
    for number, row in enumerate(elements):
        expected = distribution(elements_of(row))
        mean, std = reduce.mean_and_std(elements, looking)[:, number].tolist()
        assert not differences(expected | {"mean": mean, "std": std}, expected, FLOAT64_SUMS)


@given(rows(), LOOKING)
def test_norm_is_finite_only_where_every_element_is(elements: torch.Tensor, looking: bool) -> None:
    for norm, row in zip(reduce.norm(elements, looking).tolist(), elements, strict=True):
        expected = distribution(elements_of(row))
        if expected["nonfinite_count"]:
            assert not math.isfinite(norm)
        else:
            assert norm == pytest.approx(expected["norm"], rel=FLOAT64_SUMS)


@given(rows())
def test_histogram_counts_exactly(elements: torch.Tensor) -> None:
    counts = reduce.histogram(elements)
    for counted, row in zip(counts.numpy(), elements, strict=True):
        np.testing.assert_array_equal(counted, histogram.count(row.contiguous().numpy()))
        assert {number: int(counted[number]) for number in np.flatnonzero(counted)} == slow_counts(elements_of(row))


def slow_counts(elements: list[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for element in elements:
        number = slow_bin(element)
        counts[number] = counts.get(number, 0) + 1
    return counts


def slow_bin(element: float) -> int:
    """By comparing with bounds, without a look at the float's bits."""
    if math.isnan(element):
        return histogram.NOT_A_NUMBER
    if math.isinf(element):
        return histogram.POSITIVE_INFINITY if element > 0 else histogram.NEGATIVE_INFINITY
    if element == 0:
        return histogram.ZERO
    sign = histogram.SIGN if element < 0 else 0
    if abs(element) < 2.0**-126:
        return sign | histogram.POSITIVE_SUBNORMAL
    octave = math.floor(math.log2(abs(element)))
    octave += (abs(element) >= 2.0 ** (octave + 1)) - (abs(element) < 2.0**octave)
    eighth = sum(abs(element) >= (1 + part / 8) * 2.0**octave for part in range(1, 8))
    return sign | (octave + 127) * 8 + eighth


@given(rows(FINITE), st.data(), LOOKING)
def test_update_ratio(before: torch.Tensor, data: st.DataObject, looking: bool) -> None:
    after = data.draw(arrays.arrays(np.float32, tuple(before.shape), elements=FINITE))
    ratios = reduce.update_ratio(before, torch.from_numpy(after), looking).tolist()
    for ratio, old, new in zip(ratios, before, after, strict=True):
        assert ratio == pytest.approx(slow_ratio(elements_of(old), new.tolist()), rel=FLOAT64_SUMS)


def slow_ratio(old: list[float], new: list[float]) -> float:
    changed = math.sqrt(math.fsum((after - before) ** 2 for before, after in zip(old, new, strict=True)))
    size = math.sqrt(math.fsum(before * before for before in old))
    if changed == 0:
        return 0.0
    return changed / size if size else math.inf


@pytest.mark.parametrize("looking", [True, False])
def test_update_ratio_where_weights_are_no_longer_finite(looking: bool) -> None:
    before = torch.tensor([[3.0, NAN, 4.0], [3.0, math.inf, 4.0], [3.0, 0.0, 4.0], [NAN, NAN, math.inf], [3.0, 0, 4]])
    after = torch.tensor([[3.0, NAN, 9.0], [3.0, 1.0, 4.0], [3.0, math.inf, 4.0], [NAN, 1.0, 2.0], [3.0, NAN, 4.0]])
    ratios = reduce.update_ratio(before, after, looking).tolist()
    assert ratios == pytest.approx([1.0, 0.0, math.inf, NAN, NAN], nan_ok=True)


@given(rows(), st.randoms(use_true_random=False))
def test_share(elements: torch.Tensor, randomness: random.Random) -> None:
    chosen = torch.tensor([[randomness.random() < 0.4 for _ in row] for row in elements])
    for share, flags, row in zip(reduce.share(chosen, elements).tolist(), chosen, elements, strict=True):
        finite = [bool(flag) for flag, element in zip(flags, row, strict=True) if math.isfinite(element)]
        assert share == (sum(finite) / len(finite) if finite else pytest.approx(NAN, nan_ok=True))


@given(arrays.arrays(np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.sampled_from([0.0, -0.0, 1.0, NAN])))
def test_dead_fraction(activations: Array) -> None:
    dead = reduce.dead_fraction(torch.from_numpy(activations)).tolist()
    for share, batch in zip(dead, activations.tolist(), strict=True):
        units = list(zip(*batch, strict=True))
        if all(math.isnan(element) for unit in units for element in unit):
            assert math.isnan(share)
        else:
            assert share == sum(all(element == 0 for element in unit) for unit in units) / len(units)


@pytest.mark.parametrize("looking", [True, False])
def test_many_rows_are_reduced_in_pieces_that_fit_together(looking: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    elements = torch.randn(7, 400_000, generator=generator) * 1e-20
    elements[4, 17] = math.inf
    wide = elements.numpy().astype(np.longdouble)
    wide[4, 17] = 0
    counts = np.full(7, 400_000.0)
    counts[4] -= 1
    mean = wide.sum(1) / counts
    reduced = reduce.distribution(elements, looking).numpy()
    np.testing.assert_allclose(reduced[0], np.abs(wide).sum(1) / counts, rtol=FLOAT64_SUMS)
    np.testing.assert_allclose(reduced[1], mean, atol=1e-32)
    np.testing.assert_allclose(reduced[3], np.sqrt((wide * wide).sum(1)), rtol=FLOAT64_SUMS)
    np.testing.assert_allclose(reduced[4], np.abs(wide).max(1), rtol=0)
    assert reduced[6].tolist() == [0, 0, 0, 0, 1, 0, 0]
    ratios = reduce.update_ratio(elements[:4], elements[:4] * 1.5, looking)
    np.testing.assert_allclose(ratios, 0.5, rtol=1e-6)
    histograms = reduce.histogram(elements)
    assert histograms.sum(1).tolist() == [400_000] * 7
    np.testing.assert_array_equal(histograms[6], histogram.count(elements[6].numpy()))


def test_every_activation_has_a_rule_and_no_more() -> None:
    for name in SATURATION:
        shares = saturation.rule(name)(torch.tensor([0.5]), torch.tensor([0.5]))
        assert shares.dtype == torch.bool
    with pytest.raises(KeyError):
        saturation.rule("swish")


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 1.0), (0.049, 1.0), (0.05, 0.0), (0.3, 0.0)])
def test_a_leaky_slope_counts_as_saturated_under_five_percent(slope: float, expected: float) -> None:
    outputs = torch.nn.functional.leaky_relu(torch.linspace(-9.0, -0.1, 50), slope)[None]
    assert reduce.share(saturation.rule("leaky_relu", slope)(outputs, outputs), outputs).item() == expected
