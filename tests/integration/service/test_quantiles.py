"""Quantiles of the elements, read from stored histograms."""

from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from gradprobe.client.arrays import Series
from gradprobe.histogram import REPRESENTATIVE_ERROR
from gradprobe.resources import SeriesDocument
from gradprobe.store.database import Database
from tests.integration.service import measured

SHAPES = ((4, 784), (4, 4), (10, 4))
STEPS = range(0, 200, 10)
SHARES = (0.01, 0.25, 0.5, 0.99, 1.0)


@pytest.fixture
def elements(database: Database, experiment_id: str) -> list[list[npt.NDArray[np.float32]]]:
    """`elements[step][layer]`, stored with statistics of every step."""
    record, _ = measured.claim(database, experiment_id)
    generator = np.random.default_rng(1)
    stored = [[generator.normal(0, 10.0**-place, shape).astype(np.float32) for shape in SHAPES] for place in range(20)]
    measured.write_counts(database, record, "weight_gradients", STEPS, stored)
    return stored


def read(client: httpx.Client, experiment_id: str, query: str) -> dict[str, Any]:
    response = client.get(f"/experiments/{experiment_id}/gradients?{query}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def test_they_are_within_six_per_cent(
    client: httpx.Client, experiment_id: str, elements: list[list[npt.NDArray[np.float32]]]
) -> None:
    asked = ",".join(map(str, SHARES))
    found = Series.of_document(SeriesDocument.model_validate(read(client, experiment_id, f"quantiles={asked}")))

    assert found.quantiles is not None
    assert found.quantiles.steps.tolist() == list(STEPS)
    for position, layer in enumerate(found.names):
        for share in SHARES:
            true = [np.quantile(step[position], share, method="inverted_cdf") for step in elements]
            np.testing.assert_allclose(found.quantiles[layer][share], true, rtol=REPRESENTATIVE_ERROR)


@pytest.mark.usefixtures("elements")
def test_layers_and_range_are_those_of_the_series(client: httpx.Client, experiment_id: str) -> None:
    whole = read(client, experiment_id, "quantiles=0.9")["quantiles"]
    part = read(client, experiment_id, "quantiles=0.9&layers=layer2&start=15&stop=41")["quantiles"]

    assert part["steps"] == [20, 30, 40]
    assert part["layers"] == [{"name": "layer2", "values": {"0.9": whole["layers"][1]["values"]["0.9"][2:5]}}]


def test_with_fewer_points_they_are_of_all_elements_in_a_bucket(
    client: httpx.Client, experiment_id: str, elements: list[list[npt.NDArray[np.float32]]]
) -> None:
    found = read(client, experiment_id, "quantiles=0.9&layers=layer1&max_points=4")["quantiles"]

    assert found["reduction"] == {"method": "sum", "points": 3, "of_points": 20, "bucket": 64}
    assert found["steps"] == [0, 70, 130]
    told = found["layers"][0]["values"]["0.9"]
    for point, (first, beyond) in enumerate(((0, 7), (7, 13), (13, 20))):
        together = np.concatenate([step[0].ravel() for step in elements[first:beyond]])
        assert told[point] == pytest.approx(np.quantile(together, 0.9, method="inverted_cdf"), rel=0.06)


def test_not_asked_for_they_are_null_and_where_nothing_is_recorded_they_are_empty(
    client: httpx.Client, experiment_id: str
) -> None:
    assert read(client, experiment_id, "statistics=norm")["quantiles"] is None
    found = read(client, experiment_id, "quantiles=0.5, 0.50,1e-1,-0.0&layers=layer1")["quantiles"]
    assert found["steps"] == []
    assert found["layers"] == [{"name": "layer1", "values": {"0.5": [], "0.1": [], "0.0": []}}]


def test_what_json_can_not_hold_is_null_and_named(client: httpx.Client, database: Database, experiment_id: str) -> None:
    record, _ = measured.claim(database, experiment_id)
    step = [np.zeros(shape, dtype=np.float32) for shape in SHAPES]
    step[0][:] = np.nan
    step[1][0, 0], step[2][:] = np.inf, 2.0
    measured.write_counts(database, record, "weight_gradients", range(1), [step])

    body = read(client, experiment_id, "quantiles=0.5,1")

    assert [layer["values"] for layer in body["quantiles"]["layers"]] == [
        {"0.5": [None], "1.0": [None]},
        {"0.5": [0.0], "1.0": [None]},
        {"0.5": [pytest.approx(2.0, rel=0.06)], "1.0": [pytest.approx(2.0, rel=0.06)]},
    ]
    assert [(mark["layer"], mark["statistic"], mark["value"]) for mark in body["nonfinite"]] == [
        ("layer1", "quantile_0.5", "nan"),
        ("layer1", "quantile_1.0", "nan"),
        ("layer2", "quantile_1.0", "inf"),
    ]
    found = Series.of_document(SeriesDocument.model_validate(body))
    assert found.quantiles is not None
    assert found.quantiles["layer2"][1.0].tolist() == [np.inf]
