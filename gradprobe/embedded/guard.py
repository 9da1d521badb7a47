"""Become another program that the kernel kills when its parent ends, even by SIGKILL (Linux only).

`python guard.py PARENT_PID PROGRAM ARGUMENTS…`. It is a program of its own because code between fork and exec is not
safe where there are threads; it replaces itself by the program, so nothing of it stays.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, see that the parent still lives, become the program."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        if os.getppid() != int(parent):  # it ended before the signal was asked for
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the stack's own command, no shell


if __name__ == "__main__":
    main()
