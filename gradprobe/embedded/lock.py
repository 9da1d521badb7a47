"""One stack per data directory, held by a lock that the kernel lets go when its holder ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from gradprobe.embedded.errors import DirectoryInUse


class DirectoryLock:
    """An exclusive lock on a data directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".stack.lock"
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DirectoryInUse: with the process and the URL of the stack that has it.
        """
        file = self._path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise DirectoryInUse(
                f"A stack already runs on the data directory {self._path.parent} ({holder}); use that one, stop it, "
                "or give another directory with --data-directory"
            ) from error
        self._file = file
        self.describe(f"process {os.getpid()}")

    def describe(self, holder: str) -> None:
        """Say who holds the lock, for the message that a second stack gives."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.write(holder)
            self._file.flush()

    def release(self) -> None:
        """Let the lock go. The file stays: removing it would let two processes lock two files of one name."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None
