"""The cache: one folder for each data set, each file verified whenever it is read."""

import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from gradprobe.errors import DataDirectoryUnusable, DatasetUnavailable
from worker.data.files import DatasetFile, Manifest, SourceFailed
from worker.data.sources import Skipped, Source

logger = logging.getLogger(__name__)


def obtain(manifest: Manifest, directory: Path, sources: Sequence[Source]) -> dict[DatasetFile, bytes]:
    """All files of a data set, verified: the cache's, and the missing ones from the first sources that have them.

    Args:
        manifest: the data set.
        directory: the cache; the files are kept in its subfolder of the data set's name.
        sources: asked in this order.

    Raises:
        DatasetUnavailable: no source has what is missing.
        DataDirectoryUnusable: the cache can't be written.
    """
    folder = directory / manifest.name
    contents = {file: content for file in manifest.files if (content := _read(folder / file.name, file)) is not None}
    reasons: list[str] = []
    for source in sources:
        missing = [file for file in manifest.files if file not in contents]
        if not missing:
            break
        _make(folder)
        try:
            for file, content in source.fetch(missing):
                _keep(folder / file.name, file, content)
                contents[file] = content
                logger.info("%s/%s: from %s", manifest.name, file.name, source.description)
        except SourceFailed as failure:
            reasons.append(f"{source.description}: {failure}")
            # What nobody asked for reads like an error, and is none as long as another source has the files.
            level = logging.DEBUG if isinstance(source, Skipped) else logging.INFO
            logger.log(level, "%s: nothing from %s: %s", manifest.name, source.description, failure)
    if len(contents) < len(manifest.files):
        raise DatasetUnavailable(_unavailable(manifest, reasons))
    return contents


def _read(path: Path, file: DatasetFile) -> bytes | None:
    """A cached file's content; None where there is none, or one that must be fetched again."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size == file.size else b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        logger.warning("The cached %s can't be read (%s); it is fetched again.", path, error.strerror)
        return None
    fault = file.fault(content) if size == file.size else f"{size:,} bytes instead of {file.size:,}"
    if fault is not None:
        logger.warning("The cached %s is damaged (%s); it is fetched again.", path, fault)
        return None
    return content


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _keep(path: Path, file: DatasetFile, content: bytes) -> None:
    fault = file.fault(content)
    if fault is not None:
        raise SourceFailed(fault)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        # Readers see the whole old file or the whole new one, whoever else fetches at the same time.
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> DataDirectoryUnusable:
    return DataDirectoryUnusable(
        f"The data set can't be kept in {path} ({error.strerror}); make that directory writable "
        "or set GRADPROBE_DATA_DIRECTORY to another."
    )


def _unavailable(manifest: Manifest, reasons: Sequence[str]) -> str:
    names = ", ".join(file.name for file in manifest.files)
    advice = [
        f"put {names}, plain or as .gz, in a directory and set GRADPROBE_DATASETS_DIRECTORY to it",
        "let this machine reach the public mirrors (GRADPROBE_DATASET_MIRRORS=true)",
    ]
    if manifest.system_package is not None:
        advice.append(f"install Debian's package {manifest.system_package}")
    if manifest.npm_package is not None:
        advice.append("install npm and let it reach its registry")
    return (
        f"The data set {manifest.name} could not be read from any source. Tried: {'; '.join(reasons)}. "
        f"What to do: {', or '.join(advice)}."
    )
