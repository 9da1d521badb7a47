"""`/metrics`: counted in the database, and the same whichever of several processes is asked."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import leases
from gradprobe.store.database import Database
from tests.integration.service import measured
from tests.integration.service.serving import environment_of
from tests.integration.store.transactions import Store

ROOT = Path(__file__).parents[3]


def samples(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    response = client.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_experiments_are_counted_in_the_database(client: httpx.Client, database: Database) -> None:
    before = samples(client)
    assert before["gradprobe_experiments", "queued"] == 0
    assert before["gradprobe_oldest_queued_seconds",] == 0
    first, second, third = (str(client.post("/experiments", json={}).json()["id"]) for _ in range(3))
    _, lease = measured.claim(database, first)
    measured.finish(database, lease)
    measured.claim(database, second)
    Store(database).lose_worker(second)
    Store(database).set(third, created_at=Store(database).clock() - 100.0)

    after = samples(client)
    assert after["gradprobe_database_up",] == 1
    assert {status: after["gradprobe_experiments", status] for status in ("queued", "running", "succeeded")} == {
        "queued": 1,
        "running": 1,
        "succeeded": 1,
    }
    assert after["gradprobe_queued_experiments", "any"] == 1
    assert after["gradprobe_expired_leases",] == 1
    assert 100 <= after["gradprobe_oldest_queued_seconds",] < 200


def test_totals_only_grow(client: httpx.Client, database: Database) -> None:
    """Whatever is deleted, queued again or lost: a rate over a total that falls would be nonsense."""

    def totals() -> dict[str, float]:
        found = samples(client)
        named = {status: found["gradprobe_ended_experiments_total", status] for status in ("succeeded", "failed")}
        return named | {name: found[f"gradprobe_{name}_total",] for name in ("attempts", "lost_leases")}

    assert totals() == {"succeeded": 0, "failed": 0, "attempts": 0, "lost_leases": 0}
    first, second, third = (str(client.post("/experiments", json={}).json()["id"]) for _ in range(3))
    measured.finish(database, measured.claim(database, first)[1])
    store = Store(database)
    measured.claim(database, second)
    store.set(second, maximum_attempts=1)
    measured.claim(database, third)
    for identifier in (second, third):
        store.lose_worker(identifier)
    with database.write() as connection:
        assert leases.recover(connection) == {second: Status.FAILED, third: Status.QUEUED}
    before = totals()
    assert before == {"succeeded": 1, "failed": 1, "attempts": 3, "lost_leases": 2}

    assert client.post(f"/experiments/{second}/retry").status_code == 202
    for identifier in (first, second, third):
        assert client.delete(f"/experiments/{identifier}").status_code == 204
    assert totals() == before


def test_requests_are_counted_by_route_and_not_by_id(client: httpx.Client, experiment_id: str) -> None:
    name = ("gradprobe_http_request_seconds_count", "GET", "/experiments/{experiment_id}/metrics", "200")
    before = samples(client).get(name, 0)
    client.get(f"/experiments/{experiment_id}/metrics")
    client.get("/no/such/path")
    found = samples(client)
    assert found[name] == before + 1
    assert not [labels for labels in found if experiment_id in labels]
    assert found["gradprobe_http_request_seconds_count", "GET", "none", "404"] >= 1


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_several_processes_add_up(service_settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = environment_of(service_settings)
    command = [sys.executable, "-m", "gradprobe", "serve", "--port", str(port), "--processes", "2"]
    name = ("gradprobe_http_request_seconds_count", "GET", "/livez", "200")
    with subprocess.Popen(command, env=environment, cwd=ROOT) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=7), timeout=60) as client:
                client.get("/livez")
            for _ in range(40):  # a connection each, so that both processes get some
                httpx.get(f"{url}/livez", verify=False)
            found = set()
            for _ in range(8):
                with httpx.Client(base_url=url, timeout=60, verify=False) as client:
                    found.add(samples(client)[name])
            assert found == {41.0}
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
