"""From Pydantic's places of a fault to JSON pointers (RFC 6901) into what the client sent."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from gradprobe.parts.faults import OBJECTS, pointer, real_parts, unknown, words
from gradprobe.resources import FieldError

_MAXIMUM_MESSAGE: Final = 500
_CODES: Final[Mapping[str, str]] = {
    "extra_forbidden": "unknown_field",
    "missing": "required",
    **dict.fromkeys(OBJECTS, "object_type"),
}
#: Of how many faults it is looked up what was meant; who makes more of them reads no more.
_EXPLAINED: Final = 100


def field_errors(error: RequestValidationError, model: type[BaseModel] | None = None) -> list[FieldError]:
    """The faults of a request, each once, in the order they were found. `model`: what its body should have been."""
    found: dict[tuple[str, str], FieldError] = {}
    for fault in error.errors():
        kind = fault["type"]
        place = _pointer(fault["loc"], error.body, missing=kind == "missing")
        message = _message(fault, model if len(found) < _EXPLAINED else None)[:_MAXIMUM_MESSAGE]
        found.setdefault((place, message), FieldError(pointer=place, message=message, code=_CODES.get(kind, kind)))
    return list(found.values())


def _message(fault: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    if fault["type"] != "extra_forbidden":
        return words(fault)
    said = unknown(model, fault["loc"][1:]) if model else "there is no field of this name"
    return said[0].upper() + said[1:]


def _pointer(location: Sequence[str | int], body: Any, *, missing: bool) -> str:
    source, *parts = location
    if source == "body":
        return pointer(real_parts(parts, body, missing=missing))
    return pointer([source, *parts])
