"""Requests that come twice, at once or on a state that has gone by: each does once what it was meant to do."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import redis
from sqlalchemy import func, select, update

from gradprobe.settings import Settings
from gradprobe.store.database import Database
from gradprobe.store.tables import experiments, idempotency_keys, now
from service.routes import experiments as routes
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving


def count(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(experiments)) or 0


def post(client: httpx.Client, body: Any, key: str) -> httpx.Response:
    return client.post("/experiments", json=body, headers={"Idempotency-Key": key})


def at_once(client: httpx.Client, requests: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    """Sends them from a thread each, all of which begin together."""
    client.get("/livez")
    barrier = threading.Barrier(len(requests))

    def send(request: Callable[[], httpx.Response]) -> httpx.Response:
        barrier.wait()
        return request()

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(send, requests))


def test_the_same_request_again_is_the_same_experiment(
    client: httpx.Client, database: Database, redis_url: str
) -> None:
    first = post(client, {"name": "a", "tags": {"x": "1", "y": "2"}}, "k")
    again = client.post(
        "/experiments",
        content=b'{ "tags": {"y": "2", "x": "1"},\n "name": "a" }',
        headers={"Idempotency-Key": "k", "Content-Type": "application/json"},
    )

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert count(database) == 1
    with redis.Redis.from_url(redis_url) as broker:
        assert sum(broker.llen(key) for key in broker.keys("any*")) == 1


def test_what_comes_again_tells_the_state_of_now(client: httpx.Client) -> None:
    path = post(client, {}, "k").headers["location"]
    client.post(f"{path}/cancel")

    assert post(client, {}, "k").json()["status"] == "cancelled"


def test_without_a_key_or_with_another_each_is_its_own(client: httpx.Client, database: Database) -> None:
    for key in ("a", "b", "A", "a a"):
        assert post(client, {}, key).status_code == 202
    for _ in range(2):
        assert client.post("/experiments", json={}).status_code == 202
    assert count(database) == 6


def test_a_key_with_another_request_is_refused(client: httpx.Client, database: Database) -> None:
    post(client, {"name": "a"}, "k")

    problem = assert_problem(post(client, {"name": "b"}, "k"), 422, "IDEMPOTENCY_KEY_REUSED")

    assert problem["errors"][0]["pointer"] == "/header/idempotency-key"
    assert count(database) == 1


def test_what_was_refused_is_not_remembered(client: httpx.Client) -> None:
    assert_problem(post(client, {"network": {"depth": 0}}, "k"), 422, "VALIDATION_FAILED")
    assert_problem(post(client, {"name": 1}, "k"), 422, "VALIDATION_FAILED")

    response = post(client, {}, "k")
    assert response.status_code == 202
    assert "idempotency-replayed" not in response.headers


def test_what_was_deleted_is_not_made_again(client: httpx.Client, database: Database) -> None:
    path = post(client, {}, "k").headers["location"]
    client.delete(path)

    assert_problem(post(client, {}, "k"), 409, "CREATED_RESOURCE_GONE")
    assert count(database) == 0


@pytest.mark.parametrize("key", ["", "x" * 256, "\xe4", "a\tb"])
def test_a_key_of_another_form_is_refused(client: httpx.Client, database: Database, key: str) -> None:
    response = client.post("/experiments", json={}, headers={b"Idempotency-Key": key.encode("latin-1")})

    problem = assert_problem(response, 422, "VALIDATION_FAILED")
    assert problem["errors"][0]["pointer"] == "/header/idempotency-key"
    assert count(database) == 0
    assert post(client, {}, "x" * 255).status_code == 202


def test_a_key_is_forgotten_after_its_time(client: httpx.Client, database: Database) -> None:
    first = post(client, {}, "k").json()["id"]
    with database.write() as connection:
        connection.execute(update(idempotency_keys).values(created_at=now() - 23.9 * 3600))
    assert post(client, {}, "k").json()["id"] == first

    with database.write() as connection:
        connection.execute(update(idempotency_keys).values(created_at=now() - 24.1 * 3600))
    assert post(client, {"name": "other"}, "k").json()["id"] != first


def test_many_at_once_are_one_experiment(client: httpx.Client, database: Database) -> None:
    answers = at_once(client, [lambda: post(client, {"name": "one"}, "k")] * 12)

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert count(database) == 1


def test_a_request_that_was_rolled_back_is_not_remembered(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and experiment are one transaction: one can't be stored without the other."""
    submit = routes.submit

    def fail(*arguments: Any) -> Any:
        submit(*arguments)
        raise RuntimeError("after both were written")

    with monkeypatch.context() as patched:
        patched.setattr(routes, "submit", fail)
        assert_problem(post(client, {}, "k"), 500, "INTERNAL")
    assert count(database) == 0

    assert "idempotency-replayed" not in post(client, {}, "k").headers
    assert count(database) == 1


