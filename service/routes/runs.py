"""Runs: training loops that are not ours and report what they measure; `gradprobe.watch` does."""

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy import Connection

from gradprobe.diagnosis import VERSION, diagnose
from gradprobe.diagnosis.summary import summarize
from gradprobe.errors import RunTooLong
from gradprobe.reports import End, Report
from gradprobe.resources import Experiment
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.statistics import STATISTICS
from gradprobe.store import measurements, runs
from gradprobe.store.experiments import Record
from gradprobe.store.reader import Reader
from gradprobe.subject import WatchedSpec, subject_of
from service.conditions import REPLAYED, RepetitionDependency
from service.dependencies import ExperimentId, PrincipalDependency, RequestId, ServiceDependency
from service.parsing import Route
from service.problems import documented
from service.rendering import ACCEPTED, CHANGED, accepted, cache_headers, experiment_document, json_response
from service.submission import Submission, submit

router = APIRouter(prefix="/runs", route_class=Route, tags=["runs"])

_BODY: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
_OF_ONE: Final = documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, *_BODY)
#: Bytes that one layer's statistics take at one step, all tensors together.
_BYTES_A_LAYER: Final = 4 * sum(len(statistics) for tensor, statistics in STATISTICS.items() if tensor != "evaluation")

_logger = logging.getLogger(__name__)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=Experiment,
    responses={
        **documented(*_BODY, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS),
        201: {"headers": ACCEPTED | REPLAYED},
    },
)
def create_run(
    spec: WatchedSpec,
    service: ServiceDependency,
    request_id: RequestId,
    principal: PrincipalDependency,
    repetition: RepetitionDependency,
) -> Response:
    """Begin a run: what is known of the loop. It is read where experiments are, under `/experiments/{id}`."""
    submission = Submission(spec, principal.owner, request_id, repetition)
    with service.database.write() as connection:
        record, is_new = submit(connection, submission, service.settings)
    return accepted(record, HTTPStatus.CREATED, {} if is_new else {"Idempotency-Replayed": "true"})


@router.post(
    "/{experiment_id}/statistics",
    response_model=Experiment,
    responses={**_OF_ONE, 200: {"headers": CHANGED}},
)
def report_statistics(
    request: Request, experiment_id: ExperimentId, report: Report, service: ServiceDependency
) -> Response:
    """Report a range of steps; one that was reported before changes nothing, one that leaves a gap is refused.

    The answer's `status` says `cancelled` where somebody has asked the loop to stop reporting.
    """
    with service.database.write() as connection:
        record = runs.locked(connection, experiment_id)
        _require_room(record, report, service.settings)
        try:
            blocks = report.decoded(len(record.layers))
        except ValidationError as error:
            faults = [fault | {"loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)]
            raise RequestValidationError(faults, body=report.model_dump(mode="json")) from error
        runs.report(connection, record, (report.start, report.stop), blocks, service.settings.run_silence_seconds)
        record = runs.locked(connection, experiment_id)
    return json_response(experiment_document(record), headers=cache_headers(request, record))


@router.post(
    "/{experiment_id}/end",
    response_model=Experiment,
    responses={**_OF_ONE, 200: {"headers": CHANGED}},
)
def end_run(request: Request, experiment_id: ExperimentId, end: End, service: ServiceDependency) -> Response:
    """The loop has ended; what it reported is judged. Said again, it changes nothing."""
    error = None
    if end.status == "failed":
        error = {"code": "LOOP_FAILED", "message": end.message or "The loop ended with an error."}
    with service.database.write() as connection:
        record = runs.locked(connection, experiment_id)
        record = runs.end(connection, record, Status(end.status), error, _judged(connection, record))
    return json_response(experiment_document(record), headers=cache_headers(request, record))


def _require_room(record: Record, report: Report, settings: Settings) -> None:
    recorded = report.stop / int(record.spec["recording"]["every"])
    mebibytes = recorded * len(record.layers) * _BYTES_A_LAYER / 2**20
    if mebibytes > settings.maximum_stored_mebibytes:
        raise RunTooLong(
            f"{mebibytes:,.0f} MiB of statistics, and this server keeps {settings.maximum_stored_mebibytes:,.0f} "
            "of one run (GRADPROBE_MAXIMUM_STORED_MEBIBYTES): record less often (every)."
        )


def _judged(connection: Connection, record: Record) -> dict[str, Any]:
    """What the rules say; whatever fails here, the run ends as it would without."""
    try:
        measured = measurements.read(Reader(connection, record.id), subject_of(record.spec))
        if not measured.blocks:
            return {}
        found = diagnose(measured)
        return {"verdict": found.verdict, "summary": summarize(measured, found, VERSION)}
    except Exception:
        _logger.exception("no verdict", extra={"experiment_id": record.id})
        return {}
