"""Many sparse histograms at once against one dense histogram at a time, and the linear view against its definition."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradprobe import histogram
from gradprobe.blocks import CountsBlock
from gradprobe.histogram import BINS, INTERVALS, REPRESENTATIVE_ERROR, linear_grid, quantile, quantiles

FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45])
LAYERS = st.lists(arrays.arrays(np.float32, st.integers(0, 40), elements=FLOATS), min_size=1, max_size=6)
SHARES = np.array([0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0])


@given(LAYERS)
def test_quantiles_of_many_are_those_of_each(values: list[npt.NDArray[np.float32]]) -> None:
    dense = np.array([histogram.count(elements) for elements in values])
    row, number = np.nonzero(dense)

    found = quantiles(row, number, dense[row, number], len(values), SHARES)

    expected = [[quantile(counts, float(share)) for counts in dense] for share in SHARES]
    np.testing.assert_array_equal(found, expected)


@given(LAYERS)
def test_entries_of_one_row_add_up(values: list[npt.NDArray[np.float32]]) -> None:
    dense = np.array([histogram.count(elements) for elements in values])
    row, number = np.nonzero(dense)

    found = quantiles(np.zeros_like(row), number, dense[row, number], 1, SHARES)

    np.testing.assert_array_equal(found[:, 0], [quantile(dense.sum(axis=0), float(share)) for share in SHARES])


def test_quantiles_are_within_six_per_cent_of_the_elements_own() -> None:
    values = np.random.default_rng(0).normal(0, 1e-5, 10_000).astype(np.float32)
    counts = histogram.count(values)
    number = np.flatnonzero(counts)
    shares = np.array([0.001, 0.01, 0.1, 0.3, 0.7, 0.9, 0.99, 0.999])
    found = quantiles(np.zeros_like(number), number, counts[number], 1, shares)[:, 0]
    true = np.quantile(values, shares, method="inverted_cdf")
    np.testing.assert_allclose(found, true, rtol=REPRESENTATIVE_ERROR)


@given(arrays.arrays(np.float32, st.integers(1, 60), elements=FLOATS), st.integers(1, 512))
def test_each_logarithmic_bin_is_in_the_linear_one_that_holds_its_middle(
    values: npt.NDArray[np.float32], bins: int
) -> None:
    counts = histogram.count(values)
    used = counts > 0
    edges, positions = linear_grid(used, bins)

    told = set(np.flatnonzero(positions >= 0).tolist())
    assert told == set(np.flatnonzero(used).tolist()) & set(INTERVALS.tolist())
    if not told:
        assert len(edges) == 0
        return
    bounds = np.array([histogram.bounds(number) for number in told])
    assert (edges[0], edges[-1], len(edges)) == (bounds[:, 0].min(), bounds[:, 1].max(), bins + 1)
    np.testing.assert_allclose(np.diff(edges), (edges[-1] - edges[0]) / bins, rtol=1e-6)
    for number in told:
        single = np.zeros(BINS, dtype=np.int64)
        single[number] = 1
        middle = quantile(single, 0.5)
        assert edges[positions[number]] <= middle <= edges[positions[number] + 1]


@pytest.mark.parametrize("layers", [1, 3])
def test_one_layers_entries_are_those_of_the_dense_counts(layers: int) -> None:
    generator = np.random.default_rng(layers)
    dense = generator.integers(1, 9, (5, layers, BINS)) * (generator.random((5, layers, BINS)) < 0.002)
    dense[2] = 0
    block = CountsBlock.from_dense(np.arange(5) * 3, dense)
    for part, kept in ((block, dense), (block.between(3, 12), dense[1:4]), (block.between(7, 7), dense[:0])):
        for layer in range(layers):
            step, number, count = part.of_layer(layer)
            rebuilt = np.zeros((len(kept), BINS), dtype=np.int64)
            rebuilt[step, number] = count
            np.testing.assert_array_equal(rebuilt, kept[:, layer])
