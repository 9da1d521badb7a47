"""From Pydantic's places of a fault to JSON pointers (RFC 6901) into what the client sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError

from gradprobe.parts.faults import OBJECTS, pointer, real_parts, words
from gradprobe.resources import FieldError

_MAXIMUM_MESSAGE: Final = 500
_CODES: Final[Mapping[str, str]] = {
    "extra_forbidden": "unknown_field",
    "missing": "required",
    **dict.fromkeys(OBJECTS, "object_type"),
}
_UNKNOWN: Final = "There is no field of this name; see POST /experiments in /docs for those there are"


def field_errors(error: RequestValidationError) -> list[FieldError]:
    """The faults of a request, each once, in the order they were found."""
    found: dict[tuple[str, str], FieldError] = {}
    for fault in error.errors():
        kind = fault["type"]
        place = _pointer(fault["loc"], error.body, missing=kind == "missing")
        message = (_UNKNOWN if kind == "extra_forbidden" else words(fault))[:_MAXIMUM_MESSAGE]
        found.setdefault((place, message), FieldError(pointer=place, message=message, code=_CODES.get(kind, kind)))
    return list(found.values())


def _pointer(location: Sequence[str | int], body: Any, *, missing: bool) -> str:
    source, *parts = location
    if source == "body":
        return pointer(real_parts(parts, body, missing=missing))
    return pointer([source, *parts])
