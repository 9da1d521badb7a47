"""The client for those who do other things meanwhile."""

from typing import Self

from gradprobe.client.calls import Calls
from gradprobe.client.exchange import Exchange
from gradprobe.client.retries import Retries
from gradprobe.client.server import Server
from gradprobe.client.wire import AsyncWire

_PATIENT = Retries()


class AsyncClient(Calls):
    """A connection to one Gradprobe server, for asyncio or trio.

    It has the methods of `Client`, with the same arguments, documents, errors and repetitions. Each is awaited; `list`,
    `list_sweeps` and `events` are iterated with `async for`. Some hundred waits at once are one process's work: what
    they wait for is held back by the server. Use it with `async with`, or await `close`.

    Args:
        url: as for `Client`, and so are the others.
    """

    def __init__(
        self,
        url: str | None = None,
        timeout: float = 30.0,
        *,
        api_key: str | None = None,
        retries: Retries = _PATIENT,
    ) -> None:
        server = Server.found(url, timeout, api_key, retries)
        super().__init__(Exchange(server, AsyncWire(server)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
