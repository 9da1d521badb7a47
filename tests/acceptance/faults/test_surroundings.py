"""Faults that need something of their own: a cable, a small disk, a rolling restart under load."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.chaos.audit import Reference
from benchmarks.chaos.faults import kill_and_start
from benchmarks.chaos.system import System, system
from gradprobe import Client
from gradprobe.client import ProblemError
from tests.acceptance.conftest import until
from tests.acceptance.faults.partition import Cable
from tests.acceptance.faults.surviving import under_way

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("lose", [False, True], ids=["writes arrive late", "connections break"])
def test_a_worker_cut_off_from_its_database(
    lose: bool, postgresql_system: System, undisturbed: dict[str, Reference]
) -> None:
    """The other worker takes over; what the first wrote into the void comes too late and changes nothing."""
    running = postgresql_system
    assert running.postgresql is not None
    worker = running.workers[0]
    plain = dict(worker.environment)
    with TemporaryDirectory(prefix="cable-") as directory, Cable(running.postgresql.url, Path(directory)) as cable:
        worker.environment = {**plain, "GRADPROBE_DATABASE_URL": cable.url}
        try:
            kill_and_start(worker)
            with under_way(running, undisturbed, f"cut off, {lose}") as identifiers:
                before = _attempts(running, identifiers)
                cable.unplug()
                until(lambda: _attempts(running, identifiers) > before, 60, "another worker's taking over")
                time.sleep(1.0)
                cable.plug_in(lose)
        finally:
            worker.environment = plain
            kill_and_start(worker)


def _attempts(running: System, identifiers: list[str]) -> int:
    with Client(running.stack.url) as client:
        return sum(client.get(identifier).attempt for identifier in identifiers)


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 24 MiB, which only root can make."""
    with TemporaryDirectory(prefix="small-disk-") as directory:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", directory], capture_output=True, check=False
        )
        if made.returncode != 0:
            pytest.skip("no file system can be mounted here; test_faults has the same by RLIMIT_FSIZE")
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "-l", directory], check=True)


def test_a_disk_that_is_full_to_the_last_byte(small_disk: Path, undisturbed: dict[str, Reference]) -> None:
    """Training waits, reads go on, what can't be stored is refused in words; with room it all goes on."""
    with system(small_disk, "sqlite") as running, under_way(running, undisturbed, "no room") as identifiers:
        ballast = small_disk / "ballast"
        _fill(ballast)
        with Client(running.stack.url) as client:
            refused = until(lambda: _refusal(client, identifiers[0], ballast), 30, "a refusal")
            assert (refused.status, refused.problem.code) == (503, "DATABASE_UNAVAILABLE")
            assert "full" in str(refused)
            time.sleep(running.stack.settings.lease_seconds)
            for identifier in identifiers:
                assert not client.get(identifier).status.ended
            running.stack.check()  # every process lives
        ballast.unlink()


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            os.fsync(file.fileno())


def _refusal(client: Client, identifier: str, ballast: Path) -> ProblemError | None:
    _fill(ballast)  # a log that was cut short may have made room
    try:
        client.update(identifier, notes="too much " * 1_000)
    except ProblemError as error:
        return error
    return None
