"""What has become of other processes, and what will have."""

import time
from collections.abc import Callable

import psutil


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Returns once it holds; fails when it still does not after so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def ended(process: psutil.Process) -> bool:
    """Does it run no more? One that no one has collected yet counts as ended: in a container nobody may."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
