"""A cache bounded by bytes: what was not used for longest goes first."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any


class Cache:
    """Values that nobody changes any more, under keys that are never used for another value. Thread-safe."""

    def __init__(self, maximum_bytes: int) -> None:
        self.maximum_bytes = maximum_bytes
        self._lock = Lock()
        self._held: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> Any | None:
        """The value under `key`, if it is still there."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep `value`, which takes `size` bytes; one larger than half the cache would drive out all others."""
        if size > self.maximum_bytes // 2:
            return
        with self._lock:
            if key in self._held:
                return
            self._held[key] = value, size
            self._bytes += size
            while self._bytes > self.maximum_bytes:
                _, (_, gone) = self._held.popitem(last=False)
                self._bytes -= gone

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._bytes
