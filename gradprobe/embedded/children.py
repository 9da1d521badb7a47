"""One child process: started under the guard, its output in a log, ended with everything it started."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gradprobe import guard
from gradprobe.embedded.errors import ChildDied

_GUARD = Path(guard.__file__)
_TAIL = 15  # lines of a log that a report shows
_KILLED_WITHIN_SECONDS = 5.0


@dataclass(eq=False)
class Child:
    """A process of the stack. Start it in a thread that lasts as long as the stack: the kernel ends it with that."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    patience: float = 5.0  # seconds to end by itself when asked to
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _log_offset: int = field(default=0, init=False)

    def start(self) -> None:
        """Start it in a session of its own, so that a terminal's Ctrl-C reaches the parent alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - the stack's own command, no shell
                [sys.executable, "-IS", str(_GUARD), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """The process's id; None before it is started and after it is stopped."""
        return self._process.pid if self._process else None

    def output(self) -> str:
        """What this run of it has written so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            return log.read().decode("utf-8", errors="replace")

    def check(self) -> None:
        """See that it lives.

        Raises:
            ChildDied: with its exit code and the end of its log.
        """
        code = self._process.poll() if self._process else None
        if code is not None:
            ending = f"exit code {code}" if code >= 0 else f"signal {-code}"
            tail = "\n".join(deque(self.output().splitlines(), maxlen=_TAIL))
            raise ChildDied(f"The {self.name} ended by itself ({ending}); its log is {self.log}", tail)

    def ask_to_stop(self) -> None:
        """Send SIGTERM: an orderly end."""
        if self._process and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """End it: in its own time at first, then with all that it started."""
        if self._process is None:
            return
        family = _family(self._process.pid)
        try:
            self.ask_to_stop()
            self._process.wait(self.patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Also where someone lost patience and pressed Ctrl-C again.
            family |= _family(self._process.pid)
            self._process.kill()
            self._process.wait()
            _kill(family)
            self._process = None


def _family(pid: int) -> set[psutil.Process]:
    """What the process started, also what outlived it in its session, or left its session while it lived."""
    found = {process for process in psutil.process_iter() if _session(process.pid) == pid and process.pid != pid}
    with suppress(psutil.NoSuchProcess):
        found.update(psutil.Process(pid).children(recursive=True))
    return found


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()  # psutil compares start times, so a reused id is never hit
    deadline = time.monotonic() + _KILLED_WITHIN_SECONDS
    while not all(map(_ended, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _ended(process: psutil.Process) -> bool:
    """Also of one that its parent has not collected: in a container nobody may."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
