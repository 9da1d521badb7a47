"""The stream of events that goes on where it was broken off."""

import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

import httpx
from httpx_sse import ServerSentEvent, SSEError
from pydantic import BaseModel, ValidationError

from gradprobe.client.answers import checked
from gradprobe.client.errors import ProblemError, ServerUnreachable, UnexpectedAnswer
from gradprobe.client.exchange import Exchange
from gradprobe.client.requests import Parameters, Request
from gradprobe.resources import Experiment, FindingEvent, ProgressEvent, StatisticsEvent, StatusEvent

EventKind = Literal["status", "progress", "statistics", "finding", "end"]
EventDocument = StatusEvent | ProgressEvent | StatisticsEvent | FindingEvent | Experiment

_DOCUMENTS: Final[dict[str, type[BaseModel]]] = {
    "status": StatusEvent,
    "progress": ProgressEvent,
    "statistics": StatisticsEvent,
    "finding": FindingEvent,
    "end": Experiment,
}
_PASSING: Final = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0


@dataclass(frozen=True)
class Event:
    """One event; `id` is what to go on after. `end` brings the whole experiment."""

    kind: str
    id: str
    data: EventDocument


@dataclass(frozen=True)
class Source:
    """Where a stream comes from."""

    exchange: Exchange
    path: str
    parameters: Parameters


async def followed(source: Source, last_event_id: str | None, patience: float) -> AsyncGenerator[Event, None]:
    """Every event up to `end`, over as many connections as it takes.

    Raises:
        ServerUnreachable: nothing came for `patience` seconds.
        ProblemError, UnexpectedAnswer: the server refuses, and trying again would not help.
    """
    heard, failures = time.monotonic(), 0
    while True:
        try:
            async with aclosing(_connection(source, last_event_id)) as events:
                async for event in events:
                    last_event_id = event.id
                    yield event
                    heard, failures = time.monotonic(), 0
                    if event.kind == "end":
                        return
            if last_event_id is not None and last_event_id.endswith("-end"):
                return
            heard, failures = time.monotonic(), 0  # it ended in an orderly way, to be opened again
        except (ServerUnreachable, ProblemError, UnexpectedAnswer) as error:
            passing = isinstance(error, ServerUnreachable) or error.status in _PASSING
            if not passing or time.monotonic() - heard > patience:
                raise
            failures += 1
        # Not all at once: a server that comes back finds all its watchers at the door.
        pause = min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311
        await source.exchange.wire.pause(pause)


async def _connection(source: Source, last_event_id: str | None) -> AsyncGenerator[Event, None]:
    headers = {"Accept": "text/event-stream, application/problem+json"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = last_event_id
    request = Request("GET", source.path, source.parameters, headers=headers)
    server, wire = source.exchange.server, source.exchange.wire
    try:
        async with wire.stream(request, server.timeout) as stream:
            if checked(stream.answer).status_code == HTTPStatus.NO_CONTENT:
                return
            async for told in stream.events:
                event = _event(told)
                if event is not None:
                    yield event
    except httpx.RequestError as error:
        raise server.gone(error) from error
    except (SSEError, ValidationError) as error:
        raise UnexpectedAnswer(
            f"{server.url} did not answer with the events of a Gradprobe server; is this the right URL?",
            HTTPStatus.OK,
        ) from error


def _event(told: ServerSentEvent) -> Event | None:
    """None for a comment, and for a kind that this release does not know."""
    document = _DOCUMENTS.get(told.event)
    if document is None:
        return None
    return Event(told.event, told.id, document.model_validate_json(told.data))  # type: ignore[arg-type]
