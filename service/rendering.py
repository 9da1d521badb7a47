"""From records to JSON. What it writes is declared in `gradprobe.resources`, and tests hold the two together."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response

from gradprobe import __version__
from gradprobe.store.experiments import Record

#: Seconds after which it is worth looking again at an experiment that has not ended.
RETRY_SECONDS: Final = 1


def json_response(document: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """JSON straight from NumPy arrays; NaN and infinities become null, so name them elsewhere."""
    content = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, status, headers, "application/json")


def experiment_path(experiment_id: str) -> str:
    """Where an experiment is."""
    return f"/experiments/{experiment_id}"


def experiment_document(record: Record) -> dict[str, Any]:
    """An `Experiment`."""
    path = experiment_path(record.id)
    parts = {"gradients": "gradients", "histograms": "gradients/histograms"}
    parts |= {name: name for name in ("weights", "activations", "metrics")}
    return {
        "id": record.id,
        "name": record.name,
        "tags": record.tags,
        "notes": record.notes,
        "spec": record.spec,
        "status": record.status,
        "progress": {"iteration": record.iteration, "iterations": record.iterations},
        "attempt": record.attempt,
        "created_at": _time(record.created_at),
        "started_at": _time(record.started_at),
        "finished_at": _time(record.finished_at),
        "verdict": record.verdict,
        "result": record.result,
        "error": record.error,
        "provenance": record.provenance,
        "links": {"self": path} | {name: f"{path}/{part}" for name, part in parts.items()},
    }


def accepted(record: Record, status: int = HTTPStatus.ACCEPTED) -> Response:
    """The answer to what asked for work: where to look, and when."""
    return json_response(experiment_document(record), status, {"Location": experiment_path(record.id)} | _again(record))


def experiment_response(request: Request, record: Record) -> Response:
    """One experiment, or 304 where the client has this state of it."""
    headers = _validator(record) | _again(record)
    return not_modified(request, headers) or json_response(experiment_document(record), headers=headers)


def cache_headers(record: Record) -> dict[str, str]:
    """Of what was measured: nothing while more comes; a strong ETag once it can't change but with the row."""
    return _validator(record) if record.status.ended else {"Cache-Control": "no-store"} | _again(record)


def not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """304 where `If-None-Match` names the ETag in `headers`."""
    given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if "ETag" in headers and (headers["ETag"] in given or given == ["*"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return None


def _validator(record: Record) -> dict[str, str]:
    # The release is part of it: the next one may write more fields of the same row.
    return {"ETag": f'"{record.row_version}-{__version__}"', "Cache-Control": "private, no-cache"}


def _again(record: Record) -> dict[str, str]:
    return {} if record.status.ended else {"Retry-After": str(RETRY_SECONDS)}


def _time(seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
