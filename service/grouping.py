"""From groups of experiments to JSON: sweeps, their tables, and remedies that are tried."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Response
from sqlalchemy import Connection

from gradprobe.diagnosis.summary import delta_ratios
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import experiments, measurements
from gradprobe.store.reader import Reader
from gradprobe.store.sweeps import COMPLETE, Group, Place, Standing
from gradprobe.trial.ranking import Ranking
from service.rendering import RETRY_SECONDS, experiment_path, json_response, time_text
from service.selection import refused

Document = dict[str, Any]

_OF_RESULT: Final = ("final_loss", "train_accuracy", "test_accuracy", "test_loss", "seconds")
_OF_SUMMARY: Final = ("cause", "delta_ratio_initial", "delta_ratio_mean")
COLUMNS: Final = ("status", "verdict", *_OF_SUMMARY, *_OF_RESULT, "error")


def status_of(group: Group, standing: Standing) -> str:
    """`queued`, `running` or `ended`, of a group as a whole."""
    if standing.counts[Status.QUEUED] and standing.counts[Status.QUEUED] == sum(standing.counts.values()):
        return "queued"
    return "running" if standing.active or group.stage != COMPLETE else "ended"


def again(group: Group, standing: Standing) -> dict[str, str]:
    """`Retry-After`, where it is worth looking again."""
    return {} if status_of(group, standing) == "ended" else {"Retry-After": str(RETRY_SECONDS)}


def accepted_group(document: Document, path: str, is_new: bool = True, status: int = HTTPStatus.ACCEPTED) -> Response:
    """The answer to what asked for a group: where to look, and when."""
    headers = {"Location": path} | ({} if is_new else {"Idempotency-Replayed": "true"})
    if document["status"] != "ended":
        headers["Retry-After"] = str(RETRY_SECONDS)
    return json_response(document, status, headers)


def sweep_path(identifier: str) -> str:
    """Where a sweep is."""
    return f"/sweeps/{identifier}"


def remedies_path(identifier: str) -> str:
    """Where remedies that are tried are."""
    return f"/remedies/{identifier}"


def sweep_summary(group: Group, standing: Standing) -> Document:
    """A `SweepSummary`."""
    path = sweep_path(group.id)
    links = {"self": path, "comparison": f"{path}/comparison", "experiments": f"/experiments?sweep={group.id}"}
    own = {
        "name": group.name,
        "tags": group.tags,
        "base": group.base,
        "axes": group.definition["axes"],
        "size": sum(standing.counts.values()),
    }
    return _head(group, standing) | own | {"links": links}


def sweep_document(group: Group, standing: Standing, members: Iterable[Place]) -> Document:
    """A `Sweep`."""
    told = [_member(place) | {"name": place.name, "values": place.member["values"]} for place in members]
    return sweep_summary(group, standing) | {"members": told}


def remedies_summary(group: Group, standing: Standing, ranking: Ranking) -> Document:
    """A `RemediesSummary`."""
    links = {
        "self": remedies_path(group.id),
        "experiment": experiment_path(str(group.experiment_id)),
        "experiments": f"/experiments?sweep={group.id}",
    }
    own = {
        "experiment_id": group.experiment_id,
        "rule": group.definition["rule"],
        "seeds": group.definition["seeds"],
        "enough": ranking.enough,
    }
    return _head(group, standing) | own | {"links": links}


def remedies_document(group: Group, standing: Standing, members: Iterable[Place], ranking: Ranking) -> Document:
    """A `Remedies`."""
    told = [_member(place) | place.member for place in members]
    return remedies_summary(group, standing, ranking) | {"members": told, "ranking": ranking.document()}


def _head(group: Group, standing: Standing) -> Document:
    return {
        "id": group.id,
        "status": status_of(group, standing),
        "counts": {status.value: number for status, number in standing.counts.items()},
        "progress": {"iteration": standing.iteration, "iterations": standing.iterations},
        "created_at": time_text(group.created_at),
        "owner": group.owner,
    }


def _member(place: Place) -> Document:
    return {
        "experiment_id": place.id,
        "status": place.status,
        "progress": {"iteration": place.iteration, "iterations": place.iterations},
        "verdict": place.verdict,
        "error": place.error,
    }


def comparison_document(
    group: Group, standing: Standing, members: Sequence[Place], live: Mapping[str, Document], sort: str | None
) -> Document:
    """A `SweepComparison`; `live` has the ratios of those that run. Raises RequestValidationError for `sort`."""
    axes = {pointer: [place.member["values"][pointer] for place in members] for pointer in group.definition["axes"]}
    rows = [_row(place, live.get(place.id, {})) for place in members]
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    order = _order(sort, axes | columns, len(members))
    return {
        "sweep_id": group.id,
        "status": status_of(group, standing),
        "counts": {status.value: number for status, number in standing.counts.items()},
        "sort": sort,
        "experiments": [members[place].id for place in order],
        "axes": {name: [values[place] for place in order] for name, values in axes.items()},
        "columns": {name: [values[place] for place in order] for name, values in columns.items()},
    }


def live_ratios(connection: Connection, members: Iterable[Place]) -> dict[str, Document]:
    """Of the members that run what their summaries will tell in the end: as many as there are workers."""
    found = {}
    for place in members:
        if place.status is Status.RUNNING:
            record = experiments.get(connection, place.id)
            measured = measurements.read(Reader(connection, place.id), Spec.model_validate(record.spec))
            found[place.id] = dict(delta_ratios(measured))
    return found


def _row(place: Place, live: Mapping[str, Any]) -> Document:
    summary: Mapping[str, Any] = place.summary or live
    result: Mapping[str, Any] = place.result or {}
    return {
        "status": place.status,
        "verdict": place.verdict,
        **{name: summary.get(name) for name in _OF_SUMMARY},
        **{name: result.get(name) for name in _OF_RESULT},
        "error": place.error["code"] if place.error else None,
    }


def _order(sort: str | None, columns: Mapping[str, Sequence[Any]], number: int) -> list[int]:
    if sort is None:
        return list(range(number))
    name = sort.removeprefix("-")
    if name not in columns:
        told = ", ".join(columns)
        raise refused("query", "sort", "unknown_column", f"There is no such column; there are {told}; - turns it round")
    values = columns[name]
    known = [place for place in range(number) if values[place] is not None]
    known.sort(key=lambda place: _comparable(values[place]), reverse=sort.startswith("-"))
    # What is not known is last either way.
    return known + [place for place in range(number) if values[place] is None]


def _comparable(value: Any) -> tuple[int, float, str]:
    """Numbers, then texts, then whatever else an axis may hold."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    if isinstance(value, str):
        return 1, 0.0, value
    return 2, 0.0, orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
