"""`?wait`, ETags and what may be cached."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from gradprobe.settings import Settings
from gradprobe.store import leases
from gradprobe.store.database import Database
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.service import measured
from tests.integration.service.serving import environment_of

ROOT = Path(__file__).parents[3]


def test_waiting_ends_when_the_status_changes(client: httpx.Client, database: Database, experiment_id: str) -> None:
    timer = threading.Timer(0.5, measured.claim, [database, experiment_id])
    timer.start()
    began = time.monotonic()

    response = client.get(f"/experiments/{experiment_id}?wait=20")

    waited = time.monotonic() - began
    timer.join()
    assert response.json()["status"] == "running"
    assert 0.4 < waited < 10


def test_waiting_ends_after_the_time_given(client: httpx.Client, experiment_id: str) -> None:
    began = time.monotonic()

    response = client.get(f"/experiments/{experiment_id}?wait=0.5")

    assert response.json()["status"] == "queued"
    assert 0.5 <= time.monotonic() - began < 5


def test_nobody_waits_for_what_has_ended(client: httpx.Client, experiment_id: str) -> None:
    client.post(f"/experiments/{experiment_id}/cancel")
    began = time.monotonic()

    assert client.get(f"/experiments/{experiment_id}?wait=20").json()["status"] == "cancelled"
    assert time.monotonic() - began < 5


def test_the_etag_changes_with_whatever_the_document_tells(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    path = f"/experiments/{experiment_id}"
    seen: dict[str, bytes] = {}

    def look() -> None:
        response = client.get(path)
        assert seen.setdefault(response.headers["etag"], response.content) == response.content
        assert client.get(path, headers={"If-None-Match": response.headers["etag"]}).status_code == 304

    look()
    client.patch(path, json={"notes": "x"})
    look()
    _, lease = measured.claim(database, experiment_id)
    look()
    with database.write() as connection:
        leases.renew(connection, lease, iteration=7)
    look()
    with database.write() as connection:
        leases.note_provenance(connection, lease, {"seed": 0})
    look()
    measured.finish(database, lease)
    look()
    assert len(seen) == 6


def test_if_none_match_takes_lists_and_weak_tags(client: httpx.Client, experiment_id: str) -> None:
    path = f"/experiments/{experiment_id}"
    etag = client.get(path).headers["etag"]

    for given, status in ((f'"a", W/{etag}', 304), ("*", 304), ('"a"', 200), ("", 200), (etag.strip('"'), 200)):
        response = client.get(path, headers={"If-None-Match": given})
        assert response.status_code == status, given
        assert response.headers["etag"] == etag
        assert bool(response.content) == (status == 200)


@POSTGRESQL_AT_LENGTH
def test_the_server_stops_without_waiting_for_those_who_wait(service_settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = environment_of(service_settings)
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", str(port)]
    with (
        subprocess.Popen(command, env=environment, cwd=ROOT) as server,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=6), timeout=60
        ) as client,
    ):
        path = f"/experiments/{client.post('/experiments', json={}).json()['id']}"
        timer = threading.Timer(0.5, server.terminate)
        timer.start()
        began = time.monotonic()
        answer = client.get(f"{path}?wait=30")
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
        server.wait(20)
        assert time.monotonic() - began < 20
        timer.join()


def test_no_answer_is_open_to_other_origins_or_to_guesses_of_its_type(client: httpx.Client, experiment_id: str) -> None:
    for path in ("/", "/livez", f"/experiments/{experiment_id}", "/nothing", "/openapi.json"):
        headers = client.get(path, headers={"Origin": "https://elsewhere.example"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "cache-control" in headers
        assert not [name for name in headers if name.startswith("access-control-")]
