"""Wait for the database: while it is away, or has no room, what was measured is kept, and nothing is lost."""

import logging
import threading
import time
from collections.abc import Callable
from itertools import chain, repeat

from gradprobe.errors import DatabaseUnavailable

_logger = logging.getLogger(__name__)

#: Seconds between tries; the last over and over.
_TRIES = (0.1, 0.25, 0.5, 1.0)
_LAST_TRY = 2.0
#: A worker has nothing better to do than to wait. After so long it leaves the experiment to whoever finds it.
_SECONDS = 3600.0
#: A worker that was asked to stop has ten seconds for everything.
_STOPPING_SECONDS = 3.0


class Patience:
    """Does what needs the database again and again until it is done, or for as long as is sensible."""

    def __init__(self, stopping: threading.Event, seconds: float = _SECONDS) -> None:
        self._stopping = stopping
        self._seconds = seconds

    def do(self, action: Callable[[], None]) -> None:
        """Do it; the action must be one that may be done twice.

        Raises:
            DatabaseUnavailable: when the database did not come back in time.
        """
        began, asked_to_stop = time.monotonic(), None
        for pause in chain(_TRIES, repeat(_LAST_TRY)):
            try:
                return action()
            except DatabaseUnavailable as error:
                now = time.monotonic()
                if self._stopping.is_set():
                    asked_to_stop = asked_to_stop or now
                    # The event is set for good, so waiting for it would no longer wait.
                    time.sleep(min(pause, _TRIES[1]))
                else:
                    self._stopping.wait(pause)
                if now - began > self._seconds or now - (asked_to_stop or now) > _STOPPING_SECONDS:
                    raise
                _logger.warning("the database does not take it, trying again: %s", error)
        raise AssertionError  # the pauses never end
