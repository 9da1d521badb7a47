"""What is scheduled is recorded, exactly once, however the ring is cut."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradprobe.probe import Recording, reduce
from gradprobe.probe.ring import Ring, rows_within
from gradprobe.probe.ring_collector import RingCollector
from gradprobe.spec import TENSORS, TensorName
from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS, names
from tests.unit.gradprobe.probe.chains import EVERYTHING, Chain, assert_same, batch_at, join, measure, probed

STEPS = 13
SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(TENSORS, size)]


@pytest.mark.parametrize("tensors", SUBSETS, ids="+".join)
@pytest.mark.parametrize(("every", "histograms_every"), [(1, 1), (1, 5), (3, 1), (3, 2), (4, 6), (100, 3), (1, 100)])
def test_what_is_recorded_is_what_is_scheduled(
    every: int, histograms_every: int, tensors: tuple[TensorName, ...]
) -> None:
    measured = measure(Chain("silu"), Recording(every, histograms_every, tensors), STEPS)
    scheduled = [step for step in range(STEPS) if step % every == 0]
    assert measured.steps.tolist() == scheduled
    assert len(measured.gradient_norm) == len(scheduled)
    assert set(measured.statistics) == set(tensors)
    for tensor, block in measured.statistics.items():
        assert block.steps.tolist() == scheduled
        assert block.values.shape == (len(STATISTICS[tensor]), 3, len(scheduled))
        assert np.isfinite(block.values).all()
    assert set(measured.counts) == set(tensors) & set(HISTOGRAM_TENSORS)
    sizes = {"weight_gradients": [35, 28, 12], "output_gradients": [42, 24, 18]}
    for tensor, counts in measured.counts.items():
        assert counts.steps.tolist() == [step for step in range(STEPS) if step % histograms_every == 0]
        assert (counts.dense().sum(axis=2) == sizes[tensor]).all()


@pytest.mark.parametrize("every", [2, 5])
def test_a_sparse_series_is_the_dense_ones_part(every: int) -> None:
    dense, sparse = measure(Chain("gelu")), measure(Chain("gelu"), Recording(every, every))
    for tensor in TENSORS:
        np.testing.assert_array_equal(dense.statistics[tensor].values[:, :, ::every], sparse.statistics[tensor].values)
    for counted in HISTOGRAM_TENSORS:
        np.testing.assert_array_equal(dense.counts[counted].dense()[::every], sparse.counts[counted].dense())


@given(st.sets(st.integers(0, STEPS - 1)), st.sampled_from([(1, 1), (1, 3), (2, 3)]))
@settings(max_examples=25)
def test_where_the_ring_is_drained_changes_nothing(drains: set[int], schedule: tuple[int, int]) -> None:
    recording = Recording(*schedule)
    parts = []
    with probed(Chain("gelu"), recording) as (loop, probe):
        for number in range(STEPS):
            loop.step()
            if number in drains:
                parts.append(probe.drain())
        parts.append(probe.drain())
    assert_same(join(parts), measure(Chain("gelu"), recording, STEPS))


@pytest.mark.parametrize("drains", [{1}, {0, 1, 2, 3}, set()])
def test_a_step_that_is_not_finite_changes_no_bit_of_the_others(drains: set[int]) -> None:
    generator = torch.Generator().manual_seed(2)
    steps = torch.randn(6, 5000, generator=generator)
    separate = torch.cat([reduce.distribution(row[None]) for row in steps], dim=1)
    steps[3, 17] = math.nan
    cuts = [0, *sorted(cut + 1 for cut in drains), 6]
    together = torch.cat([reduce.distribution(steps[a:b]) for a, b in itertools.pairwise(cuts)], dim=1)
    finite = [0, 1, 2, 4, 5]
    assert torch.equal(together[:, finite], separate[:, finite])
    assert together[-1].tolist() == [0, 0, 0, 1, 0, 0]


def ring(mebibytes: int = 64) -> Recording:
    return Recording(1, 1, memory_mebibytes=mebibytes, collector="ring")


def test_a_net_too_large_for_the_ring_is_reduced_step_by_step() -> None:
    sizes = (5, 400, 400, 3)
    with probed(Chain("tanh", sizes=sizes), ring(1)) as (loop, probe):
        loop.step()
        assert probe.full
    assert_same(measure(Chain("tanh", sizes=sizes), ring(1), 5), measure(Chain("tanh", sizes=sizes), ring(), 5))


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu", "leaky_relu"])
def test_both_collectors_measure_the_same(activation: str) -> None:
    native = measure(Chain(activation), Recording(2, 3), 30)
    rings = measure(Chain(activation), Recording(2, 3, collector="ring"), 30)
    assert native.steps.tolist() == rings.steps.tolist()
    np.testing.assert_allclose(native.gradient_norm, rings.gradient_norm, rtol=1e-6)
    for name, block in rings.statistics.items():
        np.testing.assert_allclose(native.statistics[name].values, block.values, rtol=2e-6, atol=1e-9, err_msg=name)
    assert native.counts.keys() == rings.counts.keys()
    for counted, counts in rings.counts.items():
        assert native.counts[counted].steps.tolist() == counts.steps.tolist()
        assert np.array_equal(native.counts[counted].dense(), counts.dense())


def test_a_huge_net_takes_the_native_collector_no_memory_of_its_size() -> None:
    sizes = (5, 1000, 1000, 3)
    with probed(Chain("tanh", sizes=sizes), Recording(1, 1, memory_mebibytes=1)) as (loop, probe):
        loop.step()
        assert not probe.full
    small = measure(Chain("tanh", sizes=sizes), Recording(1, 1, memory_mebibytes=1), 12)
    assert_same(small, measure(Chain("tanh", sizes=sizes), Recording(1, 1), 12))


@given(st.integers(1, 10**9), st.integers(1, 10**5), st.integers(1, 4096))
def test_rows_stay_within_the_memory_bound(elements: int, tensors: int, mebibytes: int) -> None:
    rows = rows_within(elements, tensors, mebibytes)
    assert 1 <= rows <= 256
    assert rows == 1 or rows * elements * 4 <= mebibytes * 2**20
    assert rows == 256 or (rows + 1) * elements * 4 > mebibytes * 2**20 or (rows + 1) * tensors > 40_000


@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_probes_rings_stay_within_the_memory_bound(activation: str) -> None:
    with probed(Chain(activation, sizes=(5, 60, 60, 3)), ring(2)) as (loop, probe):
        loop.step()
        collector = probe._collector
        assert isinstance(collector, RingCollector)
        rings = collector._rings
        kinds = [rings.gradients, rings.weights, rings.updated, rings.deltas, rings.outputs, rings.inputs]
        used = sum(kind.buffer.numel() * 4 for kind in kinds if kind is not None)
        assert 2**20 < used <= 2 * 2**20


def test_a_ring_gives_back_what_was_written() -> None:
    ring = Ring([(2, 3), (4,)], 3, torch.device("cpu"))
    written = [[torch.full((2, 3), float(row)), torch.arange(4.0) + 10 * row] for row in range(3)]
    for row in (2, 0, 1):
        ring.write(row, written[row])
    assert ring.segment(0, slice(0, 3)).tolist() == [[float(row)] * 6 for row in range(3)]
    assert ring.segment(1, torch.tensor([0, 2])).tolist() == [[0, 1, 2, 3], [20, 21, 22, 23]]


def test_gradients_that_are_not_finite_are_counted_and_hide_nothing() -> None:
    """A loss that is linear in the logits makes δ whatever is wanted."""
    chain = Chain("tanh")
    wanted = torch.ones(6, 3)
    wanted[0, 1], wanted[2, 1] = math.inf, math.nan
    with probed(chain) as (_, probe):
        probe.arm(0)
        (chain(batch_at(0)[0]) * (wanted / 6)).sum().backward()
        probe.collect()
        probe.collect_update()
        measured = probe.drain()
    place = {name: index for index, name in enumerate(names("output_gradients"))}
    deltas = measured.statistics["output_gradients"].values[:, 2, 0]
    assert deltas[place["nonfinite_count"]] == 2
    assert deltas[[place["mean_abs"], place["mean"], place["max_abs"]]] == pytest.approx([1.0, 1.0, 1.0])
    assert deltas[place["norm"]] == pytest.approx(4.0)
    for layer, tap in enumerate(chain.taps()):
        gradient = tap.layer.weight.grad
        assert isinstance(gradient, torch.Tensor)
        expected = reduce.distribution(gradient.reshape(1, -1))[:, 0]
        stored = measured.statistics["weight_gradients"].values[:, layer, 0]
        assert stored[place["nonfinite_count"]] == (~gradient.isfinite()).sum()
        assert stored == pytest.approx(expected.float().numpy(), nan_ok=True)
    assert not np.isfinite(measured.gradient_norm[0])
    assert measured.counts["output_gradients"].dense()[0, 2].sum() == 18


def test_everything_is_recorded_by_default() -> None:
    assert Recording().tensors == TENSORS
    assert EVERYTHING.statistics_at(3)
    assert not Recording(every=2).statistics_at(3)
    assert Recording(histograms_every=25).histogram_at(50)
