"""What a client selects by query parameters: which experiments, which part of what was measured."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError

from gradprobe.errors import InvalidRange, NotRecorded, UnknownLayer, UnknownStatistic
from gradprobe.state import Status
from gradprobe.statistics import Tensor, names
from gradprobe.store.experiments import Filters, Record

_TAG: Final = r"^[A-Za-z0-9_.\-/]{1,64}:[^\x00-\x1f\x7f]{0,200}$"
_TEXT: Final = r"^[^\x00-\x1f\x7f]{1,200}$"
_LARGEST_STEP: Final = 2**31 - 1
_LONGEST_LIST: Final = 20_000
_TOLD_IN_FULL: Final = 12


async def _filters(
    status: Annotated[Status | None, Query()] = None,
    tag: Annotated[
        list[Annotated[str, Query(pattern=_TAG)]] | None,
        Query(max_length=32, description="`key:value`; given several times, all must hold."),
    ] = None,
    verdict: Annotated[str | None, Query(pattern=r"^[a-z_]{1,32}$")] = None,
    name: Annotated[str | None, Query(pattern=_TEXT, description="A part of the name, in any case.")] = None,
) -> Filters:
    pairs = {(key, value) for key, _, value in (given.partition(":") for given in tag or ())}
    tags = dict(sorted(pairs))
    if len(tags) < len(pairs):
        raise refused("query", "tag", "repeated", "An experiment has one value for a tag; ask for one.")
    return Filters(status, name, verdict, tags)


@dataclass(frozen=True, slots=True)
class Steps:
    """The iterations start ≤ t < stop; without a stop, all from `start` on."""

    start: int
    stop: int | None


async def _steps(
    start: Annotated[int, Query(ge=0, le=_LARGEST_STEP, description="First iteration.")] = 0,
    stop: Annotated[int | None, Query(ge=0, le=_LARGEST_STEP, description="Iteration to stop before.")] = None,
) -> Steps:
    if stop is not None and stop <= start:
        raise InvalidRange(f"stop is {stop}, which is not greater than start, {start}.")
    return Steps(start, stop)


FiltersDependency = Annotated[Filters, Depends(_filters)]
StepsDependency = Annotated[Steps, Depends(_steps)]
LayersParameter = Annotated[
    str | None, Query(max_length=_LONGEST_LIST, description="Names, separated by commas; all by default.")
]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which layers, statistics and iterations; None stands for all."""

    layers: str | None
    statistics: str | None
    steps: Steps


async def _selection(
    steps: StepsDependency,
    layers: LayersParameter = None,
    statistics: Annotated[
        str | None, Query(max_length=_LONGEST_LIST, description="Names, separated by commas; all by default.")
    ] = None,
) -> Selection:
    return Selection(layers, statistics, steps)


SelectionDependency = Annotated[Selection, Depends(_selection)]


def refused(place: str, name: str, code: str, message: str) -> RequestValidationError:
    """A fault in a query parameter or a header, as FastAPI itself reports one."""
    return RequestValidationError([{"loc": (place, name), "type": code, "msg": message}])


def chosen_layers(record: Record, wanted: str | None) -> list[int]:
    """The positions of the layers asked for, input side first; raises UnknownLayer."""
    known = [layer.name for layer in record.layers]
    unknown, positions = _choose(known, wanted)
    if unknown is not None:
        raise UnknownLayer(f"This network has no layer {unknown[:100]!r}; it has {_told(known)}.")
    return positions


def chosen_statistics(tensor: Tensor, wanted: str | None) -> list[int]:
    """The positions of the statistics asked for, in the order of their definition; raises UnknownStatistic."""
    known = names(tensor)
    unknown, positions = _choose(known, wanted)
    if unknown is not None:
        raise UnknownStatistic(f"{unknown[:100]!r} is not recorded of {tensor}; these are: {_told(known)}.")
    return positions


def require_recorded(record: Record, tensor: Tensor) -> None:
    """Raises NotRecorded for a tensor that the experiment's spec leaves out."""
    recorded: Iterable[Any] = record.spec["recording"]["tensors"]
    if tensor not in recorded:
        raise NotRecorded(
            f"{tensor} is not recorded in this experiment; its recording.tensors has {', '.join(recorded)}."
        )


def _choose(known: Sequence[str], wanted: str | None) -> tuple[str | None, list[int]]:
    """The first name that is not known, if any, and the positions of those that are asked for."""
    if wanted is None:
        return None, list(range(len(known)))
    given = [name.strip() for name in wanted.split(",")]
    unknown = next((name for name in given if name not in known), None)
    return unknown, [position for position, name in enumerate(known) if name in given]


def _told(known: Sequence[str]) -> str:
    return ", ".join(known) if len(known) <= _TOLD_IN_FULL else f"{known[0]} … {known[-1]}"
