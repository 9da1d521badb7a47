"""That the benchmarks of a server ask what they say they ask, and count what was answered; never how fast it was."""

import asyncio
from pathlib import Path

import httpx
import pytest

from benchmarks import listing, load
from gradprobe.settings import Settings
from gradprobe.store import migrate
from tests.integration.service.serving import serving


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A server that waits for no broker."""
    return Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0", stream_seconds=1.0)


@pytest.mark.thorough
def test_each_list_is_asked_for_among_all_experiments(settings: Settings) -> None:
    rows = listing.measure(settings, 60, 2)
    assert len(rows) == len({row.subject for row in rows}) >= 15
    assert all(row.figures["ms, p99"] > 0 and row.goals for row in rows)  # type: ignore[operator]
    with serving(settings) as client:
        found = client.get("/experiments?limit=500").json()["items"]
    assert len(found) == 60
    assert {"succeeded", "failed"} <= {item["status"] for item in found}


def test_what_the_clients_ask_is_counted_and_what_is_not_answered_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_PAUSE_SECONDS", 0.02)
    migrate.upgrade(settings.database)
    with serving(settings) as client:
        url = str(client.base_url)
        found = asyncio.run(load._load(url, 1.0, 4, 3))
        stored = client.get("/experiments?limit=500").json()["items"]
    assert found.errors == {}
    assert set(found.times) == {"post", "one", "gradients", "list", "metrics"}
    assert len(stored) == len(found.times["post"]) + 11 > 11  # the long one, and one for each group of watchers
    assert found.open == 3
    assert found.events >= 3

    gone = load.Found()
    with httpx.Client(base_url=url) as client:
        asyncio.run(load._timed(gone, "one", lambda: _get(client)))
    assert (gone.errors, len(gone.times["one"])) == ({"one": 1}, 1)


async def _get(client: httpx.Client) -> httpx.Response:
    return client.get("/livez")
