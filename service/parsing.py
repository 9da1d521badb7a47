"""How requests are read: strict JSON, bounded bodies, and no query parameter that nobody knows."""

from collections.abc import Callable, Coroutine
from email.message import Message
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from gradprobe.parts.faults import meant
from service.problems import RequestRefused

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

#: Query parameters that may be given more than once.
_REPEATABLE: Final = frozenset({"tag"})


class StrictRequest(Request):
    """A request whose body is JSON as RFC 8259 has it: no NaN, no infinity, no lone surrogates, valid UTF-8."""

    async def body(self) -> bytes:
        """The body, read once.

        Starlette's own limit answers in plain text from outside of all handlers, so the bytes are counted here.
        """
        if not hasattr(self, "_body"):
            maximum = self.app.state.service.settings.maximum_body_bytes
            if int(self.headers.get("content-length", "0")) > maximum:
                raise _too_large(maximum)
            received = bytearray()
            async for chunk in self.stream():
                received += chunk
                if len(received) > maximum:
                    raise _too_large(maximum)
            self._body = bytes(received)
            self._check_content()
        return self._body

    async def json(self) -> Any:
        """The document in the body."""
        try:
            return orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            detail = f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "MALFORMED_JSON", detail) from error

    def _check_content(self) -> None:
        if not self._body:
            detail = "The body is empty; send a JSON object, {} for one with nothing but defaults."
            raise RequestRefused(HTTPStatus.BAD_REQUEST, "MALFORMED_JSON", detail)
        content = Message()
        content["content-type"] = self.headers.get("content-type", "application/octet-stream")
        charset = content.get_content_charset() or "utf-8"
        if content.get_content_type() != "application/json" or charset != "utf-8":
            detail = "Send the body as JSON in UTF-8, with the header Content-Type: application/json."
            raise RequestRefused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", detail, {"Accept": "application/json"}
            )


class Route(APIRoute):
    """A route that refuses query parameters it does not know, rather than ignore them."""

    def get_route_handler(self) -> Handler:
        """FastAPI's handler behind the checks."""
        handler = super().get_route_handler()
        known = _query_parameters(self.dependant)
        body = self.body_field.field_info.annotation if self.body_field else None

        async def checked(request: Request) -> Response:
            request.state.body_model = body  # for whoever says what is wrong with one
            faults = self._faults(request, known)
            if faults:
                raise RequestValidationError(faults)
            return await handler(StrictRequest(request.scope, request.receive))

        return checked

    def _faults(self, request: Request, known: frozenset[str]) -> list[dict[str, Any]]:
        faults = []
        for name in dict.fromkeys(request.query_params):
            if name not in known:
                said = f"There is no such parameter here; {meant(name, sorted(known))}"
                faults.append(_fault(name, "unknown_parameter", said))
            elif name not in _REPEATABLE and len(request.query_params.getlist(name)) > 1:
                faults.append(_fault(name, "repeated", "This parameter may be given once"))
        return faults


def _query_parameters(dependant: Dependant) -> frozenset[str]:
    own = frozenset(parameter.alias for parameter in dependant.query_params)
    return own.union(*(_query_parameters(child) for child in dependant.dependencies))


def _fault(name: str, kind: str, message: str) -> dict[str, Any]:
    return {"loc": ("query", name), "type": kind, "msg": message}


def _too_large(maximum: int) -> RequestRefused:
    # No `Connection: close`: it can reset the connection before the client has read why it was refused.
    return RequestRefused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "BODY_TOO_LARGE",
        f"The body is larger than {maximum} bytes, the most this server takes (GRADPROBE_MAXIMUM_BODY_BYTES).",
    )
