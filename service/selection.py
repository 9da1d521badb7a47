"""What a client selects by query parameters: which experiments, which part of what was measured."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError

from gradprobe.errors import InvalidRange, NotRecorded, UnknownLayer, UnknownStatistic
from gradprobe.state import Status
from gradprobe.statistics import Tensor, names
from gradprobe.store.experiments import Record
from gradprobe.store.listing import Filters
from service.dependencies import PrincipalDependency
from service.reduction import Range

_TAG: Final = r"^[A-Za-z0-9_.\-/]{1,64}:[^\x00-\x1f\x7f]{0,200}$"
_TEXT: Final = r"^[^\x00-\x1f\x7f]{1,200}$"
_SWEEP: Final = r"^(swp|rem)_[0-9a-z]{26}$"
_LARGEST_STEP: Final = 2**31 - 1
_NAMES: Final = r"^[A-Za-z0-9_]+( *, *[A-Za-z0-9_]+)*$"
# Of a thousand layers. Percent-encoded, and with all else that a request line may have, it stays within the 64 KiB that
# the server reads of a request's head.
_LONGEST_LIST: Final = 12_000
_LONGEST_STATISTICS: Final = 500
_TOLD_IN_FULL: Final = 12
_OF_CLIPPED: Final = "weight_gradients"
_MOST_POINTS: Final = 100_000
_MOST_QUANTILES: Final = 32
_SHARE: Final = r"(-?0(\.0{0,20})?|0(\.[0-9]{0,20})?|1(\.0{0,20})?|\.[0-9]{1,20}|[1-9](\.[0-9]{1,20})?e-[0-9]{1,2})"
_SHARES: Final = rf"^{_SHARE}( *, *{_SHARE}){{0,{_MOST_QUANTILES - 1}}}$"


async def _filters(
    principal: PrincipalDependency,
    status: Annotated[Status | None, Query()] = None,
    tag: Annotated[
        list[Annotated[str, Query(pattern=_TAG)]] | None,
        Query(max_length=16, description="`key:value`; given several times, all must hold."),
    ] = None,
    verdict: Annotated[str | None, Query(pattern=r"^[a-z_]{1,32}$")] = None,
    name: Annotated[str | None, Query(pattern=_TEXT, description="A part of the name, in any case.")] = None,
    sweep: Annotated[
        str | None, Query(pattern=_SWEEP, description="The members of this sweep, or of these remedies.")
    ] = None,
) -> Filters:
    pairs = {(key, value) for key, _, value in (given.partition(":") for given in tag or ())}
    tags = dict(sorted(pairs))
    if len(tags) < len(pairs):
        raise refused("query", "tag", "repeated", "An experiment has one value for a tag; ask for one.")
    # With the owner in it, a cursor is of no use to anybody else.
    return Filters(status, name, verdict, tags, None if principal.sees_all else principal.owner, sweep)


async def _range(
    start: Annotated[int, Query(ge=0, le=_LARGEST_STEP, description="First iteration.")] = 0,
    stop: Annotated[int | None, Query(ge=0, le=_LARGEST_STEP, description="Iteration to stop before.")] = None,
    max_points: Annotated[
        int | None, Query(ge=1, le=_MOST_POINTS, description="At most so many points; `reduction` tells how.")
    ] = None,
) -> Range:
    if stop is not None and stop <= start:
        raise InvalidRange(f"stop is {stop}, which is not greater than start, {start}.")
    return Range(start, stop, max_points)


FiltersDependency = Annotated[Filters, Depends(_filters)]
RangeDependency = Annotated[Range, Depends(_range)]
LayersParameter = Annotated[
    str | None,
    Query(
        max_length=_LONGEST_LIST,
        json_schema_extra={"pattern": _NAMES},
        description="Names, separated by commas; all by default.",
    ),
]

Gradient = Literal["weights", "outputs"]
GradientParameter = Annotated[
    Gradient, Query(description="∂L/∂W, or the gradient at each layer's pre-activation output, per sample.")
]
AnyGradientParameter = Annotated[
    Literal["weights", "outputs", "clipped_weights"],
    Query(
        description="∂L/∂W before clipping; the gradient at each layer's pre-activation output, per sample; or, where "
        "the experiment clips, ∂L/∂W after clipping, of which there are no histograms and so no quantiles."
    ),
]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which layers, statistics and iterations; None stands for all."""

    layers: str | None
    statistics: str | None
    range: Range


async def _selection(
    range_: RangeDependency,
    layers: LayersParameter = None,
    statistics: Annotated[
        str | None,
        Query(
            max_length=_LONGEST_STATISTICS,
            json_schema_extra={"pattern": _NAMES},
            description="Names, separated by commas; all by default.",
        ),
    ] = None,
) -> Selection:
    return Selection(layers, statistics, range_)


SelectionDependency = Annotated[Selection, Depends(_selection)]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Which gradient's histograms, of which layers, on which bins; None stands for all, and for the fixed grid."""

    of: Gradient
    layers: str | None
    bins: int | None


async def _distribution(
    of: GradientParameter = "weights",
    layers: LayersParameter = None,
    bins: Annotated[
        int | None,
        Query(
            ge=1,
            le=512,
            description="So many equal bins over each layer's own range, in place of the fixed logarithmic grid.",
        ),
    ] = None,
) -> Distribution:
    return Distribution(of, layers, bins)


DistributionDependency = Annotated[Distribution, Depends(_distribution)]


async def _quantiles(
    quantiles: Annotated[
        str | None,
        Query(
            max_length=1000,
            json_schema_extra={"pattern": _SHARES},
            description="Shares from 0 to 1, separated by commas, such as `0.01,0.5,0.99`; read from the histograms, "
            "so at the iterations that have one, and within 6 % of the true value.",
        ),
    ] = None,
) -> list[float]:
    if quantiles is None:
        return []
    if re.fullmatch(_SHARES, quantiles) is None:
        message = f"Give 1 to {_MOST_QUANTILES} numbers from 0 to 1, separated by commas."
        raise refused("query", "quantiles", "quantiles", message)
    return list(dict.fromkeys(abs(float(share)) for share in quantiles.split(",")))


QuantilesDependency = Annotated[list[float], Depends(_quantiles)]


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
    clipped = tensor == "clipped_weight_gradients"
    if (_OF_CLIPPED if clipped else tensor) not in recorded:
        raise NotRecorded(
            f"{tensor} is not recorded in this experiment; its recording.tensors has {', '.join(recorded)}."
        )
    if clipped and record.spec["gradient_clipping"] is None:
        raise NotRecorded("This experiment does not clip gradients (gradient_clipping is null); read of=weights.")


def _choose(known: Sequence[str], wanted: str | None) -> tuple[str | None, list[int]]:
    """The first name that is not known, if any, and the positions of those that are asked for."""
    if wanted is None:
        return None, list(range(len(known)))
    given = [name.strip() for name in wanted.split(",")]
    unknown = next((name for name in given if name not in known), None)
    return unknown, [position for position, name in enumerate(known) if name in given]


def _told(known: Sequence[str]) -> str:
    return ", ".join(known) if len(known) <= _TOLD_IN_FULL else f"{known[0]} … {known[-1]}"
