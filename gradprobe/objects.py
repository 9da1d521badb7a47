"""Objects in a bucket, by S3's protocol: the only place that knows obstore, which is imported where a bucket is set."""

import logging
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from gradprobe.errors import CorruptBlock, ObjectStoreUnavailable, ObjectStoreUnusable

if TYPE_CHECKING:
    from gradprobe.settings import Settings

_logger = logging.getLogger(__name__)

_CONNECT: Final = timedelta(seconds=2)
#: Without a byte; a large object may take as long as it takes.
_SILENCE: Final = timedelta(seconds=10)
_REQUEST: Final = timedelta(minutes=10)
#: Short: whoever reads waits for it, with a connection to the database in hand.
_RETRIES: Final[Any] = {"max_retries": 2, "retry_timeout": timedelta(seconds=4)}
#: After a failure it is not asked again for so long, and for so many times as long as that took: those who read, and
#: the one poller of all event streams, must not each wait for the same silence again and again.
_PAUSE_SECONDS: Final = 2.0
_PAUSE_TIMES: Final = 6
_LISTED_AT_ONCE: Final = 1000

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an object: `length` bytes from `start` on, whose CRC-32 is `checksum`."""

    start: int
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as the bucket lists it: its name under the prefix, and its age in seconds by this machine's clock."""

    name: str
    seconds: float


class ObjectStore:
    """The objects under one prefix of one bucket. None is ever changed: a name is written once. Thread-safe.

    Every method raises ObjectStoreUnavailable where the store does not answer, or refuses.
    """

    def __init__(self, settings: "Settings") -> None:
        try:
            from obstore import exceptions, store  # noqa: PLC0415 - an extra, and only where a bucket is set
        except ModuleNotFoundError as error:
            raise ObjectStoreUnusable from error
        address = urlsplit(settings.object_store)
        self._failures = exceptions.BaseError, OSError
        self._silent_until = 0.0
        self._store = store.S3Store(
            address.netloc,
            prefix=address.path.strip("/") or None,
            client_options={
                "connect_timeout": _CONNECT,
                "read_timeout": _SILENCE,
                "timeout": _REQUEST,
                "allow_http": settings.object_store_endpoint.startswith("http://"),
            },
            retry_config=_RETRIES,
            config=_config(settings),
        )

    def put(self, name: str, content: IO[bytes]) -> None:
        """Store an object; it is there whole, and kept, when this returns."""
        self._ask(lambda: self._store.put(name, content))

    def read(self, name: str, pieces: Sequence[Piece]) -> list[bytes]:
        """Parts of an object, in this order; those that lie close together come with one request.

        Raises:
            CorruptBlock: a part is not what was stored.
        """
        if not pieces:
            return []
        starts, lengths = [piece.start for piece in pieces], [piece.length for piece in pieces]
        found = self._ask(lambda: self._store.get_ranges(name, starts=starts, lengths=lengths))
        parts = [part.to_bytes() for part in found]
        for part, piece in zip(parts, pieces, strict=True):
            if len(part) != piece.length or zlib.crc32(part) != piece.checksum:
                raise CorruptBlock(f"A part of the object {name} is not what was stored.")
        return parts

    def remove(self, names: Collection[str]) -> None:
        """Remove these; that one is gone already is no fault."""
        if names:
            self._ask(lambda: self._store.delete(list(names)))

    def listed(self) -> Iterator[Listed]:
        """All that there are."""
        pages = iter(self._ask(lambda: self._store.list(chunk_size=_LISTED_AT_ONCE)))
        while page := self._ask(lambda: next(pages, None)):
            now = datetime.now(UTC)
            yield from (Listed(item["path"], (now - item["last_modified"]).total_seconds()) for item in page)

    def _ask(self, question: Callable[[], Found]) -> Found:
        began = time.monotonic()
        if began < self._silent_until:
            raise ObjectStoreUnavailable
        try:
            return question()
        except FileNotFoundError as error:
            # Deleted since its row was read, or lost: asked again, the answer is that the experiment is gone, or this.
            _logger.warning("object store: %s", error)
            raise ObjectStoreUnavailable(
                "An object that this experiment's measurements are in is not in the object store; "
                "`gradprobe archive --check` tells whether it is lost."
            ) from error
        except self._failures as error:
            _logger.warning("object store: %s", error)
            ended = time.monotonic()
            self._silent_until = ended + max(_PAUSE_SECONDS, _PAUSE_TIMES * (ended - began))
            raise ObjectStoreUnavailable from error


def opened(settings: "Settings") -> ObjectStore | None:
    """The object store of the settings; None where none is set. Raises ObjectStoreUnusable: obstore is missing."""
    return ObjectStore(settings) if settings.object_store else None


def _config(settings: "Settings") -> Any:
    """What the settings say of it; obstore reads the rest from `AWS_…`, or asks the machine that it runs on."""
    config: dict[str, str] = {}
    if settings.object_store_endpoint:
        config["endpoint"] = settings.object_store_endpoint
    if settings.object_store_access_key is not None and settings.object_store_secret_key is not None:
        config["access_key_id"] = settings.object_store_access_key.get_secret_value()
        config["secret_access_key"] = settings.object_store_secret_key.get_secret_value()
    return config
