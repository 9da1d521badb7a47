"""Who is let in: with which key, to do what, and when without one."""

import asyncio
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gradprobe.access import Scope
from gradprobe.errors import NoKey
from gradprobe.settings import Settings
from gradprobe.store import keys
from gradprobe.store.database import Database
from service.app import create_app
from tests.integration.service.keyed import READ_WRITE, bearer
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

NOBODY = "redis://127.0.0.1:1/0"
OPEN = ("/", "/dashboard/main.js", "/livez", "/readyz", "/openapi.json", "/docs")


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    settings = Settings(data_directory=tmp_path, redis_url=NOBODY, authentication="required")
    shutil.copy(sqlite_template, str(settings.database.database))
    return settings


@pytest.fixture
def store(settings: Settings) -> Iterator[Database]:
    opened = Database(settings.database)
    yield opened
    opened.close()


@pytest.fixture
def closed(settings: Settings, store: Database) -> Iterator[httpx.Client]:
    """A server that asks everybody for a key; there is one of `root`."""
    bearer(store, "root", [Scope.ADMIN])
    with serving(settings) as client:
        yield client


def ask(app: FastAPI, url: str, headers: dict[str, str]) -> httpx.Response:
    """What a connection to the URL's host would be answered, without one."""

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.get(url, headers=headers)

    return asyncio.run(get())


