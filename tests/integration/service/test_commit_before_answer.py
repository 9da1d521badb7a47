"""Accepted means committed: seen from outside, over a socket, with commits that are slow or fail."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import text

from gradprobe.settings import Settings
from gradprobe.store import experiments
from gradprobe.store.database import Database
from tests.integration.service.serving import serving

# Deferred, so that it runs inside COMMIT and not inside INSERT.
TRIGGER = """
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON experiments
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()
"""


@pytest.fixture
def poster() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def count(database: Database) -> int:
    with database.read() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM experiments")) or 0)


def at_commit(database: Database, action: str) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(TRIGGER.format(action=action))


def test_while_the_database_is_locked_nothing_is_accepted(
    service_settings: Settings, database: Database, poster: ThreadPoolExecutor
) -> None:
    with serving(service_settings) as client:
        with database.write() as connection:
            if not database.is_sqlite:  # SQLite's BEGIN IMMEDIATE has locked it already
                connection.execute(text("LOCK TABLE experiments IN EXCLUSIVE MODE"))
            answer: Future[httpx.Response] = poster.submit(client.post, "/experiments", json={})
            time.sleep(0.7)
            assert not answer.done()
        response = answer.result(timeout=20)

        assert response.status_code == 202
        with database.read() as connection:
            assert experiments.get(connection, response.json()["id"]).id == response.json()["id"]


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_the_answer_comes_after_a_slow_commit(client: httpx.Client, database: Database) -> None:
    at_commit(database, "PERFORM pg_sleep(0.7)")
    began = time.monotonic()

    response = client.post("/experiments", json={})

    assert response.status_code == 202
    assert time.monotonic() - began >= 0.7
    assert count(database) == 1


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_commit_that_fails_is_never_accepted(client: httpx.Client, database: Database) -> None:
    at_commit(database, "RAISE EXCEPTION 'the disk is full'")

    response = client.post("/experiments", json={})

    assert response.status_code >= 500
    assert "disk" not in response.text
    assert count(database) == 0
