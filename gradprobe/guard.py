"""A signal from the kernel to a process whose parent ends, even by SIGKILL (Linux only; elsewhere nothing happens).

As a program, `python guard.py PARENT_PID PROGRAM ARGUMENTS…` asks for SIGKILL and becomes another program, which keeps
it. That is a program of its own because code between fork and exec is not safe where there are threads; so this file
imports nothing of gradprobe's.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def signal_when_parent_ends(number: signal.Signals, parent: int) -> None:
    """Have the kernel send this process the signal when the thread that started it ends; at once if `parent` has.

    Args:
        number: the signal.
        parent: the process's id of who started this one.

    Raises:
        OSError: the kernel refuses.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, int(number)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")
    if os.getppid() != parent:  # it ended before the signal was asked for
        os.kill(os.getpid(), number)


def main() -> None:
    """Ask for the signal, become the program."""
    parent, *command = sys.argv[1:]
    try:
        signal_when_parent_ends(signal.SIGKILL, int(parent))
    except OSError as error:
        sys.exit(error.strerror)
    os.execv(command[0], command)  # noqa: S606 - the stack's own command, no shell


if __name__ == "__main__":
    main()