def send_if(client: httpx.Client, method: str, path: str, tag: str) -> httpx.Response:
    body = {"name": "changed"} if method == "PATCH" else None
    return client.request(method, path, json=body, headers={"If-Match": tag})


CONDITIONAL = [("PATCH", "", 200), ("POST", "/cancel", 202), ("DELETE", "", 204)]


@pytest.mark.parametrize(("method", "part", "status"), [*CONDITIONAL, ("POST", "/retry", 202)])
def test_a_state_that_has_gone_by_is_not_changed(
    client: httpx.Client, experiment_id: str, method: str, part: str, status: int
) -> None:
    path = f"/experiments/{experiment_id}"
    if part == "/retry":
        client.post(f"{path}/cancel")
    old = client.get(path).headers["etag"]
    now_known = client.patch(path, json={"notes": "meanwhile"}).headers["etag"]
    before = client.get(path).json()

    for stale in (old, f"W/{now_known}", '"nonsense"', f'"{"9" * 5000}-x"'[:4000], f"{old}, {old}", ""):
        assert_problem(send_if(client, method, path + part, stale), 412, "PRECONDITION_FAILED")
    assert client.get(path).json() == before

    assert now_known == client.get(path).headers["etag"]
    assert send_if(client, method, path + part, f"{old}, {now_known}").status_code == status


@pytest.mark.parametrize("coding", ["gzip", "zstd", "identity"])
def test_the_tag_of_any_coding_is_of_the_same_state(client: httpx.Client, experiment_id: str, coding: str) -> None:
    path = f"/experiments/{experiment_id}"
    tag = client.get(path, headers={"Accept-Encoding": coding}).headers["etag"]

    assert send_if(client, "PATCH", path, tag).status_code == 200
    assert_problem(send_if(client, "PATCH", path, tag), 412, "PRECONDITION_FAILED")
    assert send_if(client, "PATCH", path, "*").status_code == 200


@pytest.mark.parametrize(("method", "part"), [(method, part) for method, part, _ in CONDITIONAL])
def test_of_two_at_once_on_one_state_one_is_too_late(
    client: httpx.Client, experiment_id: str, method: str, part: str
) -> None:
    path = f"/experiments/{experiment_id}"
    tag = client.get(path).headers["etag"]

    answers = at_once(client, [lambda: send_if(client, method, path + part, tag)] * 6)

    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] < 300
    assert set(codes[1:]) <= {404, 412}


def test_an_experiment_that_is_not_there_is_not_found_whatever_the_condition(client: httpx.Client) -> None:
    for identifier in ("exp_" + "0" * 26, "nothing"):
        for tag in ('"1-0.1.0"', "*"):
            response = send_if(client, "PATCH", f"/experiments/{identifier}", tag)
            assert_problem(response, 404, "EXPERIMENT_NOT_FOUND")


def test_an_owner_has_as_many_as_may_wait_and_run(service_settings: Settings, database: Database) -> None:
    with serving(service_settings.model_copy(update={"maximum_active": 3})) as client:
        answers = at_once(client, [lambda: client.post("/experiments", json={})] * 9)
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [202] * 3 + [429] * 6
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert "3 experiments" in assert_problem(refused, 429, "TOO_MANY_EXPERIMENTS")["detail"]
        assert int(refused.headers["retry-after"]) >= 1

        made = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        _, lease = measured.claim(database, made[0])
        assert_problem(client.post("/experiments", json={}), 429, "TOO_MANY_EXPERIMENTS")
        measured.finish(database, lease)
        assert client.post("/experiments", json={}).status_code == 202


def test_what_is_refused_for_want_of_room_can_be_sent_again_with_its_key(service_settings: Settings) -> None:
    with serving(service_settings.model_copy(update={"maximum_active": 1})) as client:
        path = post(client, {}, "first").headers["location"]
        assert post(client, {}, "first").headers["idempotency-replayed"] == "true"
        assert_problem(post(client, {}, "second"), 429, "TOO_MANY_EXPERIMENTS")
        client.post(f"{path}/cancel")
        assert "idempotency-replayed" not in post(client, {}, "second").headers
        assert_problem(client.post(f"{path}/retry"), 429, "TOO_MANY_EXPERIMENTS")
        assert client.get(path).json()["status"] == "cancelled"


def test_no_more_wait_than_may(service_settings: Settings, database: Database) -> None:
    with serving(service_settings.model_copy(update={"maximum_waiting": 1})) as client:
        made = client.post("/experiments", json={}).json()["id"]
        refused = client.post("/experiments", json={})
        assert_problem(refused, 429, "QUEUE_FULL")
        assert int(refused.headers["retry-after"]) >= 1
        measured.claim(database, made)
        assert client.post("/experiments", json={}).status_code == 202
