import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradprobe.settings import Settings


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GRADPROBE_")}
    return subprocess.run(
        [sys.executable, "-m", "worker.data", *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.thorough
def test_mnist_is_fetched_by_default_and_the_source_is_shown(shared_settings: Settings, tmp_path: Path) -> None:
    source = shared_settings.dataset_cache
    result = _run(GRADPROBE_DATA_DIRECTORY=str(tmp_path), GRADPROBE_DATASETS_DIRECTORY=str(source))
    assert (result.returncode, result.stderr) == (0, "")
    assert f"mnist/train-images-idx3-ubyte: from {source}\n" in result.stdout
    assert f"mnist: 4 files, 54,950,048 bytes, verified, in {tmp_path / 'datasets' / 'mnist'}\n" in result.stdout


def test_a_failure_is_one_line_on_standard_error(tmp_path: Path) -> None:
    result = _run("mnist", GRADPROBE_DATA_DIRECTORY=str(tmp_path), GRADPROBE_DATASET_MIRRORS="false", PATH="")
    assert result.returncode == 1
    assert result.stderr.startswith("The data set mnist could not be read from any source. Tried: ")
    assert result.stderr.count("\n") == 1
