"""The logarithmic grid against slow, independent twins in float64 that never look at a float's bits."""

import bisect
import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradprobe import histogram
from gradprobe.histogram import BINS, INTERVALS

Values = npt.NDArray[np.float32]

SMALLEST_NORMAL = 2.0**-126
#: Every bit pattern a float32 can have: subnormals, both zeros, both infinities, every NaN.
BITS = arrays.arrays(np.uint32, st.integers(0, 300), elements=st.integers(0, 2**32 - 1))
#: The first and last of each kind, and the numbers either side of a bin's edge, of both signs.
SPECIAL = st.builds(
    int.__or__,
    st.sampled_from(
        [
            0,
            1,
            0x007FFFFF,
            0x00800000,
            0x3F8FFFFF,
            0x3F900000,
            0x7F7FFFFF,
            0x7F800000,
            0x7F800001,
            0x7FC00000,
            0x7FFFFFFF,
        ]
    ),
    st.sampled_from([0, 0x80000000]),
)
MIXED = arrays.arrays(np.uint32, st.integers(1, 60), elements=st.integers(0, 2**32 - 1) | SPECIAL)
NORMAL = st.floats(SMALLEST_NORMAL, float(np.finfo(np.float32).max), width=32)
NORMAL_VALUES = arrays.arrays(
    np.float32, st.integers(1, 200), elements=NORMAL | NORMAL.map(lambda x: -x) | st.just(0.0)
)


def slow_bin(value: float) -> int:
    """The bin by definition: sign, octave, eighth of the octave."""
    if math.isnan(value):
        return histogram.NOT_A_NUMBER
    if value == 0.0:
        return histogram.ZERO
    sign = 2048 if value < 0 else 0
    if math.isinf(value):
        return sign + 2040
    if abs(value) < SMALLEST_NORMAL:
        return sign + 1
    fraction, power = math.frexp(abs(value))  # |value| = fraction · 2^power, ½ ≤ fraction < 1
    octave, eighth = power - 1, math.floor((2.0 * fraction - 1.0) * 8.0)
    return sign + (octave + 127) * 8 + eighth


def bins_that_hold(value: float) -> list[int]:
    """Every interval bin whose bounds hold `value`, found by comparing with each of them."""
    held = []
    for number in INTERVALS:
        low, high = histogram.bounds(int(number))
        if low <= value < high if value > 0 else low < value <= high:
            held.append(int(number))
    return held


@given(BITS)
def test_every_float32_is_in_the_bin_of_its_definition(bits: npt.NDArray[np.uint32]) -> None:
    values = bits.view(np.float32)
    assert histogram.bin_numbers(values).tolist() == [slow_bin(float(value)) for value in values]


@given(MIXED)
def test_special_values_are_in_the_bin_of_their_definition(bits: npt.NDArray[np.uint32]) -> None:
    values = bits.view(np.float32)
    assert histogram.bin_numbers(values).tolist() == [slow_bin(float(value)) for value in values]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False).filter(bool))
def test_a_finite_value_is_within_the_bounds_of_its_bin_and_of_no_other(value: float) -> None:
    assert bins_that_hold(value) == histogram.bin_numbers(np.array([value], np.float32)).tolist()


