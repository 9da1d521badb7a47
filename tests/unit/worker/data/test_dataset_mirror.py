import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gradprobe.settings import Settings
from worker.data.cache import obtain
from worker.data.files import SourceFailed
from worker.data.mirror import Mirror
from worker.data.sources import sources_of

if TYPE_CHECKING:
    from tests.unit.worker.data.conftest import Copies


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "published"
    path.mkdir()
    return path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """A web server's address that publishes `folder`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_the_first_mirror_that_answers_fills_the_cache(
    copies: "Copies", folder: Path, url: str, closed_url: str, tmp_path: Path
) -> None:
    copies.write(folder, compressed=True)
    manifest = replace(copies.manifest, mirrors=(closed_url, url))
    sources = sources_of(manifest, Settings(data_directory=tmp_path, dataset_mirrors=True))
    assert obtain(manifest, tmp_path / "cache", sources) == copies.contents
    assert obtain(manifest, tmp_path / "cache", []) == copies.contents


def test_a_missing_file_is_named(copies: "Copies", folder: Path, url: str) -> None:
    copies.write(folder, copies.manifest.files[:1], compressed=True)
    served = Mirror(url).fetch(copies.manifest.files)
    assert next(served) == (copies.manifest.train_images, copies.contents[copies.manifest.train_images])
    with pytest.raises(SourceFailed, match=r"train-labels-idx1-ubyte\.gz: HTTP 404"):
        next(served)


def test_an_endless_file_is_cut_off(copies: "Copies", folder: Path, url: str) -> None:
    file = copies.manifest.train_labels
    (folder / f"{file.name}.gz").write_bytes(bytes(file.maximum_size + 1))
    with pytest.raises(SourceFailed, match="longer than the file can be"):
        list(Mirror(url).fetch([file]))


def test_a_closed_network_is_a_reason(copies: "Copies", closed_url: str) -> None:
    with pytest.raises(SourceFailed, match="refused"):
        list(Mirror(closed_url).fetch(copies.manifest.files))


def test_a_proxy_that_can_not_be_used_is_a_reason(copies: "Copies", url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("ALL_PROXY", "unknown://127.0.0.1:1")
    with pytest.raises(SourceFailed, match="unknown://"):
        list(Mirror(url).fetch(copies.manifest.files))
