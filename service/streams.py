"""All event streams of this process, served by one poller.

A watcher that waits holds neither thread nor connection. The poller asks for the versions of all watched experiments
in one query and reads only those that changed; watchers who know the same are told the same bytes. A watcher that has
not taken what it was told is left alone until it has, and is then told the rest in fewer events: so a slow reader
costs no memory and misses nothing.
"""

import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import anyio
from anyio import to_thread
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from gradprobe.errors import (
    DatabaseUnavailable,
    ExperimentNotFound,
    ObjectStoreUnavailable,
    SchemaOutOfDate,
    TooManyStreams,
)
from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from gradprobe.store import experiments, watching
from gradprobe.store.database import Database
from gradprobe.store.reader import Reader
from service import metrics
from service.events import Known, Wish, news
from service.rendering import json_bytes

_logger = logging.getLogger(__name__)

_NEVER_LOOKED = -1
#: So many ends are told again without being read again: some tens of kilobytes each.
_KEPT = 200
#: How long a reader waits before it connects again.
_RETRY_MILLISECONDS = 1000


@dataclass(eq=False, slots=True)
class Watcher:
    """One stream: what it was told, and what it is to send next."""

    experiment_id: str
    known: Known
    wish: Wish
    version: int = _NEVER_LOOKED
    outgoing: list[bytes] = field(default_factory=list)
    over: bool = False
    _told: anyio.Event = field(default_factory=anyio.Event)

    @property
    def idle(self) -> bool:
        """Whether it has sent everything and goes on."""
        return not self.outgoing and not self.over

    def tell(self, look: "Look") -> None:
        """Take what a look found."""
        self.known, self.version, self.over = look.known, look.version, look.over
        self.outgoing = list(look.events)
        self._wake()

    def end(self) -> None:
        """Send nothing more."""
        self.over = True
        self._wake()

    async def take(self, seconds: float) -> list[bytes]:
        """What is to be sent, once there is something; nothing after so many seconds."""
        if self.idle:
            with anyio.move_on_after(seconds):
                await self._told.wait()
        self._told = anyio.Event()
        taken, self.outgoing = self.outgoing, []
        return taken

    def _wake(self) -> None:
        if self.outgoing or self.over:
            self._told.set()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an experiment found for those who know the same and wish the same."""

    known: Known
    version: int
    over: bool
    events: tuple[bytes, ...] = ()


Question = tuple[str, Known, Wish, int]


class Streams:
    """The watchers of one process. All but `_look` runs on the event loop."""

    def __init__(
        self, settings: Settings, database: Database, stopping: threading.Event, store: ObjectStore | None = None
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._watchers: set[Watcher] = set()
        self._joined = anyio.Event()
        self._stopping = stopping
        #: What was told of ended experiments, the one asked for longest ago first.
        self._kept: dict[Question, Look] = {}

    def __len__(self) -> int:
        return len(self._watchers)

    def join(self, experiment_id: str, known: Known, wish: Wish) -> Watcher:
        """A new stream; whoever joins must leave. Raises TooManyStreams."""
        if len(self._watchers) >= self._settings.maximum_streams:
            raise TooManyStreams
        watcher = Watcher(experiment_id, known, wish)
        self._watchers.add(watcher)
        metrics.watched(len(self._watchers))
        self._joined.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """The stream is closed."""
        self._watchers.discard(watcher)
        metrics.watched(len(self._watchers))

    async def sent(self, watcher: Watcher) -> AsyncIterator[bytes]:
        """What the stream sends: its events, and a comment where there are none for a while."""
        # A stream ends at some time or other, so that its reader connects again: to the release that runs then, with
        # a key that is still good.
        closes = time.monotonic() + self._settings.stream_seconds
        yield format_sse_event(retry=_RETRY_MILLISECONDS)
        while True:
            taken = await watcher.take(self._settings.keepalive_seconds)
            if taken:
                yield b"".join(taken)  # each part that is sent goes through all of the server for every watcher
            if watcher.over or time.monotonic() > closes:
                return
            if not taken:
                yield KEEPALIVE_COMMENT

    async def run(self) -> None:
        """Tell the watchers, until cancelled."""
        while True:
            if not self._watchers:
                await self._joined.wait()
            self._joined = anyio.Event()
            try:
                await self._round()
            except (DatabaseUnavailable, SchemaOutOfDate) as error:
                _logger.warning("event streams wait for the database: %s", error.message)
            except Exception:
                # A poller that dies in silence would leave every watcher waiting: another round may go well.
                _logger.exception("event streams: a round failed")
            with anyio.move_on_after(self._settings.watch_seconds):
                await self._joined.wait()

    async def _round(self) -> None:
        if self._stopping.is_set():
            # Their readers connect again, to another process, and miss nothing.
            for watcher in self._watchers:
                watcher.end()
            return
        asking: dict[Question, list[Watcher]] = {}
        for watcher in self._watchers:
            if watcher.idle:
                question = watcher.experiment_id, watcher.known, watcher.wish, watcher.version
                asking.setdefault(question, []).append(watcher)
        if not asking:
            return
        found = await to_thread.run_sync(self._look, list(asking))
        for question, look in found.items():
            for watcher in asking[question]:
                watcher.tell(look)

    def _look(self, questions: Sequence[Question]) -> dict[Question, Look]:
        with self._database.read() as connection:
            versions = watching.versions(connection, {question[0] for question in questions})
        found: dict[Question, Look] = {}
        for question in questions:
            experiment_id, known, wish, version = question
            if experiment_id not in versions:
                found[question] = Look(known, version, over=True)
            elif versions[experiment_id] != version:
                try:
                    found[question] = self._read_or_kept(experiment_id, known, wish, versions[experiment_id])
                except ObjectStoreUnavailable as error:
                    # Its watchers go on waiting; those of all others, whose bytes are in the database, need not.
                    _logger.warning("an event stream waits: %s", error.message, extra={"experiment_id": experiment_id})
        return found

    def _read_or_kept(self, experiment_id: str, known: Known, wish: Wish, version: int) -> Look:
        """What an ended experiment has to tell stays the same, and all who come to it late are told it whole."""
        place = experiment_id, known, wish, version
        look = self._kept.pop(place, None) or self._read(experiment_id, known, wish)
        if look.over and look.version == version:
            self._kept[place] = look
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return look

    def _read(self, experiment_id: str, known: Known, wish: Wish) -> Look:
        # One transaction an experiment, so that what is told together is of the same moment.
        with self._database.read() as connection:
            try:
                record = experiments.get(connection, experiment_id)
            except ExperimentNotFound:
                return Look(known, _NEVER_LOOKED, over=True)
            told = list(news(known, record, Reader(connection, record.id, store=self._store), wish))
        encoded = tuple(
            format_sse_event(data_str=json_bytes(event.data).decode(), event=event.kind, id=event.known.id)
            for event in told
        )
        now_known = told[-1].known if told else known
        return Look(now_known, record.row_version, record.status.ended, encoded)
