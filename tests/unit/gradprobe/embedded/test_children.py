import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gradprobe.embedded import ChildDied
from gradprobe.embedded.children import Child
from tests.processes import ended, eventually

MakeChild = Callable[..., Child]

FAMILY = """
import subprocess, sys, time
inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("started", inner.pid, flush=True)
time.sleep(60)
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FAMILY
SUPERVISOR = """
import sys, time
from pathlib import Path
from gradprobe.embedded.children import Child
child = Child("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], Path(sys.argv[1]), {})
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[MakeChild]:
    """Makes children of one Python program, and ends them whatever the test did."""
    made = []

    def make(program: str, patience: float = 5.0) -> Child:
        command = [sys.executable, "-c", program]
        made.append(Child("sleeper", command, tmp_path / "logs" / "sleeper.log", dict(os.environ), patience))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.patience = 0.0
        one.stop()


def pid_of(running: Child) -> int:
    assert running.pid is not None
    return running.pid


def started_inner(child: Child) -> int:
    eventually(lambda: "started" in child.output())
    return int(child.output().split()[1])


@pytest.mark.parametrize("program", [FAMILY, STUBBORN], ids=["willing", "stubborn"])
def test_stop_ends_the_child_and_what_it_started(child: MakeChild, program: str) -> None:
    running = child(program, patience=0.5)
    pid, inner = pid_of(running), psutil.Process(started_inner(running))
    running.stop()
    assert not psutil.pid_exists(pid)
    eventually(lambda: ended(inner))
    running.stop()  # twice is harmless


def test_a_child_that_has_died_takes_its_own_children_with_it(child: MakeChild) -> None:
    running = child(FAMILY)
    inner = psutil.Process(started_inner(running))
    os.kill(pid_of(running), signal.SIGKILL)
    eventually(lambda: died(running))
    running.stop()
    eventually(lambda: ended(inner))


def died(running: Child) -> bool:
    try:
        running.check()
    except ChildDied:
        return True
    return False


def test_a_death_is_told_with_its_reason_and_the_end_of_this_runs_log(child: MakeChild) -> None:
    child("print('an earlier run')").stop()
    running = child("import sys; print('line 1'); print('the reason'); sys.exit(7)")
    eventually(lambda: died(running))
    with pytest.raises(ChildDied, match=r"sleeper ended by itself \(exit code 7\)") as caught:
        running.check()
    assert caught.value.log.splitlines() == ["line 1", "the reason"]


def test_a_signal_is_named(child: MakeChild) -> None:
    running = child("import time; time.sleep(60)")
    running.check()
    os.kill(pid_of(running), signal.SIGKILL)
    eventually(lambda: died(running))
    with pytest.raises(ChildDied, match="signal 9"):
        running.check()


def test_a_terminals_interrupt_does_not_reach_the_child(child: MakeChild) -> None:
    running = child("import time; time.sleep(60)")
    assert os.getsid(pid_of(running)) == running.pid != os.getsid(0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_killing_the_parent_leaves_no_child(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    eventually(lambda: ended(child))
