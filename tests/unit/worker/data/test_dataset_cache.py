import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradprobe.errors import DataDirectoryUnusable, DatasetUnavailable
from worker.data.cache import obtain
from worker.data.files import DatasetFile
from worker.data.sources import Directory, Skipped, Source

if TYPE_CHECKING:
    from tests.unit.worker.data.conftest import Copies


@dataclass
class Served:
    """A source that has everything given to it, right or wrong, and remembers what it was asked for."""

    contents: dict[DatasetFile, bytes]
    description: str = "served"
    asked: list[str] = field(default_factory=list)

    def fetch(self, files: Sequence[DatasetFile]) -> Iterator[tuple[DatasetFile, bytes]]:
        self.asked += [file.name for file in files]
        yield from ((file, self.contents[file]) for file in files)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 0xFF]))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def test_a_cached_data_set_needs_no_source(copies: "Copies", tmp_path: Path) -> None:
    source = Directory(copies.write(tmp_path / "source"))
    assert obtain(copies.manifest, tmp_path / "cache", [source]) == copies.contents
    assert obtain(copies.manifest, tmp_path / "cache", []) == copies.contents


def test_only_missing_files_are_asked_for(copies: "Copies", tmp_path: Path) -> None:
    copies.write(tmp_path / "small", copies.manifest.files[:3])
    source = Served(copies.contents)
    assert obtain(copies.manifest, tmp_path, [source]) == copies.contents
    assert source.asked == [copies.manifest.test_labels.name]


def test_a_source_that_is_not_asked_is_not_told_of_where_another_has_the_files(
    copies: "Copies", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sources: list[Source] = [Skipped("THIS", "not set"), Directory(tmp_path / "none"), Served(copies.contents)]
    with caplog.at_level(logging.INFO):
        obtain(copies.manifest, tmp_path / "cache", sources)
    assert "not set" not in caplog.text
    assert f"nothing from {tmp_path / 'none'}: no such directory" in caplog.text


@pytest.mark.parametrize("spoil", [_flip, _cut, _empty])
def test_a_damaged_cached_file_is_named_and_fetched_again(
    copies: "Copies", tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    damaged = copies.write(tmp_path / "small") / copies.manifest.train_labels.name
    spoil(damaged)
    source = Served(copies.contents)
    with caplog.at_level(logging.WARNING):
        assert obtain(copies.manifest, tmp_path, [source]) == copies.contents
    assert source.asked == [damaged.name]
    assert damaged.read_bytes() == copies.contents[copies.manifest.train_labels]
    assert [str(damaged) in record.getMessage() for record in caplog.records] == [True]


def test_a_source_that_serves_something_else_is_passed_over(
    copies: "Copies", other_copies: "Copies", tmp_path: Path
) -> None:
    wrong = dict(zip(copies.manifest.files, other_copies.contents.values(), strict=True))
    right = Served(copies.contents)
    assert obtain(copies.manifest, tmp_path, [Served(wrong), right]) == copies.contents
    assert len(right.asked) == 4
    assert {path.name for path in (tmp_path / "small").iterdir()} == {file.name for file in copies.manifest.files}


def test_two_sources_may_complete_each_other(copies: "Copies", tmp_path: Path) -> None:
    first = Directory(copies.write(tmp_path / "first", copies.manifest.files[1:3]))
    second = Directory(copies.write(tmp_path / "second", copies.manifest.files[::3]))
    assert obtain(copies.manifest, tmp_path / "cache", [first, second]) == copies.contents


def test_many_fetch_at_once_and_no_reader_sees_half_a_file(copies: "Copies", tmp_path: Path) -> None:
    paths = {tmp_path / "small" / file.name: content for file, content in copies.contents.items()}

    def fetch_and_forget() -> bool:
        fetched = obtain(copies.manifest, tmp_path, [Served(copies.contents)])
        for path in paths:
            path.unlink(missing_ok=True)
        return fetched == copies.contents

    def read() -> bool:
        for path, content in paths.items():
            try:
                if path.read_bytes() != content:
                    return False
            except FileNotFoundError:
                continue
        return True

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(job) for _ in range(100) for job in (fetch_and_forget, read)]
        assert all(job.result() for job in jobs)
    assert list((tmp_path / "small").iterdir()) == []


def test_a_cache_that_can_not_be_written_is_named(copies: "Copies", tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(
        DataDirectoryUnusable, match=rf"{blocker}/cache/small \(Not a directory\).*GRADPROBE_DATA_DIRECTORY"
    ):
        obtain(copies.manifest, blocker / "cache", [Served(copies.contents)])


def test_a_file_that_can_not_be_replaced_is_named_and_leaves_nothing_behind(copies: "Copies", tmp_path: Path) -> None:
    in_the_way = tmp_path / "small" / copies.manifest.train_images.name
    (in_the_way / "occupied").mkdir(parents=True)
    with pytest.raises(DataDirectoryUnusable, match=str(in_the_way)):
        obtain(copies.manifest, tmp_path, [Served(copies.contents)])
    assert list(in_the_way.parent.iterdir()) == [in_the_way]


def test_without_any_source_the_error_lists_each_and_says_what_to_do(copies: "Copies", tmp_path: Path) -> None:
    sources: list[Source] = [Skipped("public mirrors", "forbidden"), Directory(tmp_path / "nowhere")]
    with pytest.raises(DatasetUnavailable) as caught:
        obtain(copies.manifest, tmp_path, sources)
    message = caught.value.message
    assert f"Tried: public mirrors: forbidden; {tmp_path / 'nowhere'}: no such directory." in message
    assert "set GRADPROBE_DATASETS_DIRECTORY" in message
    assert "\n" not in message
