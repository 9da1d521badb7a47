"""Sweeps over HTTP, on both databases: made as a whole or not at all, followed, compared, cancelled, deleted."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from gradprobe.blocks import StatisticsBlock
from gradprobe.group_resources import Sweep, SweepComparison, SweepPage
from gradprobe.queue import Doorbell
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.statistics import STATISTICS, names
from gradprobe.store import leases
from gradprobe.store.database import Database
from gradprobe.store.tables import experiments
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

AXES = {"/network/activation": ["relu", {"name": "leaky_relu", "negative_slope": 0.2}], "/training/seed": [0, 1, 2]}
BASE = {"network": {"depth": 2, "width": 3, "initialization": "he_normal"}, "training": {"iterations": 10}}


@pytest.fixture(scope="module")
def lasting(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """One server for what stores nothing."""
    settings = Settings(data_directory=tmp_path_factory.mktemp("refusals"), redis_url="redis://127.0.0.1:1/0")
    shutil.copy(sqlite_template, str(settings.database.database))
    with serving(settings) as client:
        yield client


def post(client: httpx.Client, axes: dict[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    answer = client.post("/sweeps", json={"base": BASE, "axes": axes or AXES, **body})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def count(database: Database, table: Any = experiments) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def finish(database: Database, identifier: str, ratio: float, accuracy: float) -> None:
    """As a worker ends an experiment that measured a δ of the first layer so many times the last one's."""
    record, lease = measured.claim(database, identifier)
    result = measured.RESULT | {"test_accuracy": accuracy}
    summary = {"version": 1, "cause": "weight_scale", "delta_ratio_initial": ratio, "delta_ratio_mean": ratio / 2}
    with database.write() as connection:
        leases.note_summary(connection, lease, summary)
        leases.finish(connection, lease, Status.SUCCEEDED, result=result, verdict="vanishing")
    assert record.sweep_id


def test_what_was_accepted_is_logged_once(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "service.ringing"):
        for _ in range(2):
            made = client.post("/sweeps", json={"base": BASE, "axes": AXES}, headers={"Idempotency-Key": "one"}).json()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert lines == [f"accepted {made['id']} with 6 experiments"]


