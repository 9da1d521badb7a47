"""Comparisons over HTTP, on both databases: what each experiment tells by itself, cut into the same buckets."""

from typing import Any

import httpx
import numpy as np

from gradprobe import histogram
from gradprobe.blocks import CountsBlock
from gradprobe.group_resources import ComparisonDocument
from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS
from gradprobe.store import experiments, series
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.listing import Filters
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem


def ones(record: Record, steps: range) -> CountsBlock:
    """Histograms of layers whose every element is 1."""
    dense = np.stack([histogram.count(np.ones(layer.weight_shape, np.float32)) for layer in record.layers])
    return CountsBlock.from_dense(np.array(steps, np.int64), np.stack([dense] * len(steps)))


def make(client: httpx.Client, database: Database, iterations: int, every: int = 1, **parts: Any) -> str:
    spec = {
        "network": {"depth": 2, "width": 3},
        "training": {"iterations": iterations, "batch_size": 2},
        "recording": {"every": every, "histograms_every": 10 * every, "evaluate_every": 20, **parts},
    }
    identifier = str(client.post("/experiments", json=spec).json()["id"])
    record, lease = measured.claim(database, identifier)
    for tensor in STATISTICS:
        interval = 20 if tensor == "evaluation" else every
        steps = range(0, iterations, interval)
        block = measured.write_statistics(database, record, tensor, steps, seed=iterations)
        if tensor in HISTOGRAM_TENSORS:
            with database.write() as connection:
                series.write(connection, record.id, tensor, block, ones(record, range(0, iterations, 10 * every)))
    measured.finish(database, lease)
    return identifier


def compare(client: httpx.Client, identifiers: list[str], **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/comparisons", params={"experiments": ",".join(identifiers), **query})
    assert answer.status_code == 200, answer.text
    ComparisonDocument.model_validate(answer.json())
    return list(answer.json()["items"])


def test_each_tells_what_it_tells_by_itself(client: httpx.Client, database: Database) -> None:
    ids = [make(client, database, 60), make(client, database, 40)]
    query = {"of": "outputs", "layers": "layer2", "statistics": "norm,mean", "start": 5, "stop": 30}
    items = compare(client, ids, **query, include="series,metrics,histograms")
    assert [item["experiment_id"] for item in items] == ids
    assert items[0]["series"]["steps"] == list(range(5, 30))
    for item in items:
        own = f"/experiments/{item['experiment_id']}"
        assert item["series"] == client.get(f"{own}/gradients", params=query).json()
        range_ = {"start": 5, "stop": 30}
        assert item["metrics"] == client.get(f"{own}/metrics", params=range_).json()
        told = {"of": "outputs", "layers": "layer2", **range_}
        assert item["histograms"] == client.get(f"{own}/gradients/histograms", params=told).json()
    plain = compare(client, ids[:1])
    assert plain[0]["histograms"] is None
    assert plain[0]["series"]["of"] == "weights"


def test_runs_of_other_lengths_and_schedules_are_cut_into_the_same_buckets(
    client: httpx.Client, database: Database
) -> None:
    ids = [make(client, database, 1000), make(client, database, 300), make(client, database, 640, every=2)]
    items = compare(client, ids, max_points=20, statistics="norm", include="series,metrics,histograms")
    long, short, sparse = (item["series"] for item in items)
    width = long["reduction"]["bucket"]
    assert 1 < len(long["steps"]) <= 20
    assert {one["reduction"]["bucket"] for one in (long, short, sparse)} == {width}
    # A histogram is one point a bucket, where a series has two.
    assert {item["histograms"]["reduction"]["bucket"] for item in items} == {width // 2}
    assert {item["metrics"]["reduction"]["bucket"] for item in items} == {width}
    # A bucket's first point is at its first recorded step, in every run that has the bucket.
    for other in (short, sparse):
        shared = min(len(other["steps"]) - 2, len(long["steps"]) - 2)
        assert other["steps"][:shared:2] == long["steps"][:shared:2]
    # By itself the short one would be cut finer.
    alone = client.get(f"/experiments/{ids[1]}/gradients", params={"max_points": 20}).json()
    assert alone["reduction"]["bucket"] < width


def test_what_is_asked_wrongly_is_pointed_to(client: httpx.Client, database: Database) -> None:
    one = make(client, database, 20)
    bare = make(client, database, 20, tensors=["activations"])
    unknown = "exp_" + "0" * 26
    for query, status, code in (
        ({"experiments": one, "layers": "layer9"}, 422, "UNKNOWN_LAYER"),
        ({"experiments": f"{one},{bare}"}, 404, "NOT_RECORDED"),
        ({"experiments": f"{one},{unknown}"}, 404, "EXPERIMENT_NOT_FOUND"),
        ({"experiments": ""}, 422, "VALIDATION_FAILED"),
        ({"experiments": ",".join(f"exp_{number:026d}" for number in range(21))}, 422, "VALIDATION_FAILED"),
        ({"experiments": one, "include": "weights"}, 422, "VALIDATION_FAILED"),
        ({"experiments": one, "of": "clipped_weights", "include": "histograms"}, 422, "VALIDATION_FAILED"),
        ({}, 422, "VALIDATION_FAILED"),
    ):
        assert_problem(client.get("/comparisons", params=query), status, code)
    assert len(compare(client, [one, one])) == 1


def test_it_has_an_etag_of_what_it_tells(client: httpx.Client, database: Database) -> None:
    path = f"/comparisons?experiments={make(client, database, 20)}"
    tag = client.get(path).headers["etag"]
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 304
    make_another = client.patch(path.replace("/comparisons?experiments=", "/experiments/"), json={"name": "b"})
    assert make_another.status_code == 200
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200
    with database.read() as connection:
        assert len(experiments.page(connection, Filters(), None, 9)) == 1
