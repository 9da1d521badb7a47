"""What is wrong with a spec, in words: where in what was given, and what would be right there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

OBJECTS: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})
#: Of what is compared with other names; a longer one is nobody's slip, and takes long to compare.
_LONGEST_NAME: Final = 64


def faults(error: ValidationError, model: type[BaseModel], given: Any) -> list[str]:
    """Each fault as `/pointer: words`, in the order they were found. `model` refused `given`."""
    found: dict[str, None] = {}
    for fault in error.errors():
        found[f"{pointer(real_parts(fault['loc'], given))}: {told(fault, model)}"] = None
    return list(found)


def told(fault: Mapping[str, Any], model: type[BaseModel]) -> str:
    """A fault that `model` found, in words; of an unknown field with what may be meant."""
    return unknown(model, fault["loc"]) if fault["type"] == "extra_forbidden" else words(fault)


def words(fault: Mapping[str, Any]) -> str:
    """What pydantic says of a fault; of a union without naming its machinery."""
    context = fault.get("ctx", {})
    match fault["type"]:
        case kind if kind in OBJECTS:
            return "Input should be an object"
        case "union_tag_invalid" if context:
            return f"Input should be one of {context['expected_tags']}, not '{context['tag']}'"
        case "union_tag_not_found" if context:
            return f"Field required: {context['discriminator']}, which says which it is"
    return str(fault["msg"])


def real_parts(parts: Sequence[str | int], body: Any, *, missing: bool = False) -> list[str | int]:
    """The parts that are keys of the body: a union's member has its tag in the place, which nobody ever gave."""
    real: list[str | int] = []
    for part in parts:
        if _holds(body, part):
            real.append(part)
            body = body[part]
    if missing and parts:
        real.append(parts[-1])
    return real


def pointer(parts: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def unknown(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """That there is no such field, and which is meant: by its name here or anywhere, or else those there are here."""
    name = str(location[-1])
    here = list(_at(model, location[:-1]).model_fields)
    elsewhere = (path for path in _all_paths(model) if path.endswith(f"/{name}"))
    return f"there is no field of this name; {meant(name, here, elsewhere)}"


def meant(name: str, known: Sequence[str], elsewhere: Iterable[str] = ()) -> str:
    """Which of the known names an unknown one may stand for; else one of those elsewhere; else all that are known."""
    near = get_close_matches(name, known, 1) if len(name) <= _LONGEST_NAME else []
    guess = next(iter(near), None) or next(iter(elsewhere), None)
    return f"did you mean {guess}?" if guess else f"there are: {', '.join(known) or 'none'}"


def _at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """The model at a place, whose parts are fields and, behind one that is a union, a member's name."""
    members = [model]
    for part in location:
        if len(members) > 1:
            members = [member for member in members if part in _names(member)] or members
        elif part in members[0].model_fields:
            members = list(_models(members[0].model_fields[str(part)].annotation)) or members
    return members[0]


@cache
def _all_paths(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(_paths(model))


def _paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{above}/{name}"
        for member in _models(field.annotation):
            yield from _paths(member, f"{above}/{name}")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inside in get_args(annotation):
        yield from _models(inside)


def _names(member: type[BaseModel]) -> tuple[Any, ...]:
    """What says which member of a union it is, in whichever field that is."""
    return tuple(name for field in member.model_fields.values() for name in get_args(field.annotation))


def _holds(container: Any, part: str | int) -> bool:
    if isinstance(container, list):
        return isinstance(part, int) and part < len(container)
    return isinstance(container, dict) and part in container
