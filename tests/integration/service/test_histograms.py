"""Histograms over HTTP: every element in exactly one bin, and that the right one."""

from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from gradprobe.client.arrays import Histograms
from gradprobe.resources import HistogramDocument
from gradprobe.store.database import Database
from tests.integration.service import measured

SHAPES = ((4, 784), (4, 4), (10, 4))
STEPS = range(0, 15, 5)


def drawn(seed: int) -> list[list[npt.NDArray[np.float32]]]:
    """Three steps of three layers' elements, with zeros, subnormals and values that are not finite."""
    generator = np.random.default_rng(seed)
    tensors = [[generator.normal(0, 10.0 ** -(3 * layer), SHAPES[layer]) for layer in range(3)] for _ in STEPS]
    elements = [[layer.astype(np.float32) for layer in step] for step in tensors]
    elements[0][1][0] = [0.0, -0.0, 1e-40, -1e-40]
    elements[1][2][0] = [np.nan, np.inf, -np.inf, 0.0]
    return elements


@pytest.fixture
def elements(database: Database, experiment_id: str) -> list[list[npt.NDArray[np.float32]]]:
    record, _ = measured.claim(database, experiment_id)
    stored = drawn(3)
    measured.write_counts(database, record, "weight_gradients", STEPS[:2], stored[:2])
    measured.write_counts(database, record, "weight_gradients", STEPS[2:], stored[2:])
    return stored


def read(client: httpx.Client, experiment_id: str, query: str = "") -> Histograms:
    response = client.get(f"/experiments/{experiment_id}/gradients/histograms{query}")
    assert response.status_code == 200, response.text
    return Histograms.of_document(HistogramDocument.model_validate_json(response.content))


def test_every_element_is_in_exactly_one_bin_and_it_is_the_right_one(
    client: httpx.Client, experiment_id: str, elements: list[list[npt.NDArray[np.float32]]]
) -> None:
    found = read(client, experiment_id)

    assert found.steps.tolist() == list(STEPS)
    for position, layer in enumerate(found.layers):
        assert (layer.shape, layer.size) == (SHAPES[position], int(np.prod(SHAPES[position])))
        np.testing.assert_array_equal(layer.counts.sum(axis=1) + layer.zero + layer.nonfinite, layer.size)
        assert (np.diff(layer.edges) > 0).all()
        for step, of_layers in enumerate(elements):
            values = of_layers[position].astype(np.float64).ravel()
            intervals = values[np.isfinite(values) & (values != 0)]
            # Bins end away from zero: NumPy closes the left end, so the negative side is counted mirrored.
            positive = np.histogram(intervals[intervals > 0], layer.edges)[0]
            negative = np.histogram(-intervals[intervals < 0], -layer.edges[::-1])[0][::-1]
            np.testing.assert_array_equal(layer.counts[step], positive + negative)
            assert layer.zero[step] == np.count_nonzero(values == 0)
            assert layer.nonfinite[step] == np.count_nonzero(~np.isfinite(values))


@pytest.mark.usefixtures("elements")
def test_layers_and_iterations_are_selected_and_the_grid_fits_them(client: httpx.Client, experiment_id: str) -> None:
    whole = read(client, experiment_id)
    part = read(client, experiment_id, "?layers=layer2&start=5&stop=6")

    assert part.steps.tolist() == [5]
    assert [layer.name for layer in part.layers] == ["layer2"]
    assert len(part["layer2"].edges) < len(whole["layer2"].edges)
    assert part["layer2"].counts.sum() == whole["layer2"].counts[1].sum()


@pytest.mark.usefixtures("elements")
def test_the_other_gradient_has_histograms_of_its_own(client: httpx.Client, experiment_id: str) -> None:
    found = read(client, experiment_id, "?of=outputs")

    assert (found.of, found.steps.size) == ("outputs", 0)
    assert found["layer1"].shape == (5, 4)


@pytest.mark.parametrize("query", ["", "?start=100", "?layers=layer2"])
def test_nothing_recorded_is_empty_and_not_an_error(client: httpx.Client, experiment_id: str, query: str) -> None:
    response = client.get(f"/experiments/{experiment_id}/gradients/histograms{query}")

    body: dict[str, Any] = response.json()
    assert body["steps"] == []
    assert body["layers"][0]["counts"] == []
    assert body["layers"][0]["edges"] == []


