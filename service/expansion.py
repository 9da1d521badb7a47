"""From a base and axes to the specs of a sweep's members: all of them validated before any is stored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Final

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from gradprobe.parts.faults import told
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store.experiments import Member
from service.bounds import unaffordable

Document = dict[str, Any]
Fault = dict[str, Any]
Path = tuple[str, ...]

_LONGEST_NAME: Final = 200
_MOST_FAULTS: Final = 100
#: One that is told already as what is meant in a spec; within the sweep's body it would be another place's.
_KINDS: Final = {"extra_forbidden": "unknown_field"}


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes by their JSON pointers, each with its values; the product of them is the sweep."""

    values: Mapping[str, Sequence[Any]]

    @property
    def size(self) -> int:
        """How many members they make."""
        return prod(len(values) for values in self.values.values())

    @property
    def paths(self) -> dict[str, Path]:
        """Of each pointer the names that lead to the field (RFC 6901)."""
        return {
            pointer: tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
            for pointer in self.values
        }

    def places(self) -> Iterator[dict[str, int]]:
        """Of each member the position of its value on every axis; the last axis turns fastest."""
        for indexes in product(*(range(len(values)) for values in self.values.values())):
            yield dict(zip(self.values, indexes, strict=True))


@dataclass(frozen=True, slots=True)
class Labels:
    """A sweep's name and tags, which its members take over."""

    name: str | None
    tags: Mapping[str, str]


def expand(base: Spec, axes: Axes, labels: Labels, settings: Settings) -> list[Member]:
    """Every member of a sweep.

    Args:
        base: what all have in common; only what its client gave of it counts, the rest is filled in afterwards.
        axes: what they differ in.
        labels: of the sweep.
        settings: the bounds.

    Raises:
        RequestValidationError: with a pointer to each value of an axis that makes a spec which is refused.
    """
    _require_sensible(axes, settings)
    document = base.model_dump(mode="json", exclude_unset=True)
    document["tags"] = {**document.get("tags", {}), **labels.tags}
    faults: dict[tuple[Any, ...], Fault] = {}
    members = []
    for place in axes.places():
        changed = _changed(document, axes, place)
        if "/name" not in axes.values:
            changed["name"] = _name(labels.name or base.name, axes, place)
        spec, found = _validated(changed, settings)
        for fault in found:
            blamed = _blamed(fault, document, axes, place)
            faults.setdefault((blamed["loc"], blamed["type"]), blamed)
        if spec is not None:
            values = {pointer: axes.values[pointer][index] for pointer, index in place.items()}
            members.append(Member(spec, {"values": values}))
        if len(faults) >= _MOST_FAULTS:
            break
    if faults:
        raise RequestValidationError(list(faults.values()), body={"axes": dict(axes.values)})
    return members


def _require_sensible(axes: Axes, settings: Settings) -> None:
    paths = axes.paths
    faults = [_fault((), "too_many_members", _too_many(axes, settings))] if axes.size > settings.maximum_sweep else []
    for pointer, path in paths.items():
        inside = next((other for other in paths if other != pointer and _begins(path, paths[other])), None)
        if inside is not None:
            faults.append(_fault((pointer,), "overlapping_axes", f"{inside!r} already sets all of this"))
        seen: set[bytes] = set()
        for index, value in enumerate(axes.values[pointer]):
            written = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            if written in seen:
                faults.append(_fault((pointer, index), "duplicate", "This value is on the axis already"))
            seen.add(written)
    if faults:
        raise RequestValidationError(faults, body={"axes": dict(axes.values)})


def _begins(path: Path, other: Path) -> bool:
    return path[: len(other)] == other


def _too_many(axes: Axes, settings: Settings) -> str:
    most = settings.maximum_sweep
    return f"The axes make {axes.size:,} experiments, and this server takes at most {most:,} (GRADPROBE_MAXIMUM_SWEEP)"


def _fault(place: tuple[Any, ...], code: str, message: str) -> Fault:
    return {"loc": ("body", "axes", *place), "type": code, "msg": message}


def _changed(document: Document, axes: Axes, place: Mapping[str, int]) -> Document:
    for pointer, path in axes.paths.items():
        if pointer in place:
            document = _put(document, path, axes.values[pointer][place[pointer]])
    return document


def _put(document: Any, path: Path, value: Any) -> Document:
    """A copy with a value in its place; objects on the way are made, a bare name becomes the object of that name."""
    inner = {"name": document} if isinstance(document, str) else dict(document) if isinstance(document, dict) else {}
    head, *rest = path
    inner[head] = _put(inner.get(head), tuple(rest), value) if rest else value
    return inner


def _validated(document: Document, settings: Settings) -> tuple[Spec | None, list[Fault]]:
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        return None, [
            {"loc": fault["loc"], "type": _KINDS.get(fault["type"], fault["type"]), "msg": told(fault, Spec)}
            for fault in error.errors()
        ]
    return spec, unaffordable(spec, settings)


def _blamed(fault: Fault, document: Document, axes: Axes, place: Mapping[str, int]) -> Fault:
    """The fault at the axis whose value makes it: the one that is of this field, else one that makes it alone."""
    location = tuple(str(part) for part in fault["loc"])
    paths = {pointer: path for pointer, path in axes.paths.items() if len(axes.values[pointer])}
    near = [pointer for pointer, path in paths.items() if _related(path, location)]
    alone = [pointer for pointer in paths if _fails(_changed(document, axes, {pointer: place[pointer]}))]
    pointer = next((one for one in near if one in alone), None) or next(iter(near or alone or list(paths)))
    rest = fault["loc"][len(paths[pointer]) :] if pointer in near else ()
    others = [f"{other} = {_told(axes.values[other][place[other]])}" for other in paths if other != pointer]
    beside = f" (with {', '.join(others)})" if others and pointer not in alone else ""
    return _fault((pointer, place[pointer], *rest), fault["type"], fault["msg"] + beside)


def _related(path: Path, location: Path) -> bool:
    shorter = min(len(path), len(location))
    return shorter > 0 and path[:shorter] == location[:shorter]


def _fails(document: Document) -> bool:
    try:
        Spec.model_validate(document)
    except ValidationError:
        return True
    return False


def _name(name: str | None, axes: Axes, place: Mapping[str, int]) -> str:
    told = [f"{path[-1]} {_told(axes.values[pointer][place[pointer]])}" for pointer, path in axes.paths.items()]
    text = ", ".join(told)
    return "".join(filter(str.isprintable, f"{name}: {text}" if name else text))[:_LONGEST_NAME]


def _told(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        rest = ", ".join(f"{key} {_told(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']} ({rest})" if rest else str(value["name"])
    return orjson.dumps(value).decode()
