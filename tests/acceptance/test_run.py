"""`gradprobe run`: an experiment on this machine with no server running."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from gradprobe.errors import SchemaOutOfDate
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import experiments
from gradprobe.store.database import Database
from gradprobe.store.listing import Filters
from tests.acceptance.conftest import until

ARGUMENTS = ("--set", "dataset.name=synthetic", "--data-directory")


def start(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gradprobe", "run", *arguments, *ARGUMENTS, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stored(directory: Path) -> list[experiments.Record]:
    database = Database(Settings(data_directory=directory).database)
    try:
        with database.read() as connection:
            return experiments.page(connection, Filters(), None, 10)
    finally:
        database.close()


def test_it_trains_and_says_what_it_found(tmp_path: Path) -> None:
    with start(tmp_path, "--json", "--iterations", "300", "--name", "alone") as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    found = json.loads(out)
    assert (found["verdict"], found["findings"][0]["first_step"]) == ("vanishing", 0)
    [record] = stored(tmp_path)
    assert (record.name, record.status, record.verdict) == ("alone", Status.SUCCEEDED, "vanishing")


def test_a_spec_with_a_fault_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with start(tmp_path / "none", "--set", "network.dept=3") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "gradprobe: /network/dept: there is no field of this name; did you mean depth?\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.thorough
def test_ctrl_c_cancels_it(tmp_path: Path) -> None:
    """Otherwise the next worker on this data directory would go on with it, in silence, to its end."""
    with start(tmp_path, "--set", "training.iterations=1000000") as process:
        until(lambda: (tmp_path / "gradprobe.db").exists() and _runs(tmp_path), 60, "training")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "is cancelled" in err
    assert "vanishing" not in out
    [record] = stored(tmp_path)
    assert (record.status, record.id in err) == (Status.CANCELLED, True)


def _runs(directory: Path) -> bool:
    with suppress(SchemaOutOfDate):  # it has only begun to be migrated
        return any(record.iteration > 0 for record in stored(directory))
    return False
