"""Keeps the containers out of the normal run; one stack for all tests."""

import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gradprobe.settings import Settings
from tests.compose.containers import MNIST, NoEngine, Stack, find_compose


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Building images takes minutes: only where `-m compose` asks for it."""
    return None if config.option.markexpr == "compose" else True


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, built from this tree, healthy; removed with its volumes whatever happens."""
    try:
        command = find_compose()
    except NoEngine as reason:
        pytest.skip(f"the containers were NOT tested: {reason}")
    datasets = tmp_path_factory.mktemp("datasets")
    _copy_mnist(datasets)
    running = Stack(tuple(command), f"gradprobe-test-{secrets.token_hex(4)}", _free_port(), datasets)
    try:
        running.compose("build", "migrate", "service", "worker")
        running.compose("up", "-d")
        running.wait_until_healthy(seconds=180)
        yield running
    finally:
        running.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """Speaks to the published port."""
    with httpx.Client(base_url=stack.url, timeout=40, trust_env=False) as client:
        yield client


def _copy_mnist(target: Path) -> None:
    """Copies what `python -m worker.data` has cached; without it the worker fetches the files itself."""
    cache = Settings().dataset_cache / "mnist"
    target.chmod(0o755)  # read in the container by another user
    if all((cache / name).is_file() for name in MNIST):
        for name in MNIST:
            shutil.copyfile(cache / name, target / name)
            (target / name).chmod(0o644)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