def test_without_a_key_nothing_is_open_but_what_says_so(closed: httpx.Client) -> None:
    for path in OPEN:
        assert closed.get(path).status_code == 200, path
    for method, path in [
        ("GET", "/experiments"),
        ("POST", "/experiments"),
        ("GET", "/metrics"),
        ("GET", "/nothing-here"),
        ("OPTIONS", "/experiments"),
        ("GET", "/docs/"),
    ]:
        response = closed.request(method, path)
        assert_problem(response, 401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == 'Bearer realm="gradprobe"'


def test_nobody_without_a_key_has_a_body_read(closed: httpx.Client) -> None:
    response = closed.post("/experiments", content=b"not json" * 1_000_000)

    assert_problem(response, 401, "UNAUTHENTICATED")


def test_a_key_opens_what_its_scopes_say(closed: httpx.Client, store: Database) -> None:
    reader = bearer(store, "alice", [Scope.READ]).headers
    writer = bearer(store, "alice", [Scope.WRITE]).headers

    made = closed.post("/experiments", json={}, headers=writer)
    assert (made.status_code, made.json()["owner"]) == (202, "alice")
    path = made.headers["location"]
    assert closed.get(path, headers=reader).json()["id"] == made.json()["id"]
    for method, place, headers in [
        ("POST", "/experiments", reader),
        ("PATCH", path, reader),
        ("DELETE", path, reader),
        ("POST", f"{path}/cancel", reader),
        ("POST", f"{path}/retry", reader),
        ("GET", path, writer),
        ("GET", "/experiments", writer),
    ]:
        refused = closed.request(method, place, headers=headers)
        problem = assert_problem(refused, 403, "MISSING_SCOPE")
        missing = "write" if headers is reader else "read"
        assert f"'{missing}'" in problem["detail"]
        assert refused.headers["www-authenticate"] == (
            f'Bearer realm="gradprobe", error="insufficient_scope", scope="{missing}"'
        )
    assert closed.get(path, headers=reader).json()["status"] == "queued"


@pytest.mark.parametrize(
    "given",
    ["Bearer", "Bearer gp_", "Basic YTpi", "gp_" + "A" * 43, "Bearer " + "x" * 5000, "Bearer gp_\xe4"],
)
def test_what_is_no_key_opens_nothing(closed: httpx.Client, given: str) -> None:
    response = closed.get("/experiments", headers={b"Authorization": given.encode("latin-1")})

    assert_problem(response, 401, "INVALID_KEY")
    assert response.headers["www-authenticate"] == 'Bearer realm="gradprobe", error="invalid_token"'


def test_two_keys_at_once_are_refused(closed: httpx.Client, store: Database) -> None:
    first, second = (("Authorization", bearer(store, name).headers["Authorization"]) for name in ("alice", "bob"))

    assert_problem(closed.get("/experiments", headers=[first, second]), 401, "INVALID_KEY")


def test_a_revoked_key_opens_nothing_from_the_next_request_on(closed: httpx.Client, store: Database) -> None:
    alice = bearer(store, "alice")
    assert closed.get("/experiments", headers=alice.headers).status_code == 200

    with store.write() as connection:
        keys.revoke(connection, alice.id)

    assert "revoked" in assert_problem(closed.get("/experiments", headers=alice.headers), 401, "INVALID_KEY")["detail"]


def test_the_use_of_a_key_is_noted(closed: httpx.Client, store: Database) -> None:
    alice = bearer(store, "alice")

    closed.get("/experiments", headers=alice.headers)

    with store.read() as connection:
        used = {key.owner: key.last_used_at for key in keys.every(connection)}
    assert used["alice"] is not None
    assert used["root"] is None


def test_no_key_is_ever_logged(closed: httpx.Client, store: Database, caplog: pytest.LogCaptureFixture) -> None:
    alice = bearer(store, "alice")
    with caplog.at_level(logging.DEBUG):
        closed.get("/experiments", headers=alice.headers)
        closed.get("/experiments/exp_0", headers=alice.headers)
        closed.post("/experiments", content=b"{", headers=alice.headers | {"Content-Type": "application/json"})
        closed.get("/experiments", headers={"Authorization": alice.secret})

    assert "/experiments/exp_0" in caplog.text
    assert alice.secret[11:] not in caplog.text


def test_the_line_of_a_request_names_whose_it_was(
    closed: httpx.Client, store: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "service.middleware"):
        closed.get("/experiments", headers=bearer(store, "alice").headers)
        closed.get("/experiments")

    assert [(line.__dict__["status"], line.__dict__.get("owner")) for line in caplog.records] == [
        (200, "alice"),
        (401, None),
    ]


def test_the_scheme_may_be_written_in_any_case(closed: httpx.Client, store: Database) -> None:
    secret = bearer(store, "alice").secret

    assert closed.get("/experiments", headers={"Authorization": f"bearer  {secret}"}).status_code == 200


def test_a_server_that_asks_for_keys_does_not_start_without_one(settings: Settings) -> None:
    app = create_app(settings)

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(NoKey, match="gradprobe keys create"):
        asyncio.run(start())


@pytest.mark.parametrize(
    ("authentication", "server", "headers", "status"),
    [
        ("auto", "127.0.0.1", {}, 200),
        ("auto", "127.8.8.8", {}, 200),
        ("auto", "[::1]", {}, 200),
        ("auto", "localhost", {}, 200),
        ("auto", "192.0.2.1", {}, 401),
        ("auto", "192.0.2.1", {"Host": "localhost"}, 401),
        ("auto", "[2001:db8::1]", {}, 401),
        ("auto", "example.org", {}, 401),
        # Another site's page whose name was made to point here, a proxy in front, another site's page as it is.
        ("auto", "127.0.0.1", {"Host": "rebound.example.org"}, 401),
        ("auto", "127.0.0.1", {"Host": "127.0.0.1.example.org"}, 401),
        ("auto", "127.0.0.1", {"Host": ""}, 401),
        ("auto", "127.0.0.1", {"X-Forwarded-For": "192.0.2.7"}, 401),
        ("auto", "127.0.0.1", {"X-Forwarded-Proto": "https"}, 401),
        ("auto", "127.0.0.1", {"Forwarded": "for=192.0.2.7"}, 401),
        ("auto", "127.0.0.1", {"Via": "1.1 proxy"}, 401),
        ("auto", "127.0.0.1", {"Origin": "https://example.org"}, 401),
        ("auto", "127.0.0.1", {"Origin": "null"}, 401),
        ("auto", "127.0.0.1", {"Origin": "http://127.0.0.1"}, 200),
        ("auto", "localhost", {"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ("loopback_in_front", "172.18.0.5", {"Host": "127.0.0.1:8000"}, 200),
        ("loopback_in_front", "172.18.0.5", {"Host": "service:8000"}, 401),
        ("loopback_in_front", "172.18.0.5", {"Host": "localhost", "X-Forwarded-For": "192.0.2.7"}, 401),
        ("required", "127.0.0.1", {}, 401),
    ],
)
def test_when_no_key_is_needed(
    settings: Settings, store: Database, authentication: str, server: str, headers: dict[str, str], status: int
) -> None:
    bearer(store, "root", [Scope.ADMIN])
    app = create_app(settings.model_copy(update={"authentication": authentication}))

    assert ask(app, f"http://{server}/experiments", headers).status_code == status
    assert ask(app, f"http://{server}/livez", headers).status_code == 200
    app.state.service.database.close()


def test_a_key_is_good_where_none_is_needed_and_still_must_be_right(settings: Settings, store: Database) -> None:
    alice = bearer(store, "alice", READ_WRITE)
    with serving(settings.model_copy(update={"authentication": "auto"})) as client:
        assert client.post("/experiments", json={}).json()["owner"] is None
        assert client.get("/experiments", headers=alice.headers).json()["items"] == []
        wrong = {"Authorization": "Bearer gp_" + "A" * 43}
        assert_problem(client.get("/experiments", headers=wrong), 401, "INVALID_KEY")


def test_a_database_that_is_away_lets_nobody_in(tmp_path: Path) -> None:
    settings = Settings(
        data_directory=tmp_path,
        database_url="postgresql://nobody@127.0.0.1:1/nothing",
        redis_url=NOBODY,
        authentication="required",
    )

    headers = {"Authorization": "Bearer gp_" + "A" * 43}
    response = ask(create_app(settings), "http://127.0.0.1/experiments", headers)
    assert_problem(response, 503, "DATABASE_UNAVAILABLE")
