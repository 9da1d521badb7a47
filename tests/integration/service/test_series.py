"""What was measured comes back as it was stored."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import update

from gradprobe import statistics
from gradprobe.blocks import StatisticsBlock
from gradprobe.client.arrays import Metrics, Series
from gradprobe.resources import MetricsDocument, SeriesDocument
from gradprobe.state import Status
from gradprobe.statistics import Tensor
from gradprobe.store import experiments, series
from gradprobe.store.database import Database
from gradprobe.store.tables import blocks
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem

SOURCES: list[tuple[str, Tensor, str]] = [
    ("gradients", "weight_gradients", "weights"),
    ("gradients?of=weights", "weight_gradients", "weights"),
    ("gradients?of=outputs", "output_gradients", "outputs"),
    ("weights", "weights", "weights"),
    ("activations", "activations", "activations"),
]


def read(client: httpx.Client, experiment_id: str, part: str) -> dict[str, Any]:
    response = client.get(f"/experiments/{experiment_id}/{part}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.mark.parametrize(("part", "tensor", "of"), SOURCES)
def test_every_value_of_every_layer_comes_back_bit_for_bit(
    client: httpx.Client, database: Database, experiment_id: str, part: str, tensor: Tensor, of: str
) -> None:
    record, _ = measured.claim(database, experiment_id)
    first = measured.write_statistics(database, record, tensor, range(4), seed=1)
    second = measured.write_statistics(database, record, tensor, range(4, 7), seed=2)

    body = read(client, experiment_id, part)

    expected = np.concatenate([first.values, second.values], axis=2)
    arrays = Series.of_document(SeriesDocument.model_validate(body))
    assert (body["status"], body["of"]) == ("running", of)
    assert body["steps"] == list(range(7))
    assert body["reduction"] == {"method": "none", "points": 7, "of_points": 7, "bucket": 1}
    for position, name in enumerate(statistics.names(tensor)):
        np.testing.assert_array_equal(arrays.matrix(name).astype(np.float32), expected[position])


def test_shapes_are_those_of_the_tensor(client: httpx.Client, experiment_id: str) -> None:
    weights = read(client, experiment_id, "gradients")["layers"]
    outputs = read(client, experiment_id, "gradients?of=outputs")["layers"]

    assert [(layer["name"], layer["shape"], layer["size"]) for layer in weights] == [
        ("layer1", [4, 784], 3136),
        ("layer2", [4, 4], 16),
        ("layer3", [10, 4], 40),
    ]
    assert [(layer["shape"], layer["size"]) for layer in outputs] == [([5, 4], 20), ([5, 4], 20), ([5, 10], 50)]


def test_nothing_recorded_yet_is_no_steps_and_all_layers(client: httpx.Client, experiment_id: str) -> None:
    body = read(client, experiment_id, "gradients")

    assert (body["status"], body["steps"], body["nonfinite"]) == ("queued", [], [])
    assert [layer["name"] for layer in body["layers"]] == ["layer1", "layer2", "layer3"]
    assert body["layers"][0]["statistics"] == {name: [] for name in statistics.names("weight_gradients")}
    assert body["reduction"]["points"] == 0


def test_layers_statistics_and_iterations_are_selected(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    record, _ = measured.claim(database, experiment_id)
    block = measured.write_statistics(database, record, "weights", range(0, 20, 2))

    body = read(client, experiment_id, "weights?layers=layer3,layer1&statistics=norm,%20mean&start=3&stop=9")

    assert body["steps"] == [4, 6, 8]
    assert [layer["name"] for layer in body["layers"]] == ["layer1", "layer3"]
    assert list(body["layers"][1]["statistics"]) == ["mean", "norm"]
    norm = statistics.names("weights").index("norm")
    got = np.array(body["layers"][1]["statistics"]["norm"], dtype=np.float32)
    np.testing.assert_array_equal(got, block.values[norm, 2, 2:5])
    assert read(client, experiment_id, "weights?start=100")["steps"] == []


def test_what_json_can_not_hold_is_null_and_named(client: httpx.Client, database: Database, experiment_id: str) -> None:
    record, _ = measured.claim(database, experiment_id)
    values = np.ones((7, 3, 3), dtype=np.float32)
    values[0, 0, 0], values[3, 2, 1], values[4, 1, 2] = np.nan, -np.inf, np.inf
    measured.store(database, record, "weight_gradients", StatisticsBlock(np.array([5, 6, 7]), values))

    response = client.get(f"/experiments/{experiment_id}/gradients")

    body = json.loads(response.content, parse_constant=pytest.fail)
    assert body["nonfinite"] == [
        {"layer": "layer1", "step": 5, "statistic": "mean_abs", "value": "nan", "count": 1},
        {"layer": "layer3", "step": 6, "statistic": "norm", "value": "-inf", "count": 1},
        {"layer": "layer2", "step": 7, "statistic": "max_abs", "value": "inf", "count": 1},
    ]
    assert body["layers"][0]["statistics"]["mean_abs"] == [None, 1.0, 1.0]
    arrays = Series.of_document(SeriesDocument.model_validate(body))
    for position, name in enumerate(statistics.names("weight_gradients")):
        np.testing.assert_array_equal(arrays.matrix(name), values[position])
    only = client.get(f"/experiments/{experiment_id}/gradients?layers=layer3&statistics=norm&stop=7").json()
    assert [mark["layer"] for mark in only["nonfinite"]] == ["layer3"]


def test_metrics_and_evaluation_have_steps_of_their_own(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    record, _ = measured.claim(database, experiment_id)
    metrics = measured.write_statistics(database, record, "metrics", range(6))
    evaluation = measured.write_statistics(database, record, "evaluation", range(0, 6, 5))
    metrics.values[4, 0, 5] = np.nan
    measured.store(database, record, "metrics", metrics)

    body = read(client, experiment_id, "metrics")

    document = Metrics.of_document(MetricsDocument.model_validate(body))
    assert body["steps"] == list(range(6))
    assert body["evaluation"]["steps"] == [0, 5]
    assert [(mark["statistic"], mark["step"]) for mark in body["nonfinite"]] == [("seconds_per_iteration", 5)]
    for position, name in enumerate(statistics.names("metrics")):
        np.testing.assert_array_equal(document[name].astype(np.float32), metrics.values[position, 0])
    np.testing.assert_array_equal(document.test_accuracy.astype(np.float32), evaluation.values[1, 0])
    assert read(client, experiment_id, "metrics?start=1&stop=5")["evaluation"]["steps"] == []


def test_metrics_of_what_has_not_begun_are_empty(client: httpx.Client, experiment_id: str) -> None:
    body = read(client, experiment_id, "metrics")

    assert body["metrics"] == {name: [] for name in statistics.names("metrics")}
    nothing = {"method": "none", "points": 0, "of_points": 0, "bucket": 1}
    assert body["evaluation"] == {"steps": [], "test_loss": [], "test_accuracy": [], "reduction": nothing}


@pytest.mark.parametrize(
    ("query", "code", "pointer", "told"),
    [
        ("layers=layer4", "UNKNOWN_LAYER", "/query/layers", "layer1, layer2, layer3"),
        ("layers=", "UNKNOWN_LAYER", "/query/layers", "layer1"),
        ("layers=layer1,,layer2", "UNKNOWN_LAYER", "/query/layers", "''"),
        ("statistics=median", "UNKNOWN_STATISTIC", "/query/statistics", "mean_abs"),
        ("start=5&stop=5", "INVALID_RANGE", "/query/stop", "greater"),
        ("stop=0", "INVALID_RANGE", "/query/stop", "greater"),
    ],
)
def test_a_selection_of_what_is_not_there_is_refused_with_what_is(
    client: httpx.Client, experiment_id: str, query: str, code: str, pointer: str, told: str
) -> None:
    body = assert_problem(client.get(f"/experiments/{experiment_id}/gradients?{query}"), 422, code)

    assert told in body["detail"]
    assert body["errors"][0]["pointer"] == pointer


def test_a_tensor_that_the_spec_does_not_record_is_not_there(client: httpx.Client) -> None:
    spec = {"recording": {"tensors": ["weights"]}}
    created = client.post("/experiments", json=spec).json()["id"]

    assert client.get(f"/experiments/{created}/weights").status_code == 200
    for part in ("gradients", "gradients?of=outputs", "activations", "gradients/histograms"):
        body = assert_problem(client.get(f"/experiments/{created}/{part}"), 404, "NOT_RECORDED")
        assert "weights" in body["detail"]


def test_gradients_after_clipping_are_there_where_the_experiment_clips(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    spec = {"gradient_clipping": {"kind": "norm", "max_norm": 1.0}, "network": {"depth": 2}}
    clipping = client.post("/experiments", json=spec).json()["id"]
    record, _ = measured.claim(database, clipping)
    block = measured.write_statistics(database, record, "clipped_weight_gradients", range(5))

    body = read(client, clipping, "gradients?of=clipped_weights&statistics=norm")

    assert (body["of"], body["layers"][0]["shape"]) == ("clipped_weights", [10, 784])
    assert np.float32(body["layers"][1]["statistics"]["norm"]).tolist() == block.values[3, 1].tolist()
    without = client.get(f"/experiments/{experiment_id}/gradients?of=clipped_weights")
    assert "gradient_clipping" in assert_problem(without, 404, "NOT_RECORDED")["detail"]
    both = client.get(f"/experiments/{clipping}/gradients?of=clipped_weights&quantiles=0.5")
    assert_problem(both, 422, "VALIDATION_FAILED")


def test_a_damaged_block_is_an_error_of_the_service(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    record, _ = measured.claim(database, experiment_id)
    block = measured.write_statistics(database, record, "weights", range(3))
    damaged = block.encode()[:-9] + bytes(9)
    with database.write() as connection:
        connection.execute(update(blocks).values(statistics=damaged))

    assert_problem(client.get(f"/experiments/{experiment_id}/weights"), 500, "CORRUPT_BLOCK")


def test_the_status_and_the_series_of_one_answer_are_of_one_moment(database: Database, experiment_id: str) -> None:
    with database.read() as connection:
        before = experiments.get(connection, experiment_id)
        record, lease = measured.claim(database, experiment_id)
        measured.write_statistics(database, record, "weights", range(3))
        measured.finish(database, lease)

        assert before.status is Status.QUEUED
        assert experiments.get(connection, experiment_id) == before
        assert series.read_statistics(connection, experiment_id, "weights") is None
