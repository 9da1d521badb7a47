"""Every error as RFC 9457 problem details: which status a domain error has, and what its body says."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from gradprobe import errors
from gradprobe.errors import GradprobeError
from gradprobe.resources import FieldError
from service.pointers import field_errors

MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 5
_MAXIMUM_ERRORS: Final = 100
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

_logger = logging.getLogger(__name__)

#: Each domain error's status. One that only a worker raises is a fault of the service where it reaches a client.
STATUSES: Final[Mapping[type[GradprobeError], HTTPStatus]] = {
    GradprobeError: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.InvalidKey: HTTPStatus.UNAUTHORIZED,
    errors.MissingScope: HTTPStatus.FORBIDDEN,
    errors.ExperimentNotFound: HTTPStatus.NOT_FOUND,
    errors.SweepNotFound: HTTPStatus.NOT_FOUND,
    errors.RemediesNotFound: HTTPStatus.NOT_FOUND,
    errors.NotRecorded: HTTPStatus.NOT_FOUND,
    errors.UnknownRemedy: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.NothingToRemedy: HTTPStatus.CONFLICT,
    errors.SweepRunning: HTTPStatus.CONFLICT,
    errors.UnknownLayer: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.UnknownStatistic: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidRange: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidCursor: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidEventId: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.TooManyStreams: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ExportTooLarge: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.ExportUnavailable: HTTPStatus.NOT_IMPLEMENTED,
    errors.NothingToImport: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.IdempotencyKeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.CreatedResourceGone: HTTPStatus.CONFLICT,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.TooManyExperiments: HTTPStatus.TOO_MANY_REQUESTS,
    errors.QueueFull: HTTPStatus.TOO_MANY_REQUESTS,
    errors.ExperimentRunning: HTTPStatus.CONFLICT,
    errors.ExperimentNotEnded: HTTPStatus.CONFLICT,
    errors.ExperimentCancelled: HTTPStatus.CONFLICT,
    errors.LeaseLost: HTTPStatus.CONFLICT,
    errors.DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ObjectStoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ObjectStoreUnusable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.SchemaOutOfDate: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.WorkerStopping: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.TimeLimitExceeded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DatasetUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeviceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.KeyNotFound: HTTPStatus.NOT_FOUND,
    errors.NoKey: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BackupFailed: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.DataDirectoryUnusable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.CorruptBlock: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.UnsupportedModule: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.TelemetryUnavailable: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.NothingMeasured: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.RunNotTrainedHere: HTTPStatus.CONFLICT,
    errors.NotARun: HTTPStatus.CONFLICT,
    errors.RunEnded: HTTPStatus.CONFLICT,
    errors.StepsMissing: HTTPStatus.CONFLICT,
    errors.RunTooLong: HTTPStatus.CONFLICT,
}

#: Which part of the request a domain error is about.
POINTERS: Final[Mapping[type[GradprobeError], str]] = {
    errors.UnknownLayer: "/query/layers",
    errors.UnknownStatistic: "/query/statistics",
    errors.UnknownRemedy: "/remedies",
    errors.InvalidRange: "/query/stop",
    errors.ExportTooLarge: "/query/stop",
    errors.InvalidCursor: "/query/cursor",
    errors.InvalidEventId: "/header/Last-Event-ID",
    errors.IdempotencyKeyReused: "/header/idempotency-key",
}

#: Seconds after which it is worth trying again, where a later try can succeed.
_AGAIN: Final[Mapping[int, int]] = {
    HTTPStatus.SERVICE_UNAVAILABLE: RETRY_SECONDS,
    HTTPStatus.TOO_MANY_REQUESTS: RETRY_SECONDS,
}

_CODES: Final[Mapping[int, str]] = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class RequestRefused(HTTPException):
    """A request that HTTP itself refuses. It is an HTTPException because FastAPI lets only those out of a body."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    faults: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer to a request that failed."""
    body: dict[str, Any] = {
        "type": f"urn:gradprobe:problem:{code.lower().replace('_', '-')}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": quote(request.scope["path"]),
        "code": code,
        "request_id": request.state.request_id,
        "errors": [fault.model_dump() for fault in faults],
    }
    given = dict(headers or {})
    if status in _AGAIN:
        given.setdefault("Retry-After", str(_AGAIN[status]))
    return Response(orjson.dumps(body), status, given, MEDIA_TYPE)


def internal_error(request: Request) -> Response:
    """The answer where the service itself is at fault: nothing of the fault but where to find it."""
    detail = "The service failed; its log has the reason under this request_id."
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", detail)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation can answer besides success, for OpenAPI: these, and what any operation can."""
    always = (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        int(status): {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *always})
    }


def install(app: FastAPI) -> None:
    """Answer every error that FastAPI or a handler raises with problem details."""
    app.exception_handler(GradprobeError)(_domain_error)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)


async def _domain_error(request: Request, error: GradprobeError) -> Response:
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.error("request %s failed", request.state.request_id, exc_info=error)
    pointer = POINTERS.get(type(error))
    faults = [FieldError(pointer=pointer, message=error.message, code=error.code.lower())] if pointer else []
    return problem(request, status, error.code, error.message, faults)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    found = field_errors(error, getattr(request.state, "body_model", None))
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    detail = f"{first.pointer or 'the body'}: {first.message}{more}"
    return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "VALIDATION_FAILED", detail, found[:_MAXIMUM_ERRORS])


async def _http_error(request: Request, error: HTTPException) -> Response:
    code = error.code if isinstance(error, RequestRefused) else _CODES.get(error.status_code, "BAD_REQUEST")
    detail, headers = error.detail, dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
        detail = f"{request.method} is not possible here; allowed: {headers['Allow']}."
    elif code == "NOT_FOUND":
        detail = "There is nothing at this path; /openapi.json describes every path there is."
    return problem(request, error.status_code, code, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """Every method that the path knows; Starlette names only those of the first route that fits."""
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] == Match.FULL for route in routes)
    ]
