"""Loops that report: `gradprobe.watch` with a URL, and the two calls under it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from sqlalchemy import update
from torch import nn

import gradprobe
from gradprobe.blocks import StatisticsBlock
from gradprobe.reports import Report
from gradprobe.settings import Settings
from gradprobe.store import experiments, leases, tables
from gradprobe.store.database import Database
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import environment_of
from tests.unit.gradprobe.watching.loops import batches, chain, train, watched

SPEC: dict[str, Any] = {
    "network": {"measured": [{"name": "only", "weight_shape": [2, 3], "output_shape": [2]}]},
    "optimizer": {"name": "SGD", "learning_rate": 0.1},
}


def report(start: int, stop: int) -> dict[str, Any]:
    return {"start": start, "stop": stop, "statistics": {"weight_gradients": values(range(start, stop))}}


def values(steps: range) -> dict[str, Any]:
    block = StatisticsBlock(
        np.array(steps), np.arange(7, dtype=np.float32)[:, None, None] + np.array(steps, np.float32)
    )
    found: dict[str, Any] = Report.of(steps.start, steps.stop, {"weight_gradients": block}, {}).model_dump(mode="json")[
        "statistics"
    ]["weight_gradients"]
    return found


@pytest.fixture
def run_id(client: httpx.Client) -> str:
    answer = client.post("/runs", json=SPEC)
    assert answer.status_code == 201, answer.text
    assert answer.json()["source"] == "watched"
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ([[3], [2, 3]], "the weights of 0 have the shape [3]"),
        ([[4, 3], [2, 4, 5, 5]], "the weights of 1 have the shape [2, 4, 5, 5]"),
        ([[4, 3], [2, 5]], "1 does not take as many inputs as 0 has outputs"),
        ([[4, 3], [2, 4]], None),
    ],
)
def test_layers_that_are_no_chain_are_told_as_such(
    client: httpx.Client, shapes: list[list[int]], reason: str | None
) -> None:
    """Whoever writes a report by hand may leave `unknown` out; theory is asked only of what it knows."""
    measured = [
        {"name": str(number), "weight_shape": shape, "output_shape": [2]} for number, shape in enumerate(shapes)
    ]
    made = client.post("/runs", json={**SPEC, "network": {"measured": measured}}).json()
    found = client.get(f"/experiments/{made['id']}/diagnosis")
    assert found.status_code == 200, found.text
    assert (found.json()["prediction"] is None) == (reason is not None)
    assert (made["spec"]["network"]["unknown"] or "").startswith(reason or "")


@pytest.mark.parametrize("bias", [1e39, -1e300])
def test_moments_beyond_single_precision_are_refused(client: httpx.Client, bias: float) -> None:
    layer = {"name": "0", "weight_shape": [2, 3], "output_shape": [2], "bias_mean": bias}
    answer = client.post("/runs", json={**SPEC, "network": {"measured": [layer]}})
    assert_problem(answer, 422, "VALIDATION_FAILED")


def test_a_watched_loop_is_read_like_an_experiment(client: httpx.Client) -> None:
    model = chain(depth=8)
    with watched(model, url=str(client.base_url), name="mine", tags={"of": "me"}) as (watching, optimizer):
        train(model, optimizer, batches())
    path = f"/experiments/{watching.id}"
    record = client.get(path).json()
    assert (record["status"], record["verdict"], record["name"]) == ("succeeded", "vanishing", "mine")
    assert record["progress"] == {"iteration": 12, "iterations": 12}
    for of, part in (("weights", "gradients"), ("outputs", "gradients?of=outputs")):
        document = client.get(f"{path}/{part}").json()
        mine = watching.gradients(of)  # type: ignore[arg-type]
        assert document["steps"] == mine.steps.tolist()
        for layer in document["layers"]:
            np.testing.assert_allclose(layer["statistics"]["norm"], mine[layer["name"]]["norm"], rtol=1e-6)
    assert client.get(f"{path}/diagnosis").json()["summary"] == watching.diagnosis().summary
    histograms = client.get(f"{path}/gradients/histograms").json()
    first = histograms["layers"][0]
    assert sum(first["counts"][0]) + first["zero"][0] + first["nonfinite"][0] == first["size"]
    assert [item["id"] for item in client.get("/experiments", params={"tag": "of:me"}).json()["items"]] == [watching.id]
    for part in ("weights", "activations", "metrics"):
        assert client.get(f"{path}/{part}").status_code == 200
    assert "event: end" in client.get(f"{path}/events").text
    assert client.delete(path).status_code == 204


def test_a_report_sent_again_changes_nothing_and_a_gap_is_refused(client: httpx.Client, run_id: str) -> None:
    path = f"/runs/{run_id}/statistics"
    for start, stop in ((0, 5), (0, 5), (3, 9), (9, 12), (0, 5)):
        assert client.post(path, json=report(start, stop)).status_code == 200
    assert_problem(client.post(path, json=report(14, 16)), 409, "STEPS_MISSING")
    found = client.get(f"/experiments/{run_id}/gradients", params={"statistics": "mean_abs"}).json()
    assert found["steps"] == list(range(12))
    assert found["layers"][0]["statistics"]["mean_abs"] == [float(step) for step in range(12)]


def test_what_does_not_fit_is_refused_with_its_place(client: httpx.Client, run_id: str) -> None:
    wrong = report(0, 3)
    wrong["statistics"]["weight_gradients"]["values"] = "AAAA"
    problem = assert_problem(client.post(f"/runs/{run_id}/statistics", json=wrong), 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["pointer"] == "/statistics/weight_gradients/values"
    beyond = report(0, 3) | {"stop": 2}
    assert client.post(f"/runs/{run_id}/statistics", json=beyond).status_code == 422
    assert_problem(client.post(f"/runs/{run_id}/statistics", json={"start": 0, "stop": 10**9}), 409, "RUN_TOO_LONG")


def test_a_run_is_begun_once(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "this run"}
    first, second = (client.post("/runs", json=SPEC, headers=key) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"


def test_no_worker_takes_it_and_nobody_trains_it_again(client: httpx.Client, database: Database, run_id: str) -> None:
    with database.write() as connection:
        lapse = update(tables.experiments).where(tables.experiments.c.id == run_id)
        connection.execute(lapse.values(lease_until=0.0, maximum_attempts=9))
        assert leases.claim(connection, run_id, "worker", 60.0) is None
        assert experiments.waiting(connection, 0.0) == []
    assert_problem(client.post(f"/experiments/{run_id}/remedies", json={}), 409, "RUN_NOT_TRAINED_HERE")
    with database.write() as connection:
        assert dict(leases.recover(connection)) == {run_id: "failed"}
    assert client.get(f"/experiments/{run_id}").json()["error"]["code"] == "RUN_LOST"
    assert_problem(client.post(f"/experiments/{run_id}/retry"), 409, "RUN_NOT_TRAINED_HERE")
    # It was only cut off, and is found again.
    revived = client.post(f"/runs/{run_id}/statistics", json=report(0, 5)).json()
    assert (revived["status"], revived["error"]) == ("running", None)


def test_an_experiment_takes_no_reports(client: httpx.Client, experiment_id: str) -> None:
    assert_problem(client.post(f"/runs/{experiment_id}/statistics", json=report(0, 5)), 409, "NOT_A_RUN")
    assert_problem(client.post(f"/runs/{experiment_id}/end", json={}), 409, "NOT_A_RUN")


def test_what_has_ended_takes_nothing_new(client: httpx.Client, run_id: str) -> None:
    client.post(f"/runs/{run_id}/statistics", json=report(0, 5))
    ended = client.post(f"/runs/{run_id}/end", json={"status": "failed", "message": "ValueError: mine"}).json()
    assert ended["error"] == {"code": "LOOP_FAILED", "message": "ValueError: mine"}
    assert client.post(f"/runs/{run_id}/end", json={}).json()["status"] == "failed"
    assert client.post(f"/runs/{run_id}/statistics", json=report(0, 5)).status_code == 200
    assert_problem(client.post(f"/runs/{run_id}/statistics", json=report(5, 6)), 409, "RUN_ENDED")


def test_a_cancelled_run_stops_reporting_and_not_the_loop(client: httpx.Client) -> None:
    model = chain()
    with watched(model, url=str(client.base_url)) as (watching, optimizer):
        train(model, optimizer, batches(2))
        watching.diagnosis()
        until(lambda: watching.id is not None)
        assert client.post(f"/experiments/{watching.id}/cancel").status_code == 202
        train(model, optimizer, batches(2))
        watching.diagnosis()
        until(lambda: client.get(f"/experiments/{watching.id}").json()["status"] == "cancelled")
        train(model, optimizer, batches(2))
    assert "cancelled on the server" in "; ".join(watching.left_out)
    assert watching.steps == 6
    assert len(watching.gradients().steps) == 6


def until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def server(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The real service in a process of its own, killed at the end if not before."""
    command = [sys.executable, "-m", "gradprobe", "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment_of(settings) | {"PYTHONPATH": str(Path.cwd())})
    try:
        url = f"http://127.0.0.1:{port}/livez"
        until(lambda: answers(url), 60)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


#: A third of a minute each: on PostgreSQL with `make faults`.
@pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.faults)], indirect=True
)
def test_a_killed_server_loses_nothing_and_slows_nothing(
    service_settings: Settings, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprobe.watching.reporter._MEMORY_BYTES", 2_000)  # so that the disk is used as well
    plain = chain(activation=nn.Tanh)
    optimizer = descent(plain)
    expected = train(plain, optimizer, batches(60))
    model = chain(activation=nn.Tanh)
    losses: list[float] = []
    with server(service_settings, unused_port) as process:
        watching = gradprobe.watch(model, optimizer := descent(model), url=f"http://127.0.0.1:{unused_port}")
        losses += train(model, optimizer, batches(60)[:20])
        watching.diagnosis()  # hands on what there is
        until(lambda: watching.id is not None)
        process.kill()
        process.wait()
        for number in range(20, 40):
            began = time.perf_counter()
            losses += train(model, optimizer, batches(60)[number : number + 1])
            watching.diagnosis()
            assert time.perf_counter() - began < 2.0
    with server(service_settings, unused_port):
        losses += train(model, optimizer, batches(60)[40:])
        watching.end()
        with httpx.Client(base_url=f"http://127.0.0.1:{unused_port}", trust_env=False) as client:
            record = client.get(f"/experiments/{watching.id}").json()
            found = client.get(f"/experiments/{watching.id}/gradients", params={"of": "outputs"}).json()
    assert losses == expected
    assert (record["status"], record["progress"]["iteration"]) == ("succeeded", 60)
    mine = watching.gradients("outputs")
    assert found["steps"] == list(range(60))
    np.testing.assert_allclose(
        [layer["statistics"]["norm"] for layer in found["layers"]], mine.matrix("norm"), rtol=1e-6
    )


def descent(model: nn.Module) -> Any:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
