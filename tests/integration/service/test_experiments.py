"""The life of an experiment over HTTP, on both databases."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
import redis

from gradprobe.resources import Experiment
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import experiments, leases
from gradprobe.store.database import Database
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem


def test_an_empty_spec_is_the_classic_experiment_and_comes_back_complete(client: httpx.Client) -> None:
    response = client.post("/experiments", json={})

    body = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/experiments/{body['id']}"
    assert response.headers["retry-after"] == "1"
    assert body["spec"] == Spec().model_dump(mode="json")
    assert (body["status"], body["progress"]) == ("queued", {"iteration": 0, "iterations": 2500})
    assert Experiment.model_validate(body).id == body["id"]
    assert client.get(response.headers["location"]).json() == body


def test_times_are_utc_to_the_millisecond(client: httpx.Client) -> None:
    created = client.post("/experiments", json={}).json()["created_at"]

    assert len(created) == len("2026-01-02T03:04:05.678Z")
    assert created.endswith("Z")
    assert abs(datetime.fromisoformat(created) - datetime.now(UTC)) < timedelta(seconds=30)


def test_a_submitted_experiment_rings_for_a_worker_and_is_marked_sent(
    client: httpx.Client, database: Database, redis_url: str
) -> None:
    created = client.post("/experiments", json={}).json()["id"]

    with redis.Redis.from_url(redis_url) as broker:
        assert sum(broker.llen(key) for key in broker.keys("any*")) == 1
    with database.read() as connection:
        assert [record.id for record in experiments.waiting(connection, resend_seconds=30)] == []
        assert experiments.get(connection, created).status is Status.QUEUED


def test_every_link_leads_somewhere(client: httpx.Client, experiment_id: str) -> None:
    links = client.get(f"/experiments/{experiment_id}").json()["links"]

    assert set(links) == {"self", "gradients", "histograms", "weights", "activations", "metrics", "diagnosis", "events"}
    for link in links.values():
        with client.stream("GET", link) as response:  # one of them goes on as long as the experiment
            assert response.status_code == 200, link


def test_the_request_id_is_echoed_and_kept_with_the_experiment(client: httpx.Client, database: Database) -> None:
    response = client.post("/experiments", json={}, headers={"X-Request-ID": "course.7_a-b"})

    assert response.headers["x-request-id"] == "course.7_a-b"
    with database.read() as connection:
        assert experiments.get(connection, response.json()["id"]).request_id == "course.7_a-b"


@pytest.mark.parametrize("given", ["with space", "x" * 129, "umlaut-\xe4", ""])
def test_a_request_id_of_another_form_is_replaced(client: httpx.Client, given: str) -> None:
    response = client.get("/livez", headers={b"X-Request-ID": given.encode("latin-1")})

    assert response.headers["x-request-id"] != given
    assert len(response.headers["x-request-id"]) == 32


def test_only_what_is_given_changes(client: httpx.Client, experiment_id: str) -> None:
    path = f"/experiments/{experiment_id}"
    client.patch(path, json={"name": "first", "tags": {"a": "1"}, "notes": "line\nline"})

    changed = client.patch(path, json={"name": None}).json()

    assert (changed["name"], changed["tags"], changed["notes"]) == (None, {"a": "1"}, "line\nline")
    assert client.patch(path, json={}).json()["notes"] == "line\nline"
    assert client.get(path).json()["tags"] == {"a": "1"}


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"status": "succeeded"}, "/status", "unknown_field"),
        ({"tags": None}, "/tags", "object_type"),
        ({"tags": {"a": 1}}, "/tags/a", "string_type"),
        ({"notes": "a\x00b"}, "/notes", "control_character"),
        ({"name": ""}, "/name", "string_too_short"),
    ],
)
def test_what_can_not_be_changed_is_refused(
    client: httpx.Client, experiment_id: str, changes: dict[str, object], pointer: str, code: str
) -> None:
    before = client.get(f"/experiments/{experiment_id}").json()

    body = assert_problem(client.patch(f"/experiments/{experiment_id}", json=changes), 422, "VALIDATION_FAILED")

    assert (body["errors"][0]["pointer"], body["errors"][0]["code"]) == (pointer, code)
    assert client.get(f"/experiments/{experiment_id}").json() == before


def test_cancelling_what_waits_ends_it_and_once_more_changes_nothing(client: httpx.Client, experiment_id: str) -> None:
    first = client.post(f"/experiments/{experiment_id}/cancel")
    second = client.post(f"/experiments/{experiment_id}/cancel")

    assert (first.status_code, first.json()["status"]) == (202, "cancelled")
    assert second.status_code == 200
    assert second.json() == first.json()
    assert "retry-after" not in second.headers


def test_cancelling_what_runs_asks_its_worker(client: httpx.Client, database: Database, experiment_id: str) -> None:
    _, lease = measured.claim(database, experiment_id)

    response = client.post(f"/experiments/{experiment_id}/cancel")

    assert (response.status_code, response.json()["status"]) == (202, "running")
    assert response.headers["retry-after"] == "1"
    with database.write() as connection:
        assert leases.renew(connection, lease) is True


def test_what_was_cancelled_can_be_tried_again_and_rings_again(
    client: httpx.Client, experiment_id: str, redis_url: str
) -> None:
    client.post(f"/experiments/{experiment_id}/cancel")
    with redis.Redis.from_url(redis_url) as broker:
        broker.flushdb()

        response = client.post(f"/experiments/{experiment_id}/retry")

        assert response.status_code == 202
        assert response.headers["location"] == f"/experiments/{experiment_id}"
        assert (response.json()["status"], response.json()["finished_at"]) == ("queued", None)
        assert len(broker.keys("any*")) == 1


def test_what_has_not_failed_is_not_tried_again(client: httpx.Client, experiment_id: str) -> None:
    assert_problem(client.post(f"/experiments/{experiment_id}/retry"), 409, "EXPERIMENT_NOT_ENDED")


def test_deleting_takes_the_experiment_and_what_it_measured(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    record, lease = measured.claim(database, experiment_id)
    measured.write_statistics(database, record, "weights", range(3))
    assert_problem(client.delete(f"/experiments/{experiment_id}"), 409, "EXPERIMENT_RUNNING")
    measured.finish(database, lease)

    response = client.delete(f"/experiments/{experiment_id}")

    assert (response.status_code, response.content) == (204, b"")
    assert_problem(client.get(f"/experiments/{experiment_id}"), 404, "EXPERIMENT_NOT_FOUND")
    assert_problem(client.get(f"/experiments/{experiment_id}/weights"), 404, "EXPERIMENT_NOT_FOUND")
    assert_problem(client.delete(f"/experiments/{experiment_id}"), 404, "EXPERIMENT_NOT_FOUND")


def test_an_ended_experiment_tells_its_result(client: httpx.Client, database: Database, experiment_id: str) -> None:
    _, lease = measured.claim(database, experiment_id)
    measured.finish(database, lease)

    response = client.get(f"/experiments/{experiment_id}")

    ended = Experiment.model_validate_json(response.content)
    assert ended.result is not None
    assert ended.result.model_dump() == measured.RESULT
    assert ended.attempt == 1
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.created_at <= ended.started_at <= ended.finished_at
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("GET", "/gradients"),
        ("GET", "/gradients/histograms"),
        ("GET", "/metrics"),
    ],
)
def test_an_unknown_experiment_is_not_found(client: httpx.Client, method: str, part: str) -> None:
    body: dict[str, str] | None = {} if method == "PATCH" else None

    for identifier in ("exp_0", "nothing", "exp_" + "0" * 26, "exp_" + "0" * 26 + "%0A", "%00", "%ff", "%ed%a0%80"):
        assert_problem(
            client.request(method, f"/experiments/{identifier}{part}", json=body), 404, "EXPERIMENT_NOT_FOUND"
        )
