"""Around every request: its id, the headers of every answer, and the answer to what nobody foresaw."""

import logging
import re
import secrets
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Final
from urllib.parse import quote

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gradprobe import telemetry
from gradprobe.logs import bound
from gradprobe.telemetry import Span
from service import metrics
from service.problems import internal_error

_LONGEST_PATH: Final = 300  # characters of it in the log
_PROBES: Final = frozenset({"/livez", "/readyz", "/metrics"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")

#: Of every answer that does not bring its own: nothing in it is to be run, framed, sniffed or told to other sites.
_SECURITY: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)

_logger = logging.getLogger(__name__)


class RequestContext:
    """Plain ASGI, because Starlette's BaseHTTPMiddleware runs the application in another task."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers.get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id
        with _span(scope, headers) as span, bound(request_id=request_id, **telemetry.log_fields()):
            # Every line of this request names it, those of the threads that answer it too.
            await self._serve(scope, receive, send, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: Span) -> None:
        request_id = scope["state"]["request_id"]
        began, started = time.perf_counter(), False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(MutableHeaders(scope=message), request_id)
                _note(scope, message["status"], time.perf_counter() - began)
                _tell(span, scope, message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        except Exception:
            fields = {"method": scope["method"], "route": _route(scope)}
            _logger.exception("request %s failed", request_id, extra=fields)
            if started:
                raise  # half an answer is out, and only a broken connection tells the client so
            await internal_error(Request(scope))(scope, receive, send_named)


def _span(scope: Scope, headers: Headers) -> AbstractContextManager[Span]:
    """The request as a span of the trace that its `traceparent` names; without the probes that come every second."""
    if scope["path"] in _PROBES:
        return nullcontext(telemetry.NOTHING)
    attributes = {"http.request.method": scope["method"], "gradprobe.request_id": scope["state"]["request_id"]}
    return telemetry.span(scope["method"], headers.get("traceparent"), "SERVER", attributes)


def _tell(span: Span, scope: Scope, status: int) -> None:
    route = _route(scope)
    span.update_name(f"{scope['method']} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": status})


def _note(scope: Scope, status: int, seconds: float) -> None:
    """Count the request, and write its one line, when its answer begins: a stream's end may be far."""
    method, route = scope["method"], _route(scope)
    metrics.answered(method, route, status, seconds)
    principal = scope["state"].get("principal")
    fields = {
        "method": method,
        "route": route,
        "status": status,
        "milliseconds": round(seconds * 1000, 2),
    }
    if principal is not None and principal.owner is not None:
        fields["owner"] = principal.owner
    _logger.info("%s %s %d", method, quote(scope["path"])[:_LONGEST_PATH], status, extra=fields)


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "none"))


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    for name, value in _SECURITY:
        headers.setdefault(name, value)
