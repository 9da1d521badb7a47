"""The whole service over both databases and a real broker."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gradprobe.settings import Settings
from tests.integration.service.serving import serving


@pytest.fixture
def service_settings(database_url: str, redis_url: str, tmp_path: Path) -> Settings:
    return Settings(data_directory=tmp_path / "data", database_url=database_url, redis_url=redis_url)


@pytest.fixture
def client(service_settings: Settings) -> Iterator[httpx.Client]:
    with serving(service_settings) as client:
        yield client


@pytest.fixture
def experiment_id(client: httpx.Client) -> str:
    """A queued experiment of three small layers that records every tensor."""
    spec = {"network": {"depth": 3, "width": 4}, "training": {"iterations": 20, "batch_size": 5}}
    return str(client.post("/experiments", json=spec).json()["id"])
