"""The compiled pass against the reductions in torch (which have slow twins of their own) and the pure histogram."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from gradprobe import histogram
from gradprobe.probe import native, reduce, saturation
from gradprobe.probe.native_collector import native_rule
from gradprobe.statistics import SATURATION

Floats = npt.NDArray[np.float32]

ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True)
SMALL = st.floats(width=32, min_value=-(2.0**-66), max_value=2.0**-66, allow_subnormal=True)
ELEMENTS = st.one_of(
    arrays.arrays(np.float32, st.integers(1, 70), elements=ANY_FLOAT),
    arrays.arrays(np.float32, st.integers(1, 70), elements=SMALL),
    arrays.arrays(np.float32, st.integers(1, 70), elements=st.sampled_from([0.0, -0.0, 1.0, -3.5, 1e-40])),
)


def measured(layers: Sequence[Floats], scale: float = 1.0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Distribution [7, L] and dense counts [L, 4096]."""
    addresses = np.array([layer.ctypes.data for layer in layers], np.int64)
    sizes = np.array([layer.size for layer in layers], np.int64)
    out = np.empty((7, len(layers)))
    table = np.zeros(2 * histogram.BINS, np.uint32)
    scratch = np.empty(max(sizes), np.float32)
    bins, counts = np.empty(sizes.sum() + 1, np.uint16), np.empty(sizes.sum() + 1, np.uint32)
    lengths = np.zeros(len(layers), np.uint16)
    used = native.measure(addresses, sizes, scale, out, True, table, scratch, bins, counts, lengths)
    assert used == lengths.sum()
    assert not table.any(), "the next layer's counts start from zero"
    dense = np.zeros((len(layers), histogram.BINS), np.int64)
    for layer, part in enumerate(np.split(np.arange(used), np.cumsum(lengths)[:-1])):
        assert np.all(np.diff(bins[part].astype(int)) > 0), "ascending"
        dense[layer, bins[part]] = counts[part]
    return out, dense


@given(st.lists(ELEMENTS, min_size=1, max_size=4), st.sampled_from([1.0, 30.0, 0.25]))
def test_one_pass_is_the_definition(layers: list[Floats], scale: float) -> None:
    out, dense = measured(layers, scale)
    for index, layer in enumerate(layers):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = layer * np.float32(scale)
        expected = reduce.distribution(torch.from_numpy(scaled)[None])[:, 0].numpy()
        largest = np.nanmax(np.abs(scaled[np.isfinite(scaled)]), initial=0.0)
        np.testing.assert_allclose(out[:, index], expected, rtol=1e-9, atol=float(largest) * 1e-13)
        assert np.array_equal(dense[index], histogram.count(scaled))


@pytest.mark.parametrize("size", [1, 7, 8, 100, 7840])
def test_every_length_of_a_vector_register(size: int) -> None:
    generator = np.random.default_rng(size)
    layer = (generator.standard_normal(size) * 10.0 ** generator.uniform(-30, 3, size)).astype(np.float32)
    out, dense = measured([layer])
    np.testing.assert_allclose(out[:, 0], reduce.distribution(torch.from_numpy(layer)[None])[:, 0], rtol=1e-10)
    assert np.array_equal(dense[0], histogram.count(layer))


WEIGHTS = arrays.arrays(
    np.float32,
    (3, 5),
    elements=st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100)
    | st.sampled_from([np.float32("nan"), np.float32("inf"), np.float32("-inf")]),
)


@given(WEIGHTS, WEIGHTS)
def test_update_ratio(before: Floats, after: Floats) -> None:
    out = np.empty(1)
    sizes = np.array([15])
    kept = np.empty(15, np.float32)
    native.keep(np.array([before.ctypes.data]), sizes, kept)
    assert kept.tobytes() == before.tobytes()
    native.update_ratios(np.array([after.ctypes.data]), sizes, kept, out)
    expected = reduce.update_ratio(torch.from_numpy(before).view(1, -1), torch.from_numpy(after).view(1, -1))
    np.testing.assert_allclose(out, expected, rtol=1e-9)


@pytest.mark.parametrize("name", sorted(SATURATION))
@pytest.mark.parametrize("spoilt", [0, 7, 60])
def test_activations(name: str, spoilt: int) -> None:
    generator = np.random.default_rng(len(name) + spoilt)
    entry = torch.from_numpy((generator.standard_normal((6, 10)) * 3).astype(np.float32))
    output = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "hardtanh": nn.functional.hardtanh}.get(name, torch.relu)(
        entry
    )
    if name in ("gelu", "silu", "elu", "selu", "softplus"):
        output = getattr(nn.functional, name)(entry)
    output[:, 3] = 0.0
    places = generator.permutation(60)[:spoilt]
    output.view(-1)[torch.from_numpy(places)] = torch.tensor([math.nan, math.inf, -math.inf])[torch.arange(spoilt) % 3]
    rule, *thresholds = native_rule(name, 0.01)
    out = np.empty((4, 1))
    native.activations(
        np.array([output.data_ptr()]),
        np.array([entry.data_ptr()]),
        np.array([[6, 10, 1]]),
        np.array([rule]),
        np.array([thresholds], np.float32),
        out,
    )
    saturated = saturation.rule(name, 0.01)(output.view(1, -1), entry.view(1, -1))
    expected = torch.cat(
        [
            reduce.mean_and_std(output.view(1, -1)),
            reduce.share(saturated, output.view(1, -1))[None],
            reduce.dead_fraction(output[None])[None],
        ]
    )
    np.testing.assert_allclose(out, expected, rtol=1e-9)
