"""`?wait`, ETags and what may be cached."""

import threading
import time

import httpx

from gradprobe.store import leases
from gradprobe.store.database import Database
from tests.integration.service import measured


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


def test_a_series_can_be_kept_once_the_experiment_has_ended(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    path = f"/experiments/{experiment_id}/weights"
    running = client.get(path)
    record, lease = measured.claim(database, experiment_id)
    measured.write_statistics(database, record, "weights", range(3))
    measured.finish(database, lease)

    ended = client.get(path)

    assert running.headers["cache-control"] == "no-store"
    assert "etag" not in running.headers
    assert ended.headers["cache-control"] == "private, no-cache"
    assert client.get(path, headers={"If-None-Match": ended.headers["etag"]}).status_code == 304


def test_no_answer_is_open_to_other_origins_or_to_guesses_of_its_type(client: httpx.Client, experiment_id: str) -> None:
    for path in ("/", "/livez", f"/experiments/{experiment_id}", "/nothing", "/openapi.json"):
        headers = client.get(path, headers={"Origin": "https://elsewhere.example"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "cache-control" in headers
        assert not [name for name in headers if name.startswith("access-control-")]
