"""A small data set in the real format, and the real MNIST from the shared cache."""

import gzip
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gradprobe.settings import Settings
from worker.data import load
from worker.data.files import DatasetFile, Manifest


@dataclass(frozen=True)
class Copies:
    """A data set of a few images, and the means to lay its files out."""

    manifest: Manifest
    contents: dict[DatasetFile, bytes]

    def write(self, folder: Path, files: Iterable[DatasetFile] | None = None, *, compressed: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for file in self.manifest.files if files is None else files:
            content = self.contents[file]
            if compressed:
                (folder / f"{file.name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / file.name).write_bytes(content)
        return folder


def _content(shape: tuple[int, ...], seed: int) -> bytes:
    elements = np.random.default_rng(seed).integers(0, 10, size=shape, dtype=np.uint8)
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + elements.tobytes()


def _copies(name: str, seed: int) -> Copies:
    shapes = {
        "train-images-idx3-ubyte": (6, 28, 28),
        "train-labels-idx1-ubyte": (6,),
        "t10k-images-idx3-ubyte": (2, 28, 28),
        "t10k-labels-idx1-ubyte": (2,),
    }
    contents: dict[DatasetFile, bytes] = {}
    for number, (file_name, shape) in enumerate(shapes.items()):
        content = _content(shape, seed + number)
        contents[DatasetFile(file_name, shape, hashlib.sha256(content).hexdigest())] = content
    train_images, train_labels, test_images, test_labels = contents
    return Copies(Manifest(name, train_images, train_labels, test_images, test_labels), contents)


@pytest.fixture
def copies() -> Copies:
    return _copies("small", seed=1)


@pytest.fixture
def other_copies() -> Copies:
    """Another data set, whose files have the same names."""
    return _copies("other", seed=101)


@pytest.fixture(scope="session")
def shared_settings() -> Settings:
    """The machine's own settings, with MNIST in its cache: fetched once, from whichever source works here."""
    settings = Settings()
    load("mnist", "unit", settings)
    return settings


@pytest.fixture(autouse=True)
def _sources_as_the_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer has set must not decide what a test's own settings mean."""
    monkeypatch.delenv("GRADPROBE_DATASETS_DIRECTORY", raising=False)
    monkeypatch.delenv("GRADPROBE_DATASET_MIRRORS", raising=False)


@pytest.fixture
def without_npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
