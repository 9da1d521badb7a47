"""From a loop to a server: a thread of its own, so that the loop never waits, whatever the server does."""

import logging
import threading
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.client.answers import checked
from gradprobe.client.errors import ProblemError, ServerUnreachable, UnexpectedAnswer
from gradprobe.client.transport import Transport
from gradprobe.reports import Report
from gradprobe.statistics import Tensor
from gradprobe.subject import WatchedSpec
from gradprobe.watching.spool import Spool

#: Bytes of arrays in one report: a third more in base64, and still well under a server's smallest usual bound.
_REPORT_BYTES: Final = 500_000
#: What waits in memory at most; what is older goes to disk.
_MEMORY_BYTES: Final = 32 * 1024 * 1024
_DISK_BYTES: Final = 2 * 1024 * 1024 * 1024
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 10.0
_LATER: Final = frozenset({429, 500, 502, 503, 504})

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What was measured of the steps start ≤ t < stop."""

    start: int
    stop: int
    statistics: dict[Tensor, StatisticsBlock]
    counts: dict[Tensor, CountsBlock]

    @property
    def size(self) -> int:
        """Bytes of its arrays."""
        blocks = sum(block.values.nbytes + 8 * len(block.steps) for block in self.statistics.values())
        return blocks + sum(block.bins.nbytes + block.counts.nbytes for block in self.counts.values())

    def parts(self) -> Iterator["Batch"]:
        """As batches that fit a report; one step by itself is not divided."""
        if self.size <= _REPORT_BYTES or self.stop - self.start < 2:
            yield self
            return
        middle = (self.start + self.stop) // 2
        for start, stop in ((self.start, middle), (middle, self.stop)):
            statistics = {name: block.between(start, stop) for name, block in self.statistics.items()}
            counts = {name: block.between(start, stop) for name, block in self.counts.items()}
            yield from Batch(
                start,
                stop,
                {name: block for name, block in statistics.items() if len(block.steps)},
                {name: block for name, block in counts.items() if len(block.steps)},
            ).parts()

    def encoded(self) -> bytes:
        """As a report's JSON, one line."""
        return Report.of(self.start, self.stop, self.statistics, self.counts).model_dump_json().encode()


