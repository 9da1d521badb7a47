"""Two services on one PostgreSQL, a worker, and nginx in front of them with TLS, as the documents have it set up."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from gradprobe.embedded.broker import free_port
from gradprobe.embedded.children import Child
from tests.acceptance.conftest import until
from tests.acceptance.proxy import SERVED_BY, Certificate, changed, proxied, site

#: Scaled, as the proxy's times are where they are tried: the longest silence of a stream.
KEEPALIVE_SECONDS = 1.0
_PATIENCE = 15.0


@dataclass
class Several:
    """What runs, and how to speak to it."""

    url: str
    services: dict[str, Child]
    ports: list[int]
    certificate: Certificate
    directory: Path
    key: str

    def client(self, url: str | None = None, key: str | None = None) -> httpx.Client:
        """Through the proxy, with the key."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"} if key != "" else {}
        verify = self.certificate.context()
        return httpx.Client(base_url=url or self.url, headers=headers, verify=verify, timeout=30, trust_env=False)

    @contextmanager
    def behind(self, *changes: tuple[str, str]) -> Iterator[str]:
        """The URL of another proxy in front of the same services, with other values than the page's."""
        name = f"nginx-{len(list(self.directory.iterdir()))}"
        with proxied(changed(site(), *changes), self.ports, self.certificate, self.directory / name) as url:
            yield url

    def start(self, address: str) -> None:
        """Start the service that has this address, and wait until it is ready."""
        self.services[address].start()
        until(lambda: _ready(self.services[address], address), 60, f"the start of {address}")

    def until_asked(self, address: str) -> None:
        """Wait until the proxy asks this service again: for a while it does not, once it had found it away."""
        with self.client() as client:
            until(lambda: answering(client.get("/livez")) == address, 30, f"a request to {address}")

    def stop(self, address: str) -> None:
        """Ask it to end, and wait until it has."""
        self.services[address].stop()

    def kill(self, address: str) -> None:
        """Leave it no time."""
        self.services[address].patience = 0.0
        self.services[address].stop()
        self.services[address].patience = _PATIENCE


@contextmanager
def several(database_url: str, redis_url: str, directory: Path) -> Iterator[Several]:
    """All of it, started and stopped."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADPROBE_")} | {
        "GRADPROBE_DATABASE_URL": database_url,
        "GRADPROBE_REDIS_URL": redis_url,
        "GRADPROBE_DATA_DIRECTORY": str(directory / "data"),
        "GRADPROBE_KEEPALIVE_SECONDS": str(KEEPALIVE_SECONDS),
        "GRADPROBE_FLUSH_SECONDS": "0.2",
        "GRADPROBE_LOG_FORMAT": "json",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONUNBUFFERED": "1",
    }
    ports = [free_port(), free_port()]
    services = {f"127.0.0.1:{port}": _service(port, directory, environment) for port in ports}
    worker = _worker(directory, environment)
    certificate = Certificate.made(directory)
    made = subprocess.run(
        [sys.executable, "-m", "gradprobe", "keys", "create", "team"],
        env=environment, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    running = Several("", services, ports, certificate, directory, made.stdout.split()[0])
    try:
        worker.start()
        for address in services:
            running.start(address)
        until(lambda: " ready." in worker.output(), 90, "the worker's start")
        with proxied(site(), ports, certificate, directory / "nginx") as running.url:
            yield running
    finally:
        for child in (*services.values(), worker):
            child.stop()


def _service(port: int, directory: Path, environment: dict[str, str]) -> Child:
    command = (sys.executable, "-m", "gradprobe", "serve", "--port", str(port), "--patience", "5")
    return Child("service", command, directory / f"service-{port}.log", environment, patience=_PATIENCE)


def _worker(directory: Path, environment: dict[str, str]) -> Child:
    command = (
        sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel", "INFO", "--pool", "prefork",
        "--concurrency", "1", "--queues", "any,cpu", "--without-gossip", "--without-mingle",
    )  # fmt: skip
    return Child("worker", command, directory / "worker.log", environment, patience=_PATIENCE)


def _ready(service: Child, address: str) -> bool:
    service.check()
    with suppress(httpx.TransportError):
        return httpx.get(f"http://{address}/readyz", trust_env=False).status_code == httpx.codes.OK
    return False


def answering(answer: httpx.Response) -> str:
    """The address of the service that answered, at last: another may have been found away before."""
    return str(answer.headers[SERVED_BY]).split(", ")[-1]


@dataclass(frozen=True)
class Told:
    """One event, as it came."""

    kind: str
    id: str
    data: str


@dataclass
class Reader:
    """Reads an experiment's events over as many connections as it takes, and keeps what came whole."""

    client: httpx.Client
    experiment_id: str
    chance: random.Random
    told: list[Told] = field(default_factory=list)
    #: Who answered each connection.
    served: list[str] = field(default_factory=list)
    #: How many connections ended within an event.
    cut_within: int = 0

    @property
    def ended(self) -> bool:
        """Whether it was told the end."""
        return bool(self.told) and self.told[-1].kind == "end"

    def read(self, events: int = 0, meanwhile: Callable[[Self], None] | None = None) -> None:
        """One connection, which goes on after the last event that came whole.

        After so many events it is cut, most often within the next; or something happens `meanwhile`, and it is read
        for as long as it lasts.
        """
        headers = {"Last-Event-ID": self.told[-1].id} if self.told else {}
        path, query = f"/experiments/{self.experiment_id}/events", {"max_points": 2000}
        received = b""
        with (
            suppress(httpx.RemoteProtocolError, httpx.ReadError),  # the other side, or the proxy, broke it off
            self.client.stream("GET", path, params=query, headers=headers) as answer,
        ):
            assert answer.status_code == httpx.codes.OK, answer.read()
            self.served.append(answering(answer))
            for part in answer.iter_raw():
                received += part
                if events and len(_whole(received)) >= events:
                    if meanwhile is None:
                        received = received[: self._somewhere_after(events, received)]
                        break
                    meanwhile(self)
                    events = 0
        self.cut_within += not received.endswith(b"\n\n")
        self.told += _whole(received)

    def _somewhere_after(self, events: int, received: bytes) -> int:
        end = 0
        while len(_whole(received[:end])) < events:
            end = received.index(b"\n\n", end) + 2
        return self.chance.randint(end, len(received))


def _whole(received: bytes) -> list[Told]:
    """The events that came whole: with the empty line after them."""
    blocks = received.decode("utf-8", "ignore").split("\n\n")[:-1]
    fields: list[dict[str, Any]] = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [Told(one["event"], one["id"], one["data"]) for one in fields if "event" in one]
