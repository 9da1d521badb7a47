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