class Reporter:
    """Sends batches in order, each until the server has it.

    While the server is away they wait: in memory, then on disk. A server that refuses ends the reporting, with one
    warning; the loop and what it keeps itself go on.
    """

    def __init__(self, url: str, key: str | None) -> None:
        self.id: str | None = None
        self.problem: str | None = None
        self._transport = Transport(url, 10.0, key)
        self._request = uuid.uuid4().hex
        self._spec: Callable[[], WatchedSpec] | None = None
        self._waiting: deque[Batch] = deque()
        self._bytes = 0
        self._next = 0
        self._spool = Spool()
        self._news = threading.Condition()
        self._end: dict[str, Any] | None = None
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name="gradprobe-reporter", daemon=True)
        self._thread.start()

    def put(
        self,
        spec: Callable[[], WatchedSpec],
        stop: int,
        statistics: dict[Tensor, StatisticsBlock],
        counts: dict[Tensor, CountsBlock],
    ) -> None:
        """Take what was measured up to `stop`; never waits for the server."""
        batch = Batch(self._next, stop, statistics, counts)
        if stop <= self._next or self.problem is not None:
            return
        self._next = stop
        with self._news:
            self._spec = spec
            self._waiting.append(batch)
            self._bytes += batch.size
            self._news.notify()

    def end(self, patience: float, status: str = "succeeded", message: str | None = None) -> bool:
        """The loop has ended; whether the server has everything after at most so many seconds."""
        with self._news:
            self._end = {"status": status, "message": message}
            self._deadline = time.monotonic() + patience
            self._news.notify()
        self._thread.join(patience + 1.0)
        missing = self.unreported
        if missing and self.problem is None:
            reason = self._unanswered or "the server was too slow"
            self._give_up(f"{reason}; the last {missing} steps were not reported")
        return self.problem is None and not missing

    @property
    def unreported(self) -> int:
        """Steps that the server does not have yet."""
        return self._next - self._reported if self._spec is not None else 0

    _reported = 0
    _unanswered: str | None = None

    def _run(self) -> None:
        try:
            while (batch := self._first()) is not None:
                for part in batch.parts():
                    self._send_line(part.encoded())
                # What was put aside while this one waited is older than what waits in memory.
                for line in self._spool:
                    self._send_line(line)
                self._reported = max(self._reported, batch.stop)
            if self._end is not None and self.id is not None:
                self._send(f"/runs/{self.id}/end", self._end)
        except _Stopped:
            pass
        except Exception as error:
            _logger.warning("gradprobe.watch stops reporting", exc_info=error)
            self._give_up(f"{type(error).__name__}: {error}")
        finally:
            self._transport.close()

    def _first(self) -> Batch | None:
        """The next batch; waits for one. None at the end."""
        with self._news:
            while not self._waiting:
                if self._end is not None:
                    return None
                self._news.wait()
            batch = self._waiting.popleft()
            self._bytes -= batch.size
        return batch

    def _send_line(self, line: bytes) -> None:
        if self.id is None:
            self._begin()
        answer = self._send(f"/runs/{self.id}/statistics", None, line)
        self._reported = max(self._reported, int(answer["progress"]["iteration"]))
        if answer["status"] == "cancelled":
            self._give_up("the run was cancelled on the server")
            raise _Stopped

    def _begin(self) -> None:
        if self._spec is None:
            raise _Stopped
        document = self._spec().model_dump(mode="json")
        self.id = str(self._send("/runs", document, headers={"Idempotency-Key": self._request})["id"])

    def _send(
        self, path: str, document: Any, line: bytes | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """POST until it was taken; raises _Stopped where it never will be."""
        pause = _FIRST_PAUSE
        while True:
            try:
                answer = self._transport.post(path, line, document, headers or {})
                found: dict[str, Any] = checked(answer).json()
            except ServerUnreachable as error:
                self._miss(error)
            except (ProblemError, UnexpectedAnswer) as error:
                if error.status not in _LATER:
                    self._give_up(str(error))
                    raise _Stopped from error
            else:
                self._unanswered = None
                return found
            if time.monotonic() > self._deadline:
                raise _Stopped
            self._put_aside()
            self._pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _miss(self, error: ServerUnreachable) -> None:
        """Remember why; who gave a URL where nothing ever answered is told at once, and not at the end alone."""
        if self._unanswered is None and self.id is None:
            _logger.warning("%s; what is measured waits for it", error.message)
        self._unanswered = error.message

    def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the deadline that an end sets."""
        until = time.monotonic() + seconds
        with self._news:
            while (left := min(until, self._deadline + 0.01) - time.monotonic()) > 0:
                self._news.wait(left)

    def _put_aside(self) -> None:
        """Move what is too much for the memory to disk, the oldest first; of what is too much for that, the range."""
        while self._bytes > _MEMORY_BYTES:
            with self._news:
                batch = self._waiting.popleft()
                self._bytes -= batch.size
            if len(self._spool) > _DISK_BYTES:
                _logger.warning("steps %d to %d are not reported: too much waits", batch.start, batch.stop)
                batch = Batch(batch.start, batch.stop, {}, {})
            for part in batch.parts():
                self._spool.put(part.encoded())

    def _give_up(self, reason: str) -> None:
        if self.problem is None:
            self.problem = reason
            with self._news:
                self._waiting.clear()
                self._bytes = 0
            try:
                warnings.warn(f"gradprobe.watch stops reporting: {reason}", RuntimeWarning, stacklevel=2)
            except RuntimeWarning:  # warnings are errors here
                _logger.warning("gradprobe.watch stops reporting: %s", reason)


class _Stopped(Exception):
    """There is nothing more to send, or nobody to send it to."""