def test_both_ends_of_every_bin() -> None:
    for number in INTERVALS[len(INTERVALS) // 2 :]:
        low, high = histogram.bounds(int(number))
        first, beyond = np.float32(low), np.float32(high) if high < 2.0**128 else np.float32(np.inf)
        last = np.nextafter(beyond, np.float32(0))
        inside = np.array([first, last], np.float32)
        assert histogram.bin_numbers(inside).tolist() == [number, number]
        assert histogram.bin_numbers(-inside).tolist() == [number | histogram.SIGN] * 2
        assert histogram.bin_numbers(np.array([beyond])) != number


def test_the_intervals_run_from_the_most_negative_to_the_most_positive_without_a_gap() -> None:
    bounds = [histogram.bounds(int(number)) for number in INTERVALS]
    assert len(set(INTERVALS.tolist())) == len(INTERVALS) == 2 * (254 * 8 + 1)
    assert all(low < high for low, high in bounds)
    gaps = [(left[1], right[0]) for left, right in itertools.pairwise(bounds) if left[1] != right[0]]
    assert gaps == [(-(2.0**-149), 2.0**-149)]  # where zero is
    assert bounds[-1][1] == 2.0**128 == -bounds[0][0]


@pytest.mark.parametrize(
    "number",
    [histogram.ZERO, histogram.POSITIVE_INFINITY, histogram.NEGATIVE_INFINITY, histogram.NOT_A_NUMBER],
)
def test_a_point_has_no_bounds(number: int) -> None:
    with pytest.raises(ValueError, match="not an interval"):
        histogram.bounds(number)


@given(BITS)
def test_every_element_is_counted_once(bits: npt.NDArray[np.uint32]) -> None:
    counts = histogram.count(bits.view(np.float32))
    assert counts.shape == (BINS,)
    assert counts.sum() == bits.size
    parts = counts[INTERVALS].sum() + histogram.zeros(counts) + histogram.nonfinite(counts)
    assert parts == bits.size


@given(BITS)
def test_zero_and_nonfinite_are_counted_exactly(bits: npt.NDArray[np.uint32]) -> None:
    values = [float(value) for value in bits.view(np.float32)]
    counts = histogram.count(bits.view(np.float32))
    assert histogram.zeros(counts) == sum(value == 0.0 for value in values)
    assert histogram.nonfinite(counts) == sum(not math.isfinite(value) for value in values)


@given(MIXED, MIXED)
def test_counts_add_exactly(left: npt.NDArray[np.uint32], right: npt.NDArray[np.uint32]) -> None:
    merged = histogram.count(left.view(np.float32)) + histogram.count(right.view(np.float32))
    np.testing.assert_array_equal(merged, histogram.count(np.concatenate([left, right]).view(np.float32)))


def test_the_shape_is_kept_and_a_strided_view_is_read_rightly() -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert histogram.bin_numbers(values).shape == (4, 6)
    np.testing.assert_array_equal(histogram.bin_numbers(values[::2, ::3]), histogram.bin_numbers(values)[::2, ::3])


@given(NORMAL_VALUES, st.floats(0.0, 1.0))
def test_a_quantile_is_within_six_percent_of_the_true_one(values: Values, q: float) -> None:
    truth = float(np.quantile(values.astype(np.float64), q, method="inverted_cdf"))
    told = histogram.quantile(histogram.count(values), q)
    assert abs(told - truth) <= histogram.REPRESENTATIVE_ERROR * abs(truth) * (1 + 1e-12)
    assert histogram.REPRESENTATIVE_ERROR < 0.06


def test_quantiles_of_a_large_sample_at_every_percent() -> None:
    values = np.random.default_rng(7).normal(0.0, 1e-12, 50_001).astype(np.float32)
    counts = histogram.count(values)
    for q in np.linspace(0.0, 1.0, 101):
        truth = float(np.quantile(values.astype(np.float64), float(q), method="inverted_cdf"))
        assert histogram.quantile(counts, float(q)) == pytest.approx(truth, rel=0.06, abs=0.0)


def test_quantiles_leave_nan_out_and_keep_infinity() -> None:
    values = np.array([np.nan, np.nan, -np.inf, 1.0, np.inf], np.float32)
    counts = histogram.count(values)
    assert histogram.quantile(counts, 0.0) == -math.inf
    assert histogram.quantile(counts, 0.5) == pytest.approx(1.0, rel=0.06)
    assert histogram.quantile(counts, 1.0) == math.inf


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_there_is_no_quantile_of_nothing(values: list[float]) -> None:
    assert math.isnan(histogram.quantile(histogram.count(np.array(values, np.float32)), 0.5))


@given(MIXED)
def test_the_occupied_grid_covers_every_used_bin_once_and_keeps_all_counts(bits: npt.NDArray[np.uint32]) -> None:
    counts = histogram.count(bits.view(np.float32))
    edges, positions = histogram.occupied_grid(counts > 0)
    assert positions.shape == (BINS,)
    assert np.all(np.diff(edges) > 0)

    used = [int(number) for number in INTERVALS if counts[number]]
    places = [int(positions[number]) for number in used]
    assert places == sorted(set(places))  # one each, in the order of their values
    for number, place in zip(used, places, strict=True):
        assert (edges[place], edges[place + 1]) == histogram.bounds(number)
    assert np.flatnonzero(positions >= 0).tolist() == sorted(used)

    told = np.zeros(max(len(edges) - 1, 0), dtype=np.int64)
    for number, place in zip(used, places, strict=True):
        told[place] += counts[number]
    assert told.sum() + histogram.zeros(counts) + histogram.nonfinite(counts) == bits.size


@given(MIXED)
def test_a_value_is_found_in_the_occupied_grid_by_its_edges(bits: npt.NDArray[np.uint32]) -> None:
    values = bits.view(np.float32)
    edges, positions = histogram.occupied_grid(histogram.count(values) > 0)
    for value in values[np.isfinite(values) & (values != 0)]:
        search = bisect.bisect_right if value > 0 else bisect.bisect_left
        number = histogram.bin_numbers(np.array([value]))[0]
        assert search(edges.tolist(), float(value)) - 1 == positions[number]


def test_nothing_used_is_an_empty_grid() -> None:
    edges, positions = histogram.occupied_grid(np.zeros(BINS, dtype=np.bool_))
    assert edges.size == 0
    assert np.all(positions == -1)


def test_special_counts_of_many_layers_at_once() -> None:
    counts = np.stack(
        [histogram.count(np.array([0.0, np.nan, 1.0], np.float32)), histogram.count(np.zeros(2, np.float32))]
    )
    assert histogram.zeros(counts).tolist() == [1, 2]
    assert histogram.nonfinite(counts).tolist() == [1, 0]