def test_the_product_of_the_axes_is_queued_as_one_group(
    client: httpx.Client, database: Database, service_settings: Settings
) -> None:
    answer = client.post("/sweeps", json={"name": "a", "tags": {"k": "v"}, "base": BASE, "axes": AXES})
    assert answer.status_code == 202
    document = answer.json()
    Sweep.model_validate(document)
    assert answer.headers["location"] == f"/sweeps/{document['id']}"
    assert (document["size"], document["status"]) == (6, "queued")
    assert document["counts"] == {"queued": 6, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert document["progress"] == {"iteration": 0, "iterations": 60}
    assert [member["values"]["/training/seed"] for member in document["members"]] == [0, 1, 2, 0, 1, 2]
    assert [member["name"] for member in document["members"]][3] == (
        "a: activation leaky_relu (negative_slope 0.2), seed 0"
    )
    assert client.get(f"/sweeps/{document['id']}").json() == document
    assert Doorbell(service_settings).depth("any") == 6
    with database.read() as connection:
        assert connection.scalars(select(experiments.c.message_sent_at)).all().count(None) == 0

    listed = client.get("/experiments", params={"sweep": document["id"], "tag": "k:v"}).json()["items"]
    assert [item["id"] for item in listed] == [member["experiment_id"] for member in document["members"]][::-1]
    specs = [item["spec"] for item in reversed(listed)]
    assert [spec["network"]["activation"]["name"] for spec in specs] == ["relu"] * 3 + ["leaky_relu"] * 3
    assert {spec["network"]["initialization"]["name"] for spec in specs} == {"he_normal"}
    assert listed[0]["sweep_id"] == document["id"]
    assert listed[0]["member"]["values"]["/training/seed"] == 2


@pytest.mark.parametrize(
    ("axes", "pointer", "code"),
    [
        ({"/network/width": [3, 0, 4]}, "/axes/~1network~1width/1", "greater_than_equal"),
        ({"/network/activation": ["relu", "rleu"]}, "/axes/~1network~1activation/1", "union_tag_invalid"),
        ({"/network/witdh": [3]}, "/axes/~1network~1witdh/0", "unknown_field"),
        (
            {"/network/activation": [{"name": "leaky_relu", "negative_slope": 2.0}]},
            "/axes/~1network~1activation/0/negative_slope",
            "less_than_equal",
        ),
        ({"/network": [{"depth": 3}, {"depth": 0}]}, "/axes/~1network/1/depth", "greater_than_equal"),
        # Valid alone, refused together: at the one whose field it is.
        ({"/network/kind": ["mlp", "resnet"], "/network/depth": [4, 5]}, "/axes/~1network~1depth/1", "depth_of_kind"),
        # Of a field that no axis names: at the one that makes it so.
        (
            {"/training/seed": [1], "/network/normalization": ["none", "batch"], "/training/batch_size": [1]},
            "/axes/~1training~1batch_size/0",
            "batch_of_one",
        ),
        ({"/network/width": [8192], "/network/depth": [2, 3]}, "/axes/~1network~1width/0", "too_many_parameters"),
        ({"/network": [{}], "/network/depth": [2]}, "/axes/~1network~1depth", "overlapping_axes"),
        ({"/training/seed": [1, 2, 1]}, "/axes/~1training~1seed/2", "duplicate"),
        ({"/training/seed": list(range(1001))}, "/axes", "too_many_members"),
        ({"/training/seed": []}, "/axes/~1training~1seed", "too_short"),
        ({}, "/axes", "too_short"),
        ({"training": [1]}, "/axes/training", "string_pattern_mismatch"),
    ],
)
def test_what_is_refused_says_which_value_of_which_axis(
    lasting: httpx.Client, axes: dict[str, Any], pointer: str, code: str
) -> None:
    problem = assert_problem(lasting.post("/sweeps", json={"base": BASE, "axes": axes}), 422, "VALIDATION_FAILED")
    assert (pointer, code) in {(fault["pointer"], fault["code"]) for fault in problem["errors"]}, problem["errors"]
    assert lasting.get("/experiments").json()["items"] == []
    assert lasting.get("/sweeps").json()["items"] == []


def test_a_value_that_is_wrong_with_others_is_told_once_and_with_which(lasting: httpx.Client) -> None:
    axes = {"/training/seed": [0, 1, 2], "/network/kind": ["mlp", "resnet"], "/network/depth": [4, 5]}
    problem = lasting.post("/sweeps", json={"base": BASE, "axes": axes}).json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["/axes/~1network~1depth/1"]
    assert "with /training/seed = 0, /network/kind = resnet" in problem["errors"][0]["message"]


def test_a_base_that_is_wrong_is_pointed_to(lasting: httpx.Client) -> None:
    answer = lasting.post("/sweeps", json={"base": {"network": {"width": 0}}, "axes": {"/training/seed": [1]}})
    assert assert_problem(answer, 422, "VALIDATION_FAILED")["errors"][0]["pointer"] == "/base/network/width"


def test_a_repeated_request_makes_one_sweep(client: httpx.Client, database: Database) -> None:
    request = {"url": "/sweeps", "json": {"base": BASE, "axes": AXES}, "headers": {"Idempotency-Key": "k"}}
    first, again = client.post(**request), client.post(**request)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert count(database) == 6
    other = client.post("/sweeps", json={"axes": {"/training/seed": [1]}}, headers=request["headers"])
    assert_problem(other, 422, "IDEMPOTENCY_KEY_REUSED")
    assert client.delete(f"/sweeps/{first.json()['id']}").status_code == 204
    assert_problem(client.post(**request), 409, "CREATED_RESOURCE_GONE")


def test_the_whole_sweep_must_find_room(sqlite_template: Path, tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0", maximum_active=7)
    shutil.copy(sqlite_template, str(settings.database.database))
    with serving(settings) as client:
        assert client.post("/experiments", json={}).status_code == 202
        assert client.post("/sweeps", json={"axes": AXES}).status_code == 202
        answer = client.post("/sweeps", json={"axes": AXES})
        assert (
            "7 experiments of yours wait or run, and these are 6"
            in (assert_problem(answer, 429, "TOO_MANY_EXPERIMENTS")["detail"])
        )
        assert len(client.get("/sweeps").json()["items"]) == 1


def test_one_table_shows_what_each_came_to(client: httpx.Client, database: Database) -> None:
    document = post(client)
    ids = [member["experiment_id"] for member in document["members"]]
    for index, (ratio, accuracy) in enumerate([(0.5, 0.7), (0.1, 0.9), (0.3, 0.8)]):
        finish(database, ids[index], ratio, accuracy)
    _, lease = measured.claim(database, ids[3])
    with database.write() as connection:
        leases.finish(connection, lease, Status.FAILED, error={"code": "WORKER_LOST", "message": "lost"})
    record, _ = measured.claim(database, ids[4])
    values = np.ones((len(STATISTICS["output_gradients"]), 2, 3), np.float32)
    values[names("output_gradients").index("norm"), 0] = [0.25, 0.5, 1.0]
    measured.store(database, record, "output_gradients", StatisticsBlock(np.arange(3), values))

    table = client.get(f"/sweeps/{document['id']}/comparison").json()
    SweepComparison.model_validate(table)
    assert table["experiments"] == ids
    assert (table["status"], table["counts"]["failed"], table["counts"]["running"]) == ("running", 1, 1)
    assert table["axes"]["/training/seed"] == [0, 1, 2, 0, 1, 2]
    columns = table["columns"]
    assert columns["status"] == ["succeeded"] * 3 + ["failed", "running", "queued"]
    assert columns["error"] == [None] * 3 + ["WORKER_LOST", None, None]
    assert columns["test_accuracy"] == [0.7, 0.9, 0.8, None, None, None]
    assert columns["delta_ratio_initial"] == [0.5, 0.1, 0.3, None, 0.25, None]
    assert columns["delta_ratio_mean"][4] == pytest.approx(0.5)  # the geometric mean of what runs
    assert columns["cause"] == ["weight_scale"] * 3 + [None] * 3

    def ordered(sort: str) -> list[int]:
        found = client.get(f"/sweeps/{document['id']}/comparison", params={"sort": sort}).json()["experiments"]
        return [ids.index(identifier) for identifier in found]

    assert ordered("-test_accuracy") == [1, 2, 0, 3, 4, 5]
    assert ordered("test_accuracy") == [0, 2, 1, 3, 4, 5]
    assert ordered("delta_ratio_initial") == [1, 4, 2, 0, 3, 5]
    assert ordered("-/training/seed") == [2, 5, 1, 4, 0, 3]
    refused = client.get(f"/sweeps/{document['id']}/comparison", params={"sort": "accuracy"})
    assert assert_problem(refused, 422, "VALIDATION_FAILED")["errors"][0]["pointer"] == "/query/sort"


def test_a_sweep_is_cancelled_and_deleted_as_one(client: httpx.Client, database: Database) -> None:
    document = post(client)
    path, ids = f"/sweeps/{document['id']}", [member["experiment_id"] for member in document["members"]]
    other = client.post("/experiments", json={}).json()["id"]
    finish(database, ids[0], 0.5, 0.9)
    _, lease = measured.claim(database, ids[1])
    assert_problem(client.delete(path), 409, "SWEEP_RUNNING")
    assert count(database) == 7  # nothing was deleted of what could have been

    answer = client.post(f"{path}/cancel")
    assert answer.status_code == 202
    assert answer.json()["counts"] == {"queued": 0, "running": 1, "succeeded": 1, "failed": 0, "cancelled": 4}
    with database.write() as connection:
        assert leases.renew(connection, lease) is True
    measured.finish(database, lease, Status.CANCELLED)
    again = client.post(f"{path}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "ended")
    assert "retry-after" not in client.get(path).headers

    assert client.delete(path).status_code == 204
    assert_problem(client.get(path), 404, "SWEEP_NOT_FOUND")
    assert [item["id"] for item in client.get("/experiments").json()["items"]] == [other]


def test_sweeps_are_listed_page_by_page(client: httpx.Client) -> None:
    made = [post(client, {"/training/seed": [seed]})["id"] for seed in range(5)]
    found: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        answer = client.get("/sweeps", params=query)
        page = SweepPage.model_validate(answer.json())
        found += [sweep.id for sweep in page.items]
        if page.next_cursor is None:
            assert "link" not in answer.headers
            break
        assert 'rel="next"' in answer.headers["link"]
        query["cursor"] = page.next_cursor
    assert found == made[::-1]
    assert_problem(client.get("/experiments", params={"cursor": query["cursor"]}), 422, "INVALID_CURSOR")
    first = client.get("/sweeps")
    unchanged = client.get("/sweeps", headers={"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 304


@pytest.mark.parametrize("identifier", ["swp_" + "0" * 26, "rem_" + "0" * 26, "exp_" + "0" * 26, "x", "swp_%00"])
def test_what_is_no_sweep_is_not_found(lasting: httpx.Client, identifier: str) -> None:
    for method, path in (("GET", ""), ("GET", "/comparison"), ("POST", "/cancel"), ("DELETE", "")):
        assert_problem(lasting.request(method, f"/sweeps/{identifier}{path}"), 404, "SWEEP_NOT_FOUND")
