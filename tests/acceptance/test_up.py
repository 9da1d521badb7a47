"""`gradprobe up` with its real processes: it serves, it stops, and it leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from gradprobe import Client
from tests.processes import ended, eventually

Ready = tuple[subprocess.Popen[str], str]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "gradprobe", "up", "--quiet", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Ready]:
    """The command, ready; its URL."""
    with start("--port", 0, "--data-directory", tmp_path / "data") as process:
        url = line_of(process.stdout).strip()
        if not url:
            pytest.fail(f"it did not start: {process.communicate(timeout=60)[1]}")
        yield process, url
        process.kill()


def line_of(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return list(psutil.Process(process.pid).children(recursive=True))


def assert_gone(processes: list[psutil.Process]) -> None:
    eventually(lambda: all(ended(process) for process in processes))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), pytest.param(signal.SIGINT, 130, marks=pytest.mark.faults)]
)
def test_it_is_ready_when_it_says_so_and_stops_when_it_is_asked(
    up: Ready, number: int, code: int, tmp_path: Path
) -> None:
    process, url = up
    children = family(process)
    assert any("celery" in " ".join(child.cmdline()) for child in children)
    with Client(url) as client:
        assert client.ready().status == "ready"
    with start("--data-directory", tmp_path / "data") as second:
        assert second.wait(60) == 1
        assert f"process {process.pid}, {url}" in line_of(second.stderr)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, "")
    assert_gone(children)


def test_killing_it_leaves_no_process(up: Ready) -> None:
    process, _ = up
    children = family(process)
    assert len(children) >= 3  # broker, worker, API
    process.kill()
    assert_gone(children)


@pytest.mark.parametrize(
    "program", ["celery", *(pytest.param(name, marks=pytest.mark.faults) for name in ("uvicorn", "valkey-server"))]
)
@pytest.mark.thorough
def test_the_death_of_a_part_ends_it_with_the_reason(up: Ready, program: str) -> None:
    process, _ = up
    children = family(process)
    victim = next(child for child in children if program in " ".join(child.cmdline()))
    os.kill(victim.pid, signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ended by itself (signal 9); its log is" in err
    assert time.monotonic() - began < 40
    assert_gone(children)
