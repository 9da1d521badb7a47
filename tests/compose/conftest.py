"""Keeps the containers out of the normal run."""

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Building images takes minutes: only where `-m compose` asks for it."""
    return None if config.option.markexpr == "compose" else True
