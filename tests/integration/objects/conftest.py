"""A service over both databases with an object store of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from tests.integration.objects.archived import environment_of
from tests.integration.service.serving import serving


@pytest.fixture
def service_settings(database_url: str, redis_url: str, tmp_path: Path, object_store: dict[str, Any]) -> Settings:
    return Settings(data_directory=tmp_path / "data", database_url=database_url, redis_url=redis_url, **object_store)


@pytest.fixture(autouse=True)
def environment(service_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `gradprobe archive` reads."""
    for name, value in environment_of(service_settings).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(service_settings: Settings) -> ObjectStore:
    return ObjectStore(service_settings)


@pytest.fixture
def client(service_settings: Settings) -> Iterator[httpx.Client]:
    with serving(service_settings) as client:
        yield client
