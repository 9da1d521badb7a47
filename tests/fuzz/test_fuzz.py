"""A small run of what `make fuzz` does at length: generated requests find no server error and no broken promise."""

import shutil
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.events import KINDS
from tests.fuzz.run import fuzz, settings_for_fuzzing
from tests.integration.service.serving import serving


def test_generated_requests_find_nothing(tmp_path: Path, sqlite_template: Path) -> None:
    settings = settings_for_fuzzing(tmp_path, "redis://127.0.0.1:1/0")
    shutil.copy(sqlite_template, str(settings.database.database))
    with serving(settings) as client:
        found = fuzz(str(client.base_url), examples=1, seed=1, phases="fuzzing")
    assert (found.failures, found.errors) == (0, 0), found.output
    assert found.cases > 15


#: Control characters never reach a route: the HTTP server itself refuses such a request.
HEADERS = st.binary(max_size=60).map(lambda value: value.translate(None, bytes([*range(32), 127])).strip())
TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> httpx.Client:  # type: ignore[misc]
    settings = settings_for_fuzzing(tmp_path_factory.mktemp("fuzz"), "redis://127.0.0.1:1/0")
    shutil.copy(sqlite_template, str(settings.database.database))
    with serving(settings) as client:
        client.post("/experiments", json={"tags": {"a": "b"}})
        yield client


@given(identifier=TEXTS, cursor=TEXTS, part=st.sampled_from(["", "/gradients", "/metrics", "/events"]))
def test_any_id_and_any_cursor_is_answered_in_order(
    client: httpx.Client, identifier: str, cursor: str, part: str
) -> None:
    path = "/experiments/" + "".join(f"%{byte:02X}" for byte in identifier.encode())
    assert client.get(path + part).status_code in (200, 404, 405)
    assert client.get("/experiments", params={"cursor": cursor}).status_code == 422


@given(
    name=st.sampled_from(["If-None-Match", "X-Request-ID", "Accept-Encoding", "Last-Event-ID", "Accept", "Range"]),
    value=HEADERS,
)
def test_any_header_is_answered_in_order(client: httpx.Client, name: str, value: bytes) -> None:
    [experiment] = client.get("/experiments").json()["items"]
    headers = httpx.Headers([(name.encode(), value)])
    for path in ("/experiments", experiment["links"]["self"], experiment["links"]["metrics"]):
        response = client.get(path, headers=headers)
        assert response.status_code in (200, 304, 422), (name, value)
    events = client.get(f"{experiment['links']['events']}?kinds={KINDS[-1]}", headers={"Last-Event-ID": "0-x"})
    assert events.status_code == 422
