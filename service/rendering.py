"""From records to JSON. What it writes is declared in `gradprobe.resources`, and tests hold the two together."""

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request, Response

from gradprobe import __version__
from gradprobe.store.experiments import Record
from service.encoding import IDENTITY

_TEXT: Final = {"schema": {"type": "string"}}
_SECONDS: Final = {"schema": {"type": "integer", "minimum": 0}}
_AGAIN: Final = {"description": "Seconds after which it is worth looking again; absent once it has ended."} | _SECONDS
_ETAG: Final = {"description": "Give it back as `If-None-Match`: 304 as long as nothing has changed."} | _TEXT
#: For OpenAPI: the headers of a list, of what is read while it changes, of what was accepted.
LISTED: Final[dict[str, Any]] = {
    "ETag": _ETAG,
    "Link": {"description": "RFC 8288, `rel=next`: the next page; absent on the last one."} | _TEXT,
}
LIVE: Final[dict[str, Any]] = {"ETag": _ETAG, "Retry-After": _AGAIN}
CHANGED: Final[dict[str, Any]] = {"ETag": {"description": "Of the state after the change."} | _TEXT}
UNCHANGED: Final[dict[str, Any]] = {"description": "The client has this state already", "headers": LIVE}
ACCEPTED: Final[dict[str, Any]] = {
    "Location": {"description": "Where the experiment is."} | _TEXT,
    "Retry-After": _AGAIN,
}

_VERSION: Final = re.compile(r'"(\d{1,18})-[^"]*"')

#: Seconds after which it is worth looking again at an experiment that has not ended.
RETRY_SECONDS: Final = 1


def json_bytes(document: Any) -> bytes:
    """JSON straight from NumPy arrays; NaN and infinities become null, so name them elsewhere."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def json_response(document: Any, status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(json_bytes(document), status, headers, "application/json")


def hashed_response(request: Request, document: Any, headers: dict[str, str]) -> Response:
    """A JSON answer of what has no version of its own, under an ETag of its bytes."""
    content = json_bytes(document)
    told = headers | _tagged(request, hashlib.blake2b(content, digest_size=16).hexdigest())
    return not_modified(request, told) or Response(content, HTTPStatus.OK, told, "application/json")


def experiment_path(experiment_id: str) -> str:
    """Where an experiment is."""
    return f"/experiments/{experiment_id}"


def experiment_document(record: Record) -> dict[str, Any]:
    """An `Experiment`."""
    path = experiment_path(record.id)
    parts = {"gradients": "gradients", "histograms": "gradients/histograms"}
    parts |= {name: name for name in ("weights", "activations", "metrics", "diagnosis", "events")}
    return {
        "id": record.id,
        "name": record.name,
        "tags": record.tags,
        "notes": record.notes,
        "spec": orjson.Fragment(record.spec_text),  # a spec's own JSON, which has no NaN
        "status": record.status,
        "progress": {"iteration": record.iteration, "iterations": record.iterations},
        "attempt": record.attempt,
        "created_at": time_text(record.created_at),
        "started_at": time_text(record.started_at),
        "finished_at": time_text(record.finished_at),
        "verdict": record.verdict,
        "result": record.result,
        "error": record.error,
        "provenance": record.provenance,
        "owner": record.owner,
        "sweep_id": record.sweep_id,
        "member": record.member,
        "source": record.source,
        "links": {"self": path} | {name: f"{path}/{part}" for name, part in parts.items()},
    }


def accepted(record: Record, status: int = HTTPStatus.ACCEPTED, headers: dict[str, str] | None = None) -> Response:
    """The answer to what asked for work: where to look, and when."""
    where = {"Location": experiment_path(record.id)} | _again(record)
    return json_response(experiment_document(record), status, where | (headers or {}))


def experiment_response(request: Request, record: Record) -> Response:
    """One experiment, or 304 where the client has this state of it."""
    headers = cache_headers(request, record)
    return not_modified(request, headers) or json_response(experiment_document(record), headers=headers)


def cache_headers(request: Request, record: Record) -> dict[str, str]:
    """Of an experiment and of what was measured: each write to either raises the row's version."""
    # The release is part of it: the next one may write more fields of the same row.
    return _tagged(request, f"{record.row_version}-{__version__}") | _again(record)


def versions_in(tags: Iterable[str]) -> frozenset[int]:
    """The experiment's versions that these ETags are of, whatever the release and the coding that they came in."""
    found = (_VERSION.fullmatch(tag) for tag in tags)
    return frozenset(int(tag[1]) for tag in found if tag)


def not_modified(request: Request, headers: dict[str, str]) -> Response | None:
    """304 where `If-None-Match` names the ETag in `headers`."""
    given = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] in given or given == ["*"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return None


def _tagged(request: Request, version: str) -> dict[str, str]:
    # A strong ETag is of the bytes that travel, and they differ from coding to coding.
    coding = request.state.coding
    suffix = "" if coding == IDENTITY else f"-{coding}"
    return {"ETag": f'"{version}{suffix}"', "Cache-Control": "private, no-cache"}


def _again(record: Record) -> dict[str, str]:
    return {} if record.status.ended else {"Retry-After": str(RETRY_SECONDS)}


def time_text(seconds: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
