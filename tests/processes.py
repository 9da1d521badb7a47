"""What has become of other processes, and what will have."""

import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Returns once it holds; fails when it still does not after so long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Returns once it listens there; fails when it ends before that."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise AssertionError(f"{process.args!r} ended as it started")


def ended(process: psutil.Process) -> bool:
    """Does it run no more? One that no one has collected yet counts as ended: in a container nobody may."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
