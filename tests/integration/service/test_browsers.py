"""What browsers are told: by every answer, and to other sites."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradprobe.settings import Settings
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

SITE = "https://dashboard.example.org"
Serve = Callable[..., httpx.Client]


@pytest.fixture
def serve(tmp_path: Path, sqlite_template: Path) -> Iterator[Serve]:
    """A client of a server with these settings."""
    with ExitStack() as stack:

        def start(**options: Any) -> httpx.Client:
            settings = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0", **options)
            shutil.copy(sqlite_template, str(settings.database.database))
            return stack.enter_context(serving(settings))

        yield start


def test_no_answer_may_be_run_framed_sniffed_or_told(serve: Serve) -> None:
    client = serve()
    for method, path in [("GET", "/"), ("GET", "/experiments"), ("GET", "/nowhere"), ("PUT", "/livez")]:
        headers = client.request(method, path).headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_the_documentation_can_be_switched_off(serve: Serve) -> None:
    client = serve(documentation=False)

    for path in ("/docs", "/openapi.json", "/redoc"):
        assert_problem(client.get(path), 404, "NOT_FOUND")
    assert set(client.get("/").json()["links"]) == {"experiments", "ready"}
    assert client.get("/experiments").status_code == 200


def preflight(client: httpx.Client, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
    }
    return client.options("/experiments", headers=headers)


def test_other_sites_read_nothing_by_default(serve: Serve) -> None:
    client = serve()

    assert "access-control-allow-origin" not in preflight(client, SITE).headers
    assert client.get("/experiments", headers={"Origin": SITE}).status_code == 401


def test_a_site_that_is_named_may_read_and_no_other(serve: Serve) -> None:
    client = serve(cors_origins=(SITE,))

    allowed = preflight(client, SITE)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SITE
    assert "access-control-allow-credentials" not in allowed.headers
    answer = client.get("/experiments", headers={"Origin": SITE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, SITE)
    assert "ETag" in answer.headers["access-control-expose-headers"]

    assert preflight(client, "https://other.example.org").status_code == 400
    refused = client.get("/experiments", headers={"Origin": "https://other.example.org"})
    assert refused.status_code == 401
    assert "access-control-allow-origin" not in refused.headers


def test_sites_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADPROBE_CORS_ORIGINS", f'["{SITE}"]')
    monkeypatch.setenv("GRADPROBE_DOCUMENTATION", "false")

    assert Settings().cors_origins == (SITE,)
    assert Settings().documentation is False
