"""Coarser levels against slow twins: a bucket is what its steps are, however they were cut and merged."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradprobe.blocks import StatisticsBlock
from gradprobe.levels import NONFINITE, WIDTHS, LevelBlock, bucket_width, pieces

FLOATS = st.floats(width=32, min_value=-(2.0**60), max_value=2.0**60) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0])
POWERS = st.integers(0, 6).map(lambda power: 2**power)


@st.composite
def series(draw: st.DrawFn) -> StatisticsBlock:
    """Two statistics of two layers at ascending, irregular steps."""
    steps = sorted(draw(st.sets(st.integers(0, 150), min_size=1, max_size=40)))
    values = draw(arrays.arrays(np.float32, (2, 2, len(steps)), elements=FLOATS))
    return StatisticsBlock(np.array(steps, dtype=np.int64), values)


def slow_buckets(raw: StatisticsBlock, width: int) -> dict[int, list[int]]:
    """The places of the steps in each bucket, by the bucket's first iteration."""
    found: dict[int, list[int]] = {}
    for place, step in enumerate(raw.steps.tolist()):
        found.setdefault(step - step % width, []).append(place)
    return found


def assert_is(level: LevelBlock, raw: StatisticsBlock, width: int) -> None:
    expected = slow_buckets(raw, width)
    assert level.starts.tolist() == list(expected)
    assert level.recorded.tolist() == [len(places) for places in expected.values()]
    assert level.first.tolist() == [int(raw.steps[places[0]]) for places in expected.values()]
    assert level.last.tolist() == [int(raw.steps[places[-1]]) for places in expected.values()]
    for bucket, places in enumerate(expected.values()):
        for statistic, layer in itertools.product(range(2), range(2)):
            values = raw.values[statistic, layer, places].tolist()
            finite = [value for value in values if math.isfinite(value)]
            at = (statistic, layer, bucket)
            assert [level.nonfinite[kind, *at] for kind in range(len(NONFINITE))] == [
                sum(math.isnan(value) for value in values), values.count(math.inf), values.count(-math.inf)
            ]  # fmt: skip
            if finite:
                assert (level.minimum[at], level.maximum[at]) == (min(finite), max(finite))
                scale = max(abs(value) for value in finite)
                assert level.mean[at] == pytest.approx(math.fsum(finite) / len(finite), abs=1e-6 * scale)
            else:
                assert np.isnan([level.minimum[at], level.maximum[at], level.mean[at]]).all()


@given(series(), POWERS)
def test_a_bucket_is_what_its_steps_are(raw: StatisticsBlock, width: int) -> None:
    assert_is(LevelBlock.of(raw).merged(width), raw, width)


@given(series(), POWERS, POWERS, st.sets(st.integers(1, 39), max_size=5))
def test_merging_parts_gives_what_the_whole_gives(raw: StatisticsBlock, width: int, times: int, cuts: set[int]) -> None:
    ends = [0, *sorted(cut for cut in cuts if cut < len(raw.steps)), len(raw.steps)]
    parts = [
        LevelBlock.of(StatisticsBlock(raw.steps[first:last], raw.values[:, :, first:last])).merged(width)
        for first, last in itertools.pairwise(ends)
    ]
    assert_is(LevelBlock.join(parts).merged(width * times), raw, width * times)


@given(series(), POWERS)
def test_what_is_stored_comes_back(raw: StatisticsBlock, width: int) -> None:
    level = LevelBlock.of(raw).merged(width)
    packed = level.encode()
    for statistics in ([0, 1], [1], []):
        read = LevelBlock.decode(packed, statistics) if statistics else level
        chosen = statistics or [0, 1]
        for name in ("starts", "first", "last", "recorded"):
            np.testing.assert_array_equal(getattr(read, name), getattr(level, name))
        for name in ("minimum", "maximum", "mean"):
            assert getattr(read, name).tobytes() == np.ascontiguousarray(getattr(level, name)[chosen]).tobytes()
        np.testing.assert_array_equal(read.nonfinite, level.nonfinite[:, chosen])


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 1000))
def test_the_width_is_the_smallest_that_fits(first: int, length: int, buckets: int) -> None:
    def needed(width: int) -> int:
        return (first + length) // width - first // width + 1

    width = bucket_width(first, first + length, buckets)
    assert width.bit_count() == 1
    assert needed(width) <= buckets
    assert width == 1 or needed(width // 2) > buckets


@given(st.integers(0, 2000), st.none() | st.integers(1, 2000), st.sampled_from([[], [1], [1, 2]]))
def test_pieces_cover_the_range_once_and_cut_no_bucket(start: int, length: int | None, levels: list[int]) -> None:
    stop = None if length is None else start + length
    found = pieces(start, stop, levels)

    assert (found[0][1], found[-1][2]) == (start, stop)
    assert all(before[2] == after[1] for before, after in itertools.pairwise(found))
    assert len(found) <= 2 * len(levels) + 1
    for level, first, beyond in found:
        assert level in (0, *levels)
        if level:
            assert first % WIDTHS[level] == 0
            assert beyond is None or (beyond % WIDTHS[level] == 0 and beyond > first)
        elif levels:
            assert beyond is not None
            assert beyond - first < 2 * WIDTHS[1]


def test_a_spike_is_in_every_width() -> None:
    values: npt.NDArray[np.float32] = np.full((1, 1, 10_000), 0.5, dtype=np.float32)
    values[0, 0, 7_777] = 1e30
    level = LevelBlock.of(StatisticsBlock(np.arange(10_000), values))
    for power in range(15):
        level = level.merged(2**power)
        assert level.maximum.max() == np.float32(1e30)
        assert level.minimum.min() == 0.5
