"""One disturbed system a database, and what its experiments come to when nothing goes wrong."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from benchmarks.chaos.audit import Reference, references
from benchmarks.chaos.system import QUICK, System, system
from gradprobe.settings import Settings

#: Long enough that what goes wrong goes wrong during it: some seconds.
ITERATIONS = 12_000
#: Whatever a run's state can hold, in two specs.
DOCUMENTS: dict[str, dict[str, Any]] = {
    "everything": {
        "dataset": "synthetic",
        "network": {"depth": 4, "width": 10, "activation": "prelu", "normalization": "batch", "dropout": 0.2},
        "gradient_clipping": {"kind": "norm", "max_norm": 0.5},
        "optimizer": {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "schedule": {"name": "cosine"}},
        "training": {"iterations": ITERATIONS, "batch_size": 128, "precision": "float16", "seed": 1},
        "recording": {"evaluate_every": ITERATIONS, "histograms_every": 50},
    },
    "classic": {
        "dataset": "synthetic",
        "training": {"iterations": ITERATIONS, "batch_size": 128, "seed": 2},
        "recording": {"evaluate_every": ITERATIONS, "histograms_every": 50},
    },
}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    return references(tmp_path_factory.mktemp("alone"), DOCUMENTS, Settings(threads=QUICK["threads"]))


@pytest.fixture(scope="module")
def sqlite_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with system(tmp_path_factory.mktemp("sqlite"), "sqlite") as running:
        yield running


@pytest.fixture(scope="module")
def postgresql_system() -> Iterator[System]:
    # Not below pytest's own directory: under root the server runs as another user, who may not enter that.
    with TemporaryDirectory(prefix="gradprobe-faults-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)
        with system(Path(directory) / "system", "postgresql") as running:
            yield running
