"""The whole stack as real processes: API, worker, broker, database."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, expect

from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.resources import Experiment
from gradprobe.settings import Settings
from tests.acceptance.browser import launched
from worker.data import load

# A machine that is shared draws a chart in more than Playwright's five seconds now and then.
expect.set_options(timeout=20_000)

#: Quick recovery, so that a test of a lost worker takes seconds.
LEASE_SECONDS, HEARTBEAT_SECONDS = 2.0, 0.5
SYNTHETIC = {"dataset": "synthetic", "training": {"iterations": 300}}


@pytest.fixture(scope="session")
def mnist_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the four IDX files, from the machine's own cache, fetched where there is none yet."""
    settings = Settings()
    load("mnist", "unit", settings)
    return settings.dataset_cache


def make_settings(directory: Path, datasets: Path, **more: Any) -> Settings:
    return Settings(
        data_directory=directory,
        datasets_directory=datasets,
        lease_seconds=LEASE_SECONDS,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        reconcile_seconds=0.5,
        flush_seconds=0.3,
        **more,
    )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, mnist_directory: Path) -> Iterator[Stack]:
    """One embedded stack for all tests that leave it whole: SQLite, its own broker, one worker."""
    with Stack(make_settings(tmp_path_factory.mktemp("stack"), mnist_directory, log_format="json")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as opened:
        yield opened


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url) as opened:
        yield opened


def curl(*arguments: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers (lower case) and JSON body, by the real curl."""
    program = shutil.which("curl")
    assert program, "these tests speak to the API as a stranger does; install curl"
    done = subprocess.run([program, "-sS", "-i", *arguments], capture_output=True, check=True, timeout=30)
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body) if body else None


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "the condition") -> Any:
    """What `condition` returns once it is truthy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"{what} did not hold within {seconds:g} s")


def running_past(client: Client, identifier: str, iteration: int) -> Experiment:
    """The experiment, once it runs and has stored this many iterations."""

    def past() -> Experiment | None:
        found = client.get(identifier)
        assert not found.status.ended, f"ended too early: {found.status} {found.error}"
        return found if found.status == "running" and found.progress.iteration > iteration else None

    return until(past, what=f"training past iteration {iteration}")


def pool_children(stack: Stack) -> list[psutil.Process]:
    """The worker's children that train."""
    workers = [child for child in stack.children if child.name.startswith("worker")]
    assert workers
    return [
        process
        for worker in workers
        for process in psutil.Process(worker.pid).children(recursive=True)
        if "spawn_main" in " ".join(process.cmdline())
    ]
