"""Around every request: its id, the headers of every answer, and the answer to what nobody foresaw."""

import logging
import re
import secrets
import time
from typing import Final
from urllib.parse import quote

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import metrics
from service.problems import internal_error

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
        request_id = _request_id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})["request_id"] = request_id
        began, started = time.perf_counter(), False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(MutableHeaders(scope=message), request_id)
                route = getattr(scope.get("route"), "path", "none")
                metrics.answered(scope["method"], route, message["status"], time.perf_counter() - began)
                _logger.info("%s %s %d %s", scope["method"], quote(scope["path"]), message["status"], request_id)
            await send(message)

        try:
            await self.app(scope, receive, send_named)
        except Exception:
            _logger.exception("request %s failed: %s %s", request_id, scope["method"], quote(scope["path"]))
            if started:
                raise  # half an answer is out, and only a broken connection tells the client so
            await internal_error(Request(scope))(scope, receive, send_named)


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    for name, value in _SECURITY:
        headers.setdefault(name, value)
