"""Two processes of the service behind one socket, restarted one after the other while clients post and read.

A connection that was accepted and not yet read from when its process stops is reset: nothing was done, and sending
again is safe. No other request fails.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from gradprobe.store.database import Database
from gradprobe.store.experiments import page
from gradprobe.store.listing import Filters
from tests.acceptance.conftest import until

pytestmark = pytest.mark.faults

CLIENTS = 4
RESTARTS = 4


class Clients:
    """Each posts and reads over a connection of its own a request, as one behind a load balancer does."""

    def __init__(self, url: str) -> None:
        self.accepted: list[str] = []
        self.reset: list[str] = []
        self.failures: list[str] = []
        self._url = url
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def _run(self, number: int) -> None:
        turn = 0
        while not self._stopped.is_set():
            turn += 1
            posted = self._send("POST", "/experiments", 202, json={"name": f"{number} {turn}"})
            self.accepted.append(posted["name"])
            self._send("GET", f"/experiments/{posted['id']}", 200)

    def _send(self, method: str, path: str, expected: int, **body: Any) -> dict[str, Any]:
        while True:
            try:
                answer = httpx.request(method, self._url + path, timeout=30, trust_env=False, **body)
            except (httpx.ReadError, httpx.RemoteProtocolError) as error:
                self.reset.append(f"{method} {path}: {error!r}")
                continue
            if answer.status_code != expected:
                self.failures.append(f"{method} {path}: {answer.status_code} {answer.text}")
            return dict(answer.json())

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def serving(listener: socket.socket, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--fd", str(listener.fileno()),
        "--timeout-graceful-shutdown", "5",
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, pass_fds=[listener.fileno()]
        )
    try:
        until(lambda: b"startup complete" in log.read_bytes(), 60, "the service's start")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_no_request_is_lost(sqlite_template: Path, tmp_path: Path, redis_url: str) -> None:
    database = tmp_path / "gradprobe.db"
    database.write_bytes(sqlite_template.read_bytes())
    environment = {
        **os.environ,
        "GRADPROBE_DATA_DIRECTORY": str(tmp_path),
        "GRADPROBE_REDIS_URL": redis_url,
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with serving(listener, environment, tmp_path / "0.log"), Clients(url) as clients:
            for turn in range(1, RESTARTS + 1):
                with serving(listener, environment, tmp_path / f"{turn}.log"):
                    time.sleep(0.5)
            before = len(clients.accepted)
            until(lambda: len(clients.accepted) > before, 30, "an answer after the last restart")
    assert clients.failures == []
    assert len(clients.reset) <= CLIENTS * RESTARTS
    assert len(clients.accepted) > 20
    opened = Database(make_url(f"sqlite:///{database}"))
    with opened.read() as connection:
        stored = [record.name for record in page(connection, Filters(), None, 100_000)]
    opened.close()
    assert sorted(map(str, stored)) == sorted(clients.accepted)
