"""What the client asks of its surroundings: send a request, pause, open a stream. There are two kinds.

Everything above is written once, as coroutines over a `Wire`. `BlockingWire` never gives control away: its coroutines
do their work and return, so that `now` and `each` run what is written over it to the end without any event loop.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import anyio
import httpx
from httpx_sse import EventSource, ServerSentEvent

from gradprobe.client.requests import Request
from gradprobe.client.server import Server

_LONGEST_SILENCE: Final = 90.0  # seconds; a server breaks a stream's silence at least every 60
#: Connections at once: as many that wait are held by the server. Those beyond it wait here, as long as it takes.
_MOST_CONNECTIONS: Final = 500
_KEPT_CONNECTIONS: Final = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Stream:
    """An answer that comes bit by bit."""

    answer: httpx.Response
    events: AsyncIterator[ServerSentEvent]


class Wire(Protocol):
    """How requests travel. Both methods that speak to the server raise httpx.RequestError."""

    async def send(self, request: Request, seconds: float) -> httpx.Response:
        """Any answer, whole, within so many seconds."""

    def stream(self, request: Request, seconds: float) -> AbstractAsyncContextManager[Stream]:
        """Any answer; one that is no success is read already. `seconds`: for it to begin."""

    async def pause(self, seconds: float) -> None:
        """Let the time pass."""

    async def close(self) -> None:
        """Close the connections."""


class BlockingWire:
    """A wire for those who have nothing else to do meanwhile. Safe to share between threads, as httpx's client is."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(**server.options())

    async def send(self, request: Request, seconds: float) -> httpx.Response:
        """As `Wire` says."""
        return self.http.request(request.method, request.path, timeout=seconds, **_arguments(request))

    @asynccontextmanager
    async def stream(self, request: Request, seconds: float) -> AsyncIterator[Stream]:
        """As `Wire` says."""
        timeout = httpx.Timeout(seconds, read=max(seconds, _LONGEST_SILENCE))
        with self.http.stream(request.method, request.path, timeout=timeout, **_arguments(request)) as answer:
            if not answer.is_success:
                answer.read()
            yield Stream(answer, _told(answer))

    async def pause(self, seconds: float) -> None:
        """As `Wire` says."""
        time.sleep(seconds)

    async def close(self) -> None:
        """As `Wire` says."""
        self.http.close()


class AsyncWire:
    """A wire for those who do other things meanwhile, under asyncio or trio."""

    def __init__(self, server: Server) -> None:
        self.server = server
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_KEPT_CONNECTIONS)
        self.http = httpx.AsyncClient(limits=limits, **server.options())

    async def send(self, request: Request, seconds: float) -> httpx.Response:
        """As `Wire` says."""
        timeout = httpx.Timeout(seconds, pool=None)
        return await self.http.request(request.method, request.path, timeout=timeout, **_arguments(request))

    @asynccontextmanager
    async def stream(self, request: Request, seconds: float) -> AsyncIterator[Stream]:
        """As `Wire` says."""
        timeout = httpx.Timeout(seconds, read=max(seconds, _LONGEST_SILENCE), pool=None)
        async with self.http.stream(request.method, request.path, timeout=timeout, **_arguments(request)) as answer:
            if not answer.is_success:
                await answer.aread()
            yield Stream(answer, EventSource(answer).aiter_sse())

    async def pause(self, seconds: float) -> None:
        """As `Wire` says."""
        await anyio.sleep(seconds)

    async def close(self) -> None:
        """As `Wire` says."""
        await self.http.aclose()


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a `BlockingWire`."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(T, end.value)
    coroutine.close()
    raise AssertionError("what is written over a blocking wire waits for nothing else")


def each(generator: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an asynchronous generator over a `BlockingWire` yields; it is closed when this is."""
    try:
        while True:
            try:
                found = now(_next(generator))
            except StopAsyncIteration:
                return
            yield found
    finally:
        now(_closed(generator))


async def _next(generator: AsyncGenerator[T, None]) -> T:
    return await anext(generator)


async def _closed(generator: AsyncGenerator[Any, None]) -> None:
    await generator.aclose()


async def _told(answer: httpx.Response) -> AsyncIterator[ServerSentEvent]:
    for event in EventSource(answer).iter_sse():
        yield event


def _arguments(request: Request) -> Mapping[str, Any]:
    return {"params": request.given, "json": request.body, "headers": request.headers}
