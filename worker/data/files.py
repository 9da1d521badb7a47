"""What a data set on disk is: four IDX files, each known by its shape and its SHA-256."""

import gzip
import hashlib
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

GZIP_MAGIC = b"\x1f\x8b"
# A stored-only gzip stream is this much longer than its content at most; whatever is longer is not the file.
_COMPRESSION_SLACK = 64 * 1024


class SourceFailed(Exception):
    """A source can't serve what was asked; the message is the reason, in one line."""


@dataclass(frozen=True)
class DatasetFile:
    """One IDX file of unsigned bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str  # of the uncompressed file

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file: magic number, one word for each dimension, one byte for each element."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def maximum_size(self) -> int:
        """Bytes that a copy of the file, plain or compressed, can have."""
        return self.size + _COMPRESSION_SLACK

    def fault(self, content: bytes) -> str | None:
        """Why `content` is not this file's, or None where it is."""
        if len(content) != self.size:
            return f"{self.name} has {len(content):,} bytes instead of {self.size:,}"
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            return f"{self.name} has SHA-256 {digest[:12]}… instead of {self.sha256[:12]}…"
        return None

    def unpack(self, content: bytes) -> bytes:
        """`content` uncompressed, where it is a gzip stream, to one byte more than the file's size at most."""
        if not content.startswith(GZIP_MAGIC):
            return content
        try:
            with gzip.open(io.BytesIO(content)) as stream:
                return stream.read(self.size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceFailed(f"{self.name}.gz can't be uncompressed ({error})") from error


@dataclass(frozen=True)
class Manifest:
    """The four files of a data set, and where copies of them are."""

    name: str
    train_images: DatasetFile
    train_labels: DatasetFile
    test_images: DatasetFile
    test_labels: DatasetFile
    mirrors: tuple[str, ...] = ()
    system_directory: Path | None = None
    system_package: str | None = None
    npm_package: str | None = None

    @property
    def files(self) -> tuple[DatasetFile, ...]:
        """All four: training images and labels, then the test set's."""
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)

    @property
    def sha256(self) -> str:
        """One checksum for the whole: SHA-256 of the four files' hexadecimal digests, one after another."""
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()