def test_elements_that_are_all_zero_need_no_interval(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    record, _ = measured.claim(database, experiment_id)
    zeros = [[np.zeros(shape, dtype=np.float32) for shape in SHAPES]]
    measured.write_counts(database, record, "weight_gradients", range(1), zeros)

    layer = client.get(f"/experiments/{experiment_id}/gradients/histograms").json()["layers"][1]

    assert (layer["edges"], layer["counts"], layer["zero"], layer["nonfinite"]) == ([], [[]], [16], [0])


def many(database: Database, experiment_id: str, steps: range) -> list[list[npt.NDArray[np.float32]]]:
    """Histograms of three layers at each of these steps, whose spread grows from step to step."""
    record, _ = measured.claim(database, experiment_id)
    generator = np.random.default_rng(5)
    stored = [
        [generator.normal(0, 10 ** (-6 + 0.05 * place), shape) for shape in SHAPES] for place in range(len(steps))
    ]
    elements = [[layer.astype(np.float32) for layer in step] for step in stored]
    elements[3][1][0] = [np.nan, np.inf, 0.0, 1e-40]
    for start in range(0, len(steps), 7):
        part = slice(start, start + 7)
        measured.write_counts(database, record, "weight_gradients", steps[part], elements[part])
    return elements


@pytest.mark.parametrize(("max_points", "width"), [(1, 512), (5, 128), (13, 32), (39, 16)])
def test_reducing_sums_counts_and_loses_none(
    client: httpx.Client, database: Database, experiment_id: str, max_points: int, width: int
) -> None:
    steps = range(0, 400, 10)
    many(database, experiment_id, steps)
    whole = read(client, experiment_id)

    found = read(client, experiment_id, f"?max_points={max_points}")

    buckets = [step // width for step in steps]
    starts = [place for place, bucket in enumerate(buckets) if place == 0 or buckets[place - 1] != bucket]
    assert found.steps.tolist() == [steps[place] for place in starts]
    assert len(starts) <= max_points
    assert found.reduction.model_dump() == {
        "method": "sum", "points": len(starts), "of_points": 40, "bucket": width
    }  # fmt: skip
    np.testing.assert_array_equal(found.recorded, np.bincount(np.unique(buckets, return_inverse=True)[1]))
    for layer, every in zip(found.layers, whole.layers, strict=True):
        np.testing.assert_array_equal(layer.edges, every.edges)
        for name in ("counts", "zero", "nonfinite"):
            np.testing.assert_array_equal(getattr(layer, name), np.add.reduceat(getattr(every, name), starts, axis=0))
        told = layer.counts.sum(axis=1) + layer.zero + layer.nonfinite
        np.testing.assert_array_equal(told, layer.size * found.recorded)


def test_what_fits_is_not_summed(client: httpx.Client, database: Database, experiment_id: str) -> None:
    many(database, experiment_id, range(0, 400, 10))
    found = read(client, experiment_id, "?max_points=40")
    assert found.reduction.method == "none"
    assert found.recorded.tolist() == [1] * 40


@pytest.mark.parametrize("bins", [1, 30, 512])
def test_linear_bins_hold_every_element_too(
    client: httpx.Client, database: Database, experiment_id: str, bins: int
) -> None:
    elements = many(database, experiment_id, range(0, 200, 10))

    found = read(client, experiment_id, f"?bins={bins}")

    for position, layer in enumerate(found.layers):
        values = np.concatenate([step[position].ravel() for step in elements])
        values = values[np.isfinite(values)].astype(np.float64)
        assert layer.counts.shape == (20, bins)
        np.testing.assert_allclose(np.diff(layer.edges), (layer.edges[-1] - layer.edges[0]) / bins, rtol=1e-6)
        assert layer.edges[0] <= values.min() <= 0.8 * layer.edges[0]
        assert 0.8 * layer.edges[-1] <= values.max() <= layer.edges[-1]
        np.testing.assert_array_equal(layer.counts.sum(axis=1) + layer.zero + layer.nonfinite, layer.size)


def test_linear_bins_are_close_to_a_linear_histogram(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    elements = many(database, experiment_id, range(0, 40, 10))
    layer = read(client, experiment_id, "?bins=8&stop=10")["layer1"]
    exact = np.histogram(elements[0][0].astype(np.float64), layer.edges)[0]
    # A logarithmic bin is an eighth of an octave wide, and goes whole to one side of an edge.
    assert np.abs(layer.counts[0] - exact).max() < 0.12 * layer.size


@pytest.mark.parametrize("query", ["?bins=30", "?bins=30&max_points=3"])
def test_nothing_recorded_has_no_bins(client: httpx.Client, experiment_id: str, query: str) -> None:
    found = read(client, experiment_id, query)
    assert (found.steps.size, found.recorded.size, found["layer1"].edges.size) == (0, 0, 0)
