"""Several experiments side by side: their series, metrics and distributions in the same buckets of iterations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Connection

from gradprobe.group_resources import ComparisonDocument
from gradprobe.statistics import HISTOGRAM_TENSORS, Tensor, names
from gradprobe.store import experiments
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from service import distributions
from service.columns import Columns, metrics_document, series_document
from service.dependencies import PrincipalDependency, ServiceDependency
from service.parsing import Route
from service.problems import documented
from service.reduction import Range, read_points
from service.rendering import LIVE, UNCHANGED, hashed_response
from service.routes.series import GRADIENTS
from service.selection import (
    AnyGradientParameter,
    Selection,
    SelectionDependency,
    chosen_layers,
    chosen_statistics,
    refused,
    require_recorded,
)

router = APIRouter(prefix="/comparisons", route_class=Route, tags=["comparisons"])

MOST: Final = 20
_PARTS: Final = ("series", "metrics", "histograms")
_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """Which experiments, and which parts of each."""

    identifiers: list[str]
    parts: frozenset[str]


async def _asked(
    experiments: Annotated[
        str, Query(max_length=_LONGEST, description=f"The ids of 1 to {MOST} experiments, separated by commas.")
    ],
    include: Annotated[
        str, Query(max_length=100, description="Any of `series`, `metrics` and `histograms`, separated by commas.")
    ] = "series,metrics",
) -> Asked:
    found = list(dict.fromkeys(identifier.strip() for identifier in experiments.split(",")))
    if len(found) > MOST or not all(found):
        raise refused("query", "experiments", "experiments", f"Give 1 to {MOST} ids, separated by commas.")
    parts = frozenset(part.strip() for part in include.split(","))
    if not parts <= set(_PARTS):
        raise refused("query", "include", "include", f"Give any of {', '.join(_PARTS)}, separated by commas.")
    return Asked(found, parts)


@router.get(
    "",
    response_model=ComparisonDocument,
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": {"ETag": LIVE["ETag"]}}, 304: UNCHANGED},
)
def read_comparison(
    request: Request,
    asked: Annotated[Asked, Depends(_asked)],
    service: ServiceDependency,
    principal: PrincipalDependency,
    selection: SelectionDependency,
    of: AnyGradientParameter = "weights",
) -> Response:
    """Several experiments' statistics side by side, those of one gradient, with the runs' own series.

    With `max_points` all are cut into the same buckets, whatever each one's length and schedule.
    """
    tensor = GRADIENTS[of]
    if "histograms" in asked.parts and tensor not in HISTOGRAM_TENSORS:
        raise refused("query", "include", "no_histogram", f"There are no histograms of {of}; leave them out.")
    with service.database.read() as connection:
        records = [_visible(connection, identifier, principal) for identifier in asked.identifiers]
        for record in records:
            require_recorded(record, tensor)
        common = _common(records, selection)
        items = [
            _item(
                record,
                Reader(connection, record.id, store=service.objects),
                _Compared(tensor, of, common, records),
                asked.parts,
            )
            for record in records
        ]
    return hashed_response(request, {"of": of, "items": items}, {})


class _Compared:
    """What is told of each experiment, and the schedule by which all are cut."""

    def __init__(self, tensor: Tensor, of: str, selection: Selection, records: Sequence[Record]) -> None:
        self.tensor, self.of, self.selection = tensor, of, selection
        self.iterations = max(record.iterations for record in records)
        self._recordings = [record.spec["recording"] for record in records]

    def schedule(self, interval: str) -> tuple[int, int]:
        """Of the one that records most often, over the longest run: what fits that fits every other."""
        return min(int(recording[interval]) for recording in self._recordings), self.iterations


def _visible(connection: Connection, identifier: str, principal: Any) -> Record:
    experiments.require_visible(connection, identifier, principal)
    return experiments.get(connection, identifier)


def _common(records: Sequence[Record], selection: Selection) -> Selection:
    """The range with an end, where it is to be cut: without one each run would be cut by its own length."""
    range_ = selection.range
    if range_.stop is not None or range_.max_points is None:
        return selection
    end = max(record.iterations for record in records) + 1
    return replace(selection, range=Range(range_.start, max(end, range_.start + 1), range_.max_points))


def _item(record: Record, reader: Reader, compared: _Compared, parts: frozenset[str]) -> dict[str, Any]:
    selection, range_ = compared.selection, compared.selection.range
    layers = chosen_layers(record, selection.layers)
    chosen = chosen_statistics(compared.tensor, selection.statistics)
    columns = Columns(compared.tensor, compared.of, layers, chosen)
    told: dict[str, Any] = {
        "experiment_id": record.id,
        "name": record.name,
        "status": record.status,
        "verdict": record.verdict,
        **dict.fromkeys(_PARTS),
    }
    if "series" in parts:
        points = read_points(reader, compared.tensor, range_, chosen, compared.schedule("every"))
        told["series"] = series_document(record, columns, points) | {"quantiles": None}
    if "metrics" in parts:
        told["metrics"] = _metrics(record, reader, compared)
    if "histograms" in parts:
        counts = reader.counts(compared.tensor, range_.start, range_.stop)
        schedule = compared.schedule("histograms_every")
        told["histograms"] = distributions.histogram_document(record, columns, counts, range_, None, schedule)
    return told


def _metrics(record: Record, reader: Reader, compared: _Compared) -> dict[str, Any]:
    intervals: dict[Tensor, str] = {"metrics": "every", "evaluation": "evaluate_every"}
    found = {
        tensor: read_points(
            reader, tensor, compared.selection.range, range(len(names(tensor))), compared.schedule(interval)
        )
        for tensor, interval in intervals.items()
    }
    return metrics_document(record, found["metrics"], found["evaluation"])
