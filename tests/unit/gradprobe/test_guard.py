"""A process hears of its parent's end: while it lives, and if it comes too late to ask."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.processes import ended, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal is Linux's alone")

GUARDED = (
    "import os, signal, sys, time; from gradprobe.guard import signal_when_parent_ends\n"
    "signal_when_parent_ends(signal.SIGUSR2, int(sys.argv[1])); print('guarded', flush=True); time.sleep(60)\n"
)
PARENT = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)\n"
    "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)\n"
)


def test_one_whose_parent_is_killed_is_signalled() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, GUARDED], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert not ended(child)
        parent.kill()
        eventually(lambda: ended(child))


def test_one_whose_parent_has_ended_before_it_asked_is_signalled_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(gone.pid)], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (-signal.SIGUSR2, "")


def test_one_whose_parent_lives_goes_on() -> None:
    command = [sys.executable, "-c", GUARDED, str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "guarded\n"
        child.kill()
