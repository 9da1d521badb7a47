"""Reports that wait for a server, on disk: a file of lines, first in, first out, gone with the process."""

import tempfile
from collections.abc import Iterator
from typing import BinaryIO


class Spool:
    """Written at its end, read from its front; its file has no name, so that nothing is left behind."""

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._read = self._written = 0

    def __bool__(self) -> bool:
        return self._read < self._written

    def __len__(self) -> int:
        return self._written - self._read

    def put(self, line: bytes) -> None:
        """Append one line without line ends in it."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="gradprobe-")  # noqa: SIM115 - open as long as the spool is
        self._file.seek(self._written)
        self._file.write(line + b"\n")
        self._written = self._file.tell()

    def take(self) -> bytes:
        """The first line, which is gone then; raises IndexError where there is none."""
        if not self or self._file is None:
            raise IndexError("the spool is empty")
        self._file.seek(self._read)
        line = self._file.readline()
        self._read = self._file.tell()
        if not self:  # its room is given back
            self._file.close()
            self._file, self._read, self._written = None, 0, 0
        return line[:-1]

    def __iter__(self) -> Iterator[bytes]:
        while self:
            yield self.take()
