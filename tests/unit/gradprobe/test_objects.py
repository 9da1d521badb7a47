"""An object store that can't be spoken to; what it is when it can, `tests/integration/objects/` tells."""

import socket
import sys
import time
from datetime import timedelta

import pytest

from gradprobe import objects
from gradprobe.errors import ObjectStoreUnavailable, ObjectStoreUnusable
from gradprobe.objects import ObjectStore, Piece
from gradprobe.settings import Settings


def settings(port: int) -> Settings:
    return Settings.model_validate(
        {
            "object_store": "s3://bucket",
            "object_store_endpoint": f"http://127.0.0.1:{port}",
            "object_store_access_key": "somebody",
            "object_store_secret_key": "hush",
        }
    )


def test_without_a_setting_there_is_none_and_with_one_its_library_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert objects.opened(Settings()) is None
    with pytest.raises(ObjectStoreUnusable, match=r"pip install 'gradprobe\[objects\]'"):
        objects.opened(settings(1))


def test_who_asks_soon_after_a_failure_does_not_wait_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = ObjectStore(settings(port))

    def asked() -> float:
        began = time.monotonic()
        with pytest.raises(ObjectStoreUnavailable):
            store.read("name", [Piece(0, 1, 0)])
        return time.monotonic() - began

    first = asked()
    assert asked() < min(first, 0.01)
    monkeypatch.setattr(store, "_silent_until", 0.0)
    assert asked() > 0.01  # it asked again


def test_a_store_that_takes_the_connection_and_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_SILENCE", timedelta(seconds=0.2))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = ObjectStore(settings(listener.getsockname()[1]))
        began = time.monotonic()
        with pytest.raises(ObjectStoreUnavailable):
            store.read("name", [Piece(0, 1, 0)])
    ended = time.monotonic()
    assert 0.2 < ended - began < 4.0
    assert store._silent_until - ended == pytest.approx(6 * (ended - began), rel=0.5)


def test_no_part_asks_nothing() -> None:
    assert ObjectStore(settings(1)).read("name", []) == []
    ObjectStore(settings(1)).remove([])
