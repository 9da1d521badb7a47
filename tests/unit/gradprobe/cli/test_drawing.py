import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradprobe.cli.bars import rows_of
from gradprobe.cli.layers import shown_rows
from gradprobe.client import LayerCounts
from gradprobe.sparkline import BLOCKS, NOT_FINITE, scale_caption, scale_of, sparkline

ANY_SERIES = hnp.arrays(np.float64, st.integers(0, 200), elements=st.floats(allow_nan=True, allow_infinity=True))


def test_heights_are_logarithms() -> None:
    values = np.logspace(-8, -1, 8)
    assert sparkline(values, 8, scale_of(values)) == BLOCKS


def test_layers_share_one_scale() -> None:
    matrix = np.array([[1e-6, 1e-6], [1e-2, 1e-2]])
    scale = scale_of(matrix)
    assert [sparkline(row, 2, scale) for row in matrix] == [BLOCKS[0] * 2, BLOCKS[-1] * 2]
    assert scale_caption(scale).startswith("▁ 1.0e-06 … █ 1.0e-02")


def test_zero_nothing_and_infinity_look_different() -> None:
    values = np.array([1.0, 0.0, np.nan, np.inf, 10.0])
    assert sparkline(values, 5, scale_of(values)) == f"▁▁ {NOT_FINITE}█"


def test_a_long_series_is_averaged_and_keeps_its_infinity() -> None:
    values = np.concatenate([np.full(500, 1e-4), np.full(499, 1.0), [np.inf]])
    assert sparkline(values, 10, scale_of(values)) == "▁▁▁▁▁████" + NOT_FINITE


@given(ANY_SERIES, st.integers(0, 50))
def test_any_series_fits_its_width(values: Any, width: int) -> None:
    line = sparkline(values, width, scale_of(values))
    assert len(line) == min(width, values.size)
    assert set(line) <= {*BLOCKS, NOT_FINITE, " "}


@pytest.mark.parametrize("count", [0, 1, 40, 41, 1000])
def test_a_deep_net_shows_both_ends(count: int) -> None:
    rows = list(shown_rows(count))
    assert len(rows) <= 41
    if count > 40:
        assert rows[20] is None
        assert (rows[0], rows[-1]) == (0, count - 1)
    else:
        assert rows == list(range(count))


def counts_of(values: Any, edges: Any) -> LayerCounts:
    return LayerCounts(
        "layer1", (1,), len(values), edges, np.histogram(values, edges)[0].reshape(1, -1).astype(np.int64),
        np.zeros(1, np.int64), np.zeros(1, np.int64),
    )  # fmt: skip


def test_a_histogram_keeps_sign_and_magnitude() -> None:
    edges = np.array([-1e-1, -1e-2, -1e-3, 0.0, 1e-3, 1e-2, 1e-1])
    rows = rows_of(counts_of([-0.05, -0.05, 0.05, 0.005], edges))
    assert [(row.negative, row.positive) for row in (rows[0], rows[-1])] == [(2, 1), (0, 1)]
    assert rows[0].low <= math.log10(0.055) < rows[0].high


@given(st.lists(st.one_of(st.floats(1e-30, 1e30), st.floats(-1e30, -1e-30)), min_size=1, max_size=200))
def test_no_element_is_lost_or_invented(values: Any) -> None:
    positive = np.logspace(-31, 31, 400)
    counts = counts_of(np.array(values), np.concatenate([-positive[::-1], positive]))
    rows = rows_of(counts)
    assert sum(row.negative for row in rows) == sum(value < 0 for value in values)
    assert sum(row.positive for row in rows) == sum(value > 0 for value in values)
    assert 1 <= len(rows) <= 24


def test_an_empty_histogram_has_no_rows() -> None:
    assert rows_of(counts_of([], np.array([-1.0, 0.0, 1.0]))) == []
