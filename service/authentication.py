"""On whose behalf a request is made; decided before any route, body or database row of an experiment is looked at."""

import ipaddress
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gradprobe import access
from gradprobe.access import ANYBODY, Principal
from gradprobe.errors import GradprobeError, InvalidKey, MissingScope, Unauthenticated
from gradprobe.settings import Settings
from gradprobe.store import keys
from service.problems import STATUSES, problem
from service.static import PREFIX, assets

if TYPE_CHECKING:
    from service.dependencies import Service

#: The paths that ask for no key. Everything else does, also what a later release adds without thinking of it.
OPEN: Final = frozenset({"/", "/livez", "/readyz", "/openapi.json", "/docs"})
#: What any such route may answer besides, for OpenAPI.
REFUSALS: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
SCHEME: Final[Mapping[str, Any]] = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "gp_…",
    "description": "A key, made with `gradprobe keys create`. A server that only its own machine can reach needs none.",
}

#: Requests with a body that store nothing, so that a key that may read is enough.
READING_POSTS: Final = frozenset({"/predictions"})

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORWARDED: Final = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
)
_LONGEST_HEADER: Final = 200

_logger = logging.getLogger(__name__)


class Authentication:
    """Puts the `Principal` into `request.state`, or answers 401 or 403 itself.

    Around the application, and no dependency of its routes: so it covers whatever is added to it, mounted parts and
    unknown paths too, and no body is read of somebody who has no key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # there is none, and none must come in past the keys
            return
        if scope["type"] == "http" and not is_open(scope["path"]):
            request = Request(scope)
            try:
                scope.setdefault("state", {})["principal"] = await _principal(request)
            except GradprobeError as error:
                await _refusal(request, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


async def _principal(request: Request) -> Principal:
    service: Service = request.app.state.service
    given = request.headers.getlist("authorization")
    if given:
        principal = await run_in_threadpool(_bearer, service, given)
    elif reason := reason_for_key(request.scope, request.headers, service.settings):
        raise Unauthenticated(reason)
    else:
        principal = ANYBODY
    scope = _scope_of(request)
    if not principal.may(scope):
        raise MissingScope(f"This key does not have the scope {scope!r}; use one that has it.")
    return principal


def _bearer(service: "Service", given: list[str]) -> Principal:
    scheme, _, secret = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or len(secret) > _LONGEST_HEADER:
        raise InvalidKey("Send one key, as `Authorization: Bearer gp_…`.")
    with service.database.read() as connection:
        principal, used = keys.authenticate(connection, secret.strip())
    if used is not None:
        try:
            with service.database.write() as connection:
                keys.note_use(connection, used)
        except GradprobeError as error:
            _logger.warning("the use of %s was not noted: %s", used, error.message)
    return principal


def is_open(path: str) -> bool:
    """Whether a path asks for no key: what says how the server is, and the dashboard's files, which hold no data."""
    return path in OPEN or (path.startswith(PREFIX) and path.removeprefix(PREFIX) in assets())


def reason_for_key(scope: Scope, headers: Headers, settings: Settings) -> str | None:
    """Why this request needs a key, in a sentence; None where it needs none.

    Without a key only this machine itself is answered. Who listens on its loopback interface still hears from a browser
    that shows somebody else's page, and from a proxy that stands in front: neither is let in as if it were the machine.
    """
    if settings.authentication == "required":
        return Unauthenticated().message
    server = scope.get("server")
    if settings.authentication == "auto" and (not server or not is_loopback(server[0])):
        return Unauthenticated().message
    if any(name in headers for name in _FORWARDED):
        return "A proxy stands in front of this server, so it asks for a key: send `Authorization: Bearer gp_…`."
    host = headers.get("host", "")
    if not is_loopback(_without_port(host)):
        return (
            f"Without a key this server answers to this machine's own names only, such as localhost, not to {host!r}."
        )
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", *settings.cors_origins):
        return "Another site's page asks, so this server wants a key: see GRADPROBE_CORS_ORIGINS."
    return None


def is_loopback(host: str) -> bool:
    """Whether an address or name means the machine itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _without_port(host: str) -> str:
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _scope_of(request: Request) -> access.Scope:
    reads = request.method in _READING or (request.method == "POST" and request.url.path in READING_POSTS)
    return access.Scope.READ if reads else access.Scope.WRITE


def _refusal(request: Request, error: GradprobeError) -> Response:
    challenge = 'Bearer realm="gradprobe"'
    if isinstance(error, InvalidKey):
        challenge += ', error="invalid_token"'
    elif isinstance(error, MissingScope):
        challenge += f', error="insufficient_scope", scope="{_scope_of(request)}"'
    status = STATUSES[type(error)]
    headers = {"WWW-Authenticate": challenge} if status in REFUSALS else {}
    return problem(request, status, error.code, error.message, headers=headers)
