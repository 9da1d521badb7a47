"""From Pydantic's places of a fault to JSON pointers (RFC 6901) into what the client sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from gradprobe.resources import FieldError

_MAXIMUM_MESSAGE: Final = 500
_OBJECTS: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})
_CODES: Final[Mapping[str, str]] = {
    "extra_forbidden": "unknown_field",
    "missing": "required",
    **dict.fromkeys(_OBJECTS, "object_type"),
}
_MESSAGES: Final[Mapping[str, str]] = {
    "extra_forbidden": "There is no field of this name; see POST /experiments in /docs for those there are",
    **dict.fromkeys(_OBJECTS, "Input should be an object"),
}


def field_errors(error: RequestValidationError) -> list[FieldError]:
    """The faults of a request, each once, in the order they were found."""
    found: dict[tuple[str, str], FieldError] = {}
    for fault in error.errors():
        kind = fault["type"]
        pointer = _pointer(fault["loc"], error.body, missing=kind == "missing")
        message = _MESSAGES.get(kind, fault["msg"])[:_MAXIMUM_MESSAGE]
        found.setdefault((pointer, message), FieldError(pointer=pointer, message=message, code=_CODES.get(kind, kind)))
    return list(found.values())


def _pointer(location: Sequence[str | int], body: Any, *, missing: bool) -> str:
    source, *parts = location
    if source == "body":
        return _join(_real_parts(parts, body, missing=missing))
    return _join([source, *parts])


def _real_parts(parts: Sequence[str | int], body: Any, *, missing: bool) -> list[str | int]:
    """The parts that are keys of the body: a union's member has its tag in the place, which no client ever sent."""
    real: list[str | int] = []
    for part in parts:
        if _holds(body, part):
            real.append(part)
            body = body[part]
    if missing and parts:
        real.append(parts[-1])
    return real


def _holds(container: Any, part: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container


def _join(parts: Sequence[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
