"""One request to one answer: sent again where that can help and do no harm, see `gradprobe.client.retries`."""

import itertools
import time
from http import HTTPStatus

import httpx

from gradprobe.client.answers import Document, checked, parse
from gradprobe.client.requests import Parameters, Request
from gradprobe.client.retries import PERHAPS_DONE, REFUSED_FOR_NOW, may_pass, nothing_was_sent
from gradprobe.client.server import Server
from gradprobe.client.wire import Wire


class Exchange:
    """Requests to one server over one wire."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self.server = server
        self.wire = wire

    async def read(
        self, document: type[Document], path: str, parameters: Parameters | None = None, patience: float = 0.0
    ) -> Document:
        """GET one document. `patience`: seconds that the server may hold the answer back. Raises as `send` does."""
        return await self.send(document, Request("GET", path, parameters, patience=patience))

    async def send(self, document: type[Document], request: Request) -> Document:
        """Send one request; the document in its answer.

        Raises:
            ServerUnreachable: nothing answers at this URL, or not in time.
            ProblemError: the server answered with problem details.
            UnexpectedAnswer: another error's page, such as a proxy's, or another document.
        """
        return parse(document, await self.answer(request))

    async def answer(self, request: Request) -> httpx.Response:
        """Send one request; only a success comes back. Raises as `send` does."""
        return checked((await self._repeated(request))[0])

    async def delete(self, path: str) -> None:
        """DELETE; a repetition that finds nothing any more has done what was asked. Raises as `send` does."""
        answer, lost = await self._repeated(Request("DELETE", path))
        if not (lost and answer.status_code == HTTPStatus.NOT_FOUND):
            checked(answer)

    async def once(self, request: Request) -> httpx.Response:
        """Any answer; it is never sent again. Raises ServerUnreachable."""
        seconds = self.server.timeout + request.patience
        try:
            return await self.wire.send(request, seconds)
        except httpx.RequestError as error:
            raise self.server.unreachable(error, seconds) from error

    async def _repeated(self, request: Request) -> tuple[httpx.Response, int]:
        """The answer, and how many before it may have been lost on their way."""
        retries, seconds = self.server.retries, self.server.timeout + request.patience
        # What is left of the time for one answer bounds the repetitions too: a caller who gives a second, waits one.
        deadline = time.monotonic() + seconds
        lost = 0
        for repetition in itertools.count():
            last = repetition >= retries.number
            try:
                answer = await self.wire.send(request, seconds)
            except httpx.RequestError as error:
                sent = not nothing_was_sent(error)
                lost += sent
                pause = retries.pause(repetition)
                harmful = (sent and not request.harmless) or not may_pass(error)
                if last or harmful or time.monotonic() + pause > deadline:
                    raise self.server.unreachable(error, seconds) from error
            else:
                pause = retries.pause(repetition, answer.headers)
                again = REFUSED_FOR_NOW | (PERHAPS_DONE if request.harmless else frozenset())
                if last or answer.status_code not in again or time.monotonic() + pause > deadline:
                    return answer, lost
                lost += answer.status_code in PERHAPS_DONE
            await self.wire.pause(pause)
        raise AssertionError("the last repetition returns or raises")
