"""What is read of one experiment: 304 before anything is read, and what has ended is rendered once."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response

from gradprobe.store import experiments
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from service.dependencies import Service
from service.encoding import encode
from service.rendering import cache_headers, json_bytes, not_modified

Body = tuple[bytes, dict[str, str]]
Read = Callable[[Reader], dict[str, Any]]


def answer(request: Request, service: Service, experiment_id: str, prepare: Callable[[Record], Read]) -> Response:
    """The document that `prepare` reads once it has refused what is not there; 304 before any block is read."""
    # One transaction, so that the status and the series it is told with are of the same moment.
    with service.database.read() as connection:
        record = experiments.get(connection, experiment_id)
        read = prepare(record)
        headers = cache_headers(request, record)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        key = headers["ETag"], request.url.path, request.url.query
        body: Body | None = service.cache.get(key) if record.status.ended else None
        if body is None:
            cache = service.cache if record.status.ended else None
            document = read(Reader(connection, record.id, cache, record.row_version, service.objects))
    if body is None:
        body = encode(json_bytes(document), request.state.coding)
        if record.status.ended:
            service.cache.put(key, body, len(body[0]))
    return Response(body[0], HTTPStatus.OK, headers | body[1], "application/json")
