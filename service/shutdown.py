"""Notice that the server was asked to stop, while requests are still being answered."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def noticing(stopping: threading.Event) -> Iterator[None]:
    """Sets `stopping` on the first signal to stop, and passes the signal on to whoever handled it before.

    The server itself says nothing before every request has been answered, and a request that waits would hold it up.
    """
    if threading.current_thread() is not threading.main_thread():  # a server inside a test: signals are not its own
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def notice(number: int, frame: FrameType | None) -> None:
        stopping.set()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    mine = {number: handler for number, handler in before.items() if callable(handler)}
    for number in mine:
        signal.signal(number, notice)
    try:
        yield
    finally:
        for number, handler in mine.items():
            signal.signal(number, handler)
