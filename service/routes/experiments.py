"""Experiments: submit, list, read, change, cancel, try again, delete."""

import logging
import time
from http import HTTPStatus
from typing import Annotated, Final

import anyio
from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from gradprobe.resources import Experiment, ExperimentPage
from gradprobe.spec import Label, Notes, Spec, SpecModel, Tags
from gradprobe.store import experiments, listing
from gradprobe.store.experiments import Record
from gradprobe.store.listing import NEWEST, Sort
from service.bounds import require_affordable
from service.conditions import REPLAYED, KnownVersions, RepetitionDependency
from service.dependencies import ExperimentId, PrincipalDependency, RequestId, Service, ServiceDependency
from service.examples import SPECS
from service.pagination import decode_cursor, next_cursor, next_link
from service.parsing import Route
from service.problems import documented
from service.rendering import (
    ACCEPTED,
    CHANGED,
    LISTED,
    LIVE,
    UNCHANGED,
    accepted,
    cache_headers,
    experiment_document,
    experiment_response,
    hashed_response,
    json_response,
)
from service.ringing import ring
from service.selection import FiltersDependency
from service.submission import Submission, resubmit, submit

_LOOK_SECONDS: Final = 0.2
#: A cursor holds what it goes on from: of a list by name that is a name, 200 characters of any alphabet.
_LONGEST_CURSOR: Final = 2000

_logger = logging.getLogger(__name__)

router = APIRouter(prefix="/experiments", route_class=Route, tags=["experiments"])

_BODY: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


class Changes(SpecModel):
    """What can be changed of an experiment; a field left out stays as it is, null takes a name or notes away."""

    name: Label | None = None
    tags: Tags = Field(default_factory=dict)
    notes: Notes | None = None


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Experiment,
    responses={
        **documented(*_BODY, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS),
        202: {"headers": ACCEPTED | REPLAYED},
    },
)
def create_experiment(
    spec: Annotated[Spec, Body(openapi_examples=SPECS)],
    service: ServiceDependency,
    request_id: RequestId,
    principal: PrincipalDependency,
    repetition: RepetitionDependency,
) -> Response:
    """Submit an experiment. It is stored, and sent to a worker, before this answers.

    With an `Idempotency-Key` it can be sent again, after a lost answer for instance, and is submitted once.
    """
    require_affordable(spec, service.settings)
    submission = Submission(spec, principal.owner, request_id, repetition)
    with service.database.write() as connection:
        record, is_new = submit(connection, submission, service.settings)
    if is_new:
        _logger.info("accepted", extra={"experiment_id": record.id})
        ring(service, [(record.id, record.queue, record.priority)])
    return accepted(record, headers={} if is_new else {"Idempotency-Replayed": "true"})


@router.get(
    "",
    response_model=ExperimentPage,
    responses={**documented(), 200: {"headers": LISTED}, 304: UNCHANGED},
)
def list_experiments(
    request: Request,
    service: ServiceDependency,
    filters: FiltersDependency,
    sort: Annotated[
        Sort, Query(description="With a minus descending; what ties is in order of creation, what has no value last.")
    ] = NEWEST,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        str | None,
        Query(
            max_length=_LONGEST_CURSOR,
            json_schema_extra={"pattern": r"^[A-Za-z0-9_-]+$"},
            description="`next_cursor` of the page before.",
        ),
    ] = None,
) -> Response:
    """Experiments, newest first or as `sort` says."""
    after = decode_cursor(cursor, filters, sort) if cursor is not None else None
    with service.database.read() as connection:
        places = listing.page(connection, filters, sort, after, limit + 1)
        records = experiments.read_all(connection, [place.id for place in places[:limit]])
    following = next_cursor(places, limit, filters, sort)
    query = request.query_params.multi_items()
    headers = {"Link": next_link(request.url.path, query, following)} if following else {}
    items = [experiment_document(record) for record in records]
    return hashed_response(request, {"items": items, "next_cursor": following}, headers)


@router.get(
    "/{experiment_id}",
    response_model=Experiment,
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": LIVE}, 304: UNCHANGED},
)
async def read_experiment(
    request: Request,
    experiment_id: ExperimentId,
    service: ServiceDependency,
    wait: Annotated[float, Query(ge=0, le=30, allow_inf_nan=False)] = 0,
) -> Response:
    """One experiment. With `wait` the answer comes when its status changes, or after so many seconds."""
    # `async`, so that a client who waits holds no thread; each look at the database is a short one in the pool.
    deadline = time.monotonic() + wait
    record = await read_record(service, experiment_id)
    first = record.status
    while record.status == first and not first.ended and (left := deadline - time.monotonic()) > 0:
        await anyio.sleep(min(_LOOK_SECONDS, left))
        if service.stopping.is_set() or await request.is_disconnected():
            break
        record = await read_record(service, experiment_id)
    return experiment_response(request, record)


@router.patch(
    "/{experiment_id}",
    response_model=Experiment,
    responses={**documented(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED, *_BODY), 200: {"headers": CHANGED}},
)
def change_experiment(
    request: Request, experiment_id: ExperimentId, changes: Changes, service: ServiceDependency, versions: KnownVersions
) -> Response:
    """Change name, tags or notes; given tags take the place of all there were."""
    with service.database.write() as connection:
        experiments.require_version(connection, experiment_id, versions)
        record = experiments.change(connection, experiment_id, changes.model_dump(exclude_unset=True))
    return json_response(experiment_document(record), headers=cache_headers(request, record))


@router.post(
    "/{experiment_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Experiment,
    responses={
        **documented(HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED),
        200: {"model": Experiment, "description": "It had ended already", "headers": ACCEPTED},
        202: {"headers": ACCEPTED},
    },
)
def cancel_experiment(experiment_id: ExperimentId, service: ServiceDependency, versions: KnownVersions) -> Response:
    """Cancel what waits at once, and ask the worker of what runs to stop; what has ended stays as it is."""
    with service.database.write() as connection:
        experiments.require_version(connection, experiment_id, versions)
        record, was_active = experiments.request_cancel(connection, experiment_id)
    return accepted(record, HTTPStatus.ACCEPTED if was_active else HTTPStatus.OK)


@router.post(
    "/{experiment_id}/retry",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Experiment,
    responses={
        **documented(
            HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.TOO_MANY_REQUESTS
        ),
        202: {"headers": ACCEPTED},
    },
)
def retry_experiment(experiment_id: ExperimentId, service: ServiceDependency, versions: KnownVersions) -> Response:
    """Queue an experiment again that failed or was cancelled; what it measured before is removed."""
    with service.database.write() as connection:
        experiments.require_version(connection, experiment_id, versions)
        record = resubmit(connection, experiment_id, service.settings)
    ring(service, [(record.id, record.queue, record.priority)])
    return accepted(record)


@router.delete(
    "/{experiment_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED),
)
def delete_experiment(experiment_id: ExperimentId, service: ServiceDependency, versions: KnownVersions) -> None:
    """Delete an experiment and all it measured; a running one must be cancelled first."""
    with service.database.write() as connection:
        experiments.require_version(connection, experiment_id, versions)
        experiments.remove(connection, experiment_id)


async def read_record(service: Service, experiment_id: str) -> Record:
    """One experiment, read in the pool of threads; raises ExperimentNotFound."""
    return await run_in_threadpool(_read, service, experiment_id)


def _read(service: Service, experiment_id: str) -> Record:
    with service.database.read() as connection:
        return experiments.get(connection, experiment_id)
