"""What happens to an experiment, as it happens: server-sent events."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.dependencies import ExperimentId, ServiceDependency
from service.events import KINDS, Known, Wish
from service.parsing import Route
from service.problems import documented
from service.routes.experiments import read_record
from service.selection import refused
from service.streams import Streams, Watcher

router = APIRouter(prefix="/experiments/{experiment_id}", route_class=Route, tags=["series"])

_DATA: Final = {
    "anyOf": [
        {"$ref": f"#/components/schemas/{name}"}
        for name in ("StatusEvent", "ProgressEvent", "StatisticsEvent", "FindingEvent", "Experiment")
    ]
}
_STREAM: Final[dict[str, Any]] = {
    "description": "The stream. It ends after `end`; when it ends before, connect again with `Last-Event-ID`.",
    # As FastAPI itself declares streams, and as OpenAPI 3.2 does: the schema is of each event.
    "content": {
        "text/event-stream": {
            "itemSchema": {
                "type": "object",
                "properties": {
                    "event": {"enum": list(KINDS)},
                    "id": {"type": "string"},
                    "retry": {"type": "integer", "minimum": 0},
                    "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": _DATA},
                },
            }
        }
    },
}


_KIND: Final = f"({'|'.join(KINDS)})"
_KINDS: Final = f"^{_KIND}( *, *{_KIND})*$"


async def _wish(
    kinds: Annotated[
        str | None,
        Query(
            max_length=100,
            json_schema_extra={"pattern": _KINDS},
            description=f"Which events, separated by commas, of {', '.join(KINDS)}; all by default.",
        ),
    ] = None,
    max_points: Annotated[int, Query(ge=1, le=2000, description="At most so many points a `statistics` event.")] = 100,
) -> Wish:
    if kinds is None:
        return Wish(max_points=max_points)
    given = {name.strip() for name in kinds.split(",")}
    if not given <= set(KINDS):
        raise refused("query", "kinds", "kinds", f"Give some of {', '.join(KINDS)}, separated by commas.")
    return Wish(frozenset(kind for kind in KINDS if kind in given or kind == "end"), max_points)


async def _known(last_event_id: Annotated[str | None, Header(max_length=100)] = None) -> Known:
    return Known.of_id(last_event_id) if last_event_id else Known()


class _EventStream(StreamingResponse):
    """The answer to one watcher, which leaves when the connection does, however that ends.

    Not FastAPI's own response for generators: that one has begun before the experiment is known to be there.
    """

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, watcher: Watcher) -> None:
        # Proxies that gather an answer before they pass it on would hold the events back.
        headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}
        super().__init__(streams.sent(watcher), headers=headers)
        self._streams, self._watcher = streams, watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.leave(self._watcher)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        **documented(HTTPStatus.NOT_FOUND),
        200: _STREAM,
        204: {"description": "The event of this Last-Event-ID was the last one; there is nothing to come"},
    },
)
async def watch_experiment(
    experiment_id: ExperimentId,
    service: ServiceDependency,
    wish: Annotated[Wish, Depends(_wish)],
    known: Annotated[Known, Depends(_known)],
) -> Response:
    """Server-sent events: `status`, `progress`, `statistics` and, at last, each `finding`, and `end`.

    `statistics` says which iterations can be read now (start ≤ t < stop), and brings as much of them as draws a chart,
    in the form of the documents that reading them gives. `finding` brings one of the diagnosis, once the experiment
    has ended: while it trains they come and go, and `…/diagnosis` says what holds at the moment. With `Last-Event-ID`
    the stream goes on after that event.
    """
    record = await read_record(service, experiment_id)
    if known.has_the_end_of(record):
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return _EventStream(service.streams, service.streams.join(record.id, known, wish))
