"""The client against a server that fails in between: what was asked is done once, and the caller hears of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradprobe import Client
from gradprobe.client import ProblemError, Retries, ServerUnreachable, UnusableKey
from gradprobe.client.retries import retry_after
from gradprobe.settings import Settings
from gradprobe.store import migrate
from tests.integration.service.serving import serving

QUICK = Retries(number=4, first=0.01, longest=0.02)
HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}

#: What happens to one request: it is passed on, lost on its way there, or its answer is; or it is answered right here.
PASS, LOST, ANSWER_LOST = "pass", "lost", "answer lost"
Fate = str | tuple[int, dict[str, str]]


@dataclass
class Between:
    """A proxy in front of the real service that does to each request what it is told, and then passes all on."""

    upstream: httpx.Client
    url: str = ""
    fates: list[Fate] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", "0")))
        self.seen.append((handler.command, handler.path, headers))
        fate = self.fates.pop(0) if self.fates else PASS
        if fate == LOST:
            handler.close_connection = True
            return
        if isinstance(fate, tuple):
            self.answer(handler, fate[0], fate[1], b"")
            return
        kept = {name: value for name, value in headers.items() if name not in {*HOP_BY_HOP, "host", "accept-encoding"}}
        found = self.upstream.request(handler.command, handler.path, content=body, headers=kept)
        if fate == ANSWER_LOST:
            handler.close_connection = True
            return
        told = {name: value for name, value in found.headers.items() if name not in HOP_BY_HOP}
        self.answer(handler, found.status_code, told, found.content)

    @staticmethod
    def answer(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def listening(between: Between) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return lambda: between.handle(self)
            raise AttributeError(name)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        between.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings(data_directory=tmp_path_factory.mktemp("retries"), redis_url="redis://127.0.0.1:1/0")
    migrate.upgrade(settings.database)
    with serving(settings) as client:
        yield client


@pytest.fixture
def between(upstream: httpx.Client) -> Iterator[Between]:
    between = Between(upstream)
    with listening(between):
        yield between


@pytest.fixture
def client(between: Between) -> Iterator[Client]:
    with Client(between.url, retries=QUICK) as client:
        yield client


def names(client: Client) -> list[str | None]:
    return [experiment.name for experiment in client.list()]


@pytest.mark.parametrize("fates", [[LOST], [ANSWER_LOST], [LOST, ANSWER_LOST, (503, {}), (502, {})], [(429, {})] * 4])
def test_what_is_created_is_created_once(
    between: Between, client: Client, request: pytest.FixtureRequest, fates: list[Fate]
) -> None:
    between.fates = list(fates)

    made = client.create({"name": request.node.name})

    keys = {headers["idempotency-key"] for _, _, headers in between.seen}
    assert (len(between.seen), len(keys)) == (len(fates) + 1, 1)
    assert names(client).count(request.node.name) == 1
    assert client.get(made.id) == made


def test_two_calls_are_two_experiments(client: Client) -> None:
    assert client.create({"name": "twice"}).id != client.create({"name": "twice"}).id
    first, second = (client.create({"name": "once"}, idempotency_key="mine") for _ in range(2))
    assert first.id == second.id


def test_every_call_that_can_be_repeated_is(between: Between, client: Client) -> None:
    made = client.create({"name": "repeated"})
    for fate in (LOST, ANSWER_LOST):
        between.fates = [fate]
        assert client.update(made.id, notes="n").notes == "n"
        between.fates = [fate]
        assert client.get(made.id).notes == "n"
        between.fates = [fate]
        assert client.cancel(made.id).status == "cancelled"
    between.fates = [ANSWER_LOST]
    client.delete(made.id)
    with pytest.raises(ProblemError) as caught:
        client.delete(made.id)
    assert (caught.value.code, caught.value.status) == ("EXPERIMENT_NOT_FOUND", 404)


def test_what_could_be_done_twice_is_not_repeated(between: Between, client: Client) -> None:
    made = client.create({})
    client.cancel(made.id)
    between.fates = [ANSWER_LOST]

    with pytest.raises(ServerUnreachable):
        client.retry(made.id)
    assert client.get(made.id).status == "queued"

    client.cancel(made.id)
    between.fates = [(503, {}), (429, {})]
    assert client.retry(made.id).status == "queued"


def test_a_refusal_that_will_stay_one_is_told_at_once(between: Between, client: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        client.create({"network": {"depth": 0}})
    assert caught.value.code == "VALIDATION_FAILED"
    assert len(between.seen) == 1


def test_it_waits_as_long_as_the_server_asks(between: Between, client: Client) -> None:
    between.fates = [(429, {"Retry-After": "1"})]
    began = time.monotonic()

    client.create({})

    assert 1.0 <= time.monotonic() - began < 3.0


def test_it_does_not_wait_longer_than_its_caller_would(between: Between) -> None:
    between.fates = [(503, {"Retry-After": "60"})]
    with Client(between.url, timeout=2.0) as client:
        began = time.monotonic()
        with pytest.raises(Exception, match="503"):
            client.create({})
        assert time.monotonic() - began < 1.0


def test_it_gives_up_in_the_end(between: Between, client: Client) -> None:
    between.fates = [LOST] * 100
    with pytest.raises(ServerUnreachable):
        client.create({})
    assert len(between.seen) == 5


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-1"}, 0.0),
        ({"retry-after": format_datetime(datetime.now(UTC) - timedelta(days=1))}, 0.0),
    ],
)
def test_what_a_server_may_ask(told: dict[str, str], seconds: float) -> None:
    assert retry_after(told) == seconds
    assert 8 < retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=10))}) <= 10


def test_pauses_grow_and_are_drawn() -> None:
    retries = Retries(first=1.0, longest=4.0)
    for repetition, most in enumerate((1.0, 2.0, 4.0, 4.0)):
        drawn = [retries.pause(repetition) for _ in range(200)]
        assert 0 <= min(drawn) < most / 4
        assert most * 3 / 4 < max(drawn) <= most
    assert retries.pause(0, {"retry-after": "3"}) >= 3.0


def test_the_key_comes_from_the_call_the_environment_or_a_file(
    between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(**options: Any) -> str | None:
        with Client(between.url, **options) as client:
            client.ready()
        return between.seen[-1][2].get("authorization")

    assert sent() is None
    (tmp_path / "key").write_text("gp_file\n")
    monkeypatch.setenv("GRADPROBE_API_KEY_FILE", str(tmp_path / "key"))
    assert sent() == "Bearer gp_file"
    monkeypatch.setenv("GRADPROBE_API_KEY", "gp_environment")
    assert sent() == "Bearer gp_environment"
    assert sent(api_key="gp_call") == "Bearer gp_call"
    assert sent(api_key="") is None
    for wrong in ("two words", "gp_\x00", "gp_ä"):
        with pytest.raises(UnusableKey):
            sent(api_key=wrong)
    monkeypatch.delenv("GRADPROBE_API_KEY")
    monkeypatch.setenv("GRADPROBE_API_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(UnusableKey, match="missing"):
        sent()
