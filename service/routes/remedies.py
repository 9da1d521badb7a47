"""Remedies that are tried: paired experiments of one change each, against the plain spec and random changes."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import Field, StringConstraints
from sqlalchemy import Connection

from gradprobe.group_resources import Remedies, RemediesList
from gradprobe.identifiers import new_remedies_id
from gradprobe.spec import SpecModel
from gradprobe.store import experiments, sweeps
from gradprobe.store.sweeps import Group
from gradprobe.trial.intervals import MOST_PAIRS
from gradprobe.trial.stages import members_of, ranking_of
from service.conditions import REPLAYED, RepetitionDependency
from service.dependencies import ExperimentId, PrincipalDependency, RemediesId, RequestId, ServiceDependency
from service.grouping import accepted_group, again, remedies_document, remedies_path, remedies_summary
from service.parsing import Route
from service.problems import documented
from service.rendering import ACCEPTED, LIVE, UNCHANGED, hashed_response
from service.ringing import ring_group
from service.submission import GroupSubmission, submit_group
from service.trying import Wanted, design_trial, diagnosis_of

router = APIRouter(route_class=Route, tags=["remedies"])

_BODY: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
_MOST_LISTED: Final = 50

RemedyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_#]{1,64}$")]


class NewRemedies(SpecModel):
    """Which of the diagnosis's remedies to try, and how thoroughly; `{}` tries all over three seeds."""

    remedies: Annotated[list[RemedyName], Field(min_length=1, max_length=50)] | None = Field(
        default=None, description="Their ids in the diagnosis; null: all of them."
    )
    seeds: int = Field(
        default=3,
        ge=1,
        le=MOST_PAIRS,
        description="The experiment's own seed and those after it, each for every change.",
    )
    controls: Annotated[int, Field(ge=0, le=50)] | None = Field(
        default=None, description="Random changes of the same fields; null: as many as remedies."
    )


@router.post(
    "/experiments/{experiment_id}/remedies",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Remedies,
    responses={
        **documented(*_BODY, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS),
        202: {"headers": ACCEPTED | REPLAYED},
    },
)
def create_remedies(
    experiment_id: ExperimentId,
    wanted: NewRemedies,
    service: ServiceDependency,
    request_id: RequestId,
    principal: PrincipalDependency,
    repetition: RepetitionDependency,
) -> Response:
    """Try the diagnosis's remedies: the same seeds and the same data order, one change at a time.

    Beside them run the plain spec and random changes of the same fields. Where no single remedy is enough, the best are
    combined when these have ended.
    """
    with service.database.read() as connection:
        record = experiments.get(connection, experiment_id)
        found = diagnosis_of(connection, record, service.objects)
    design = design_trial(record, found, Wanted(wanted.remedies, wanted.seeds, wanted.controls), service.settings)
    group = Group(
        new_remedies_id(), "remedies", record.spec, design.document(), stage=sweeps.FIRST,
        experiment_id=experiment_id, owner=principal.owner, request_id=request_id,
    )  # fmt: skip
    members = members_of(group, design, design.changes)
    with service.database.write() as connection:
        made, queued = submit_group(connection, GroupSubmission(group, members, repetition), service.settings)
        document = _document(connection, made)
    specs = [member.spec for member in members]
    ring_group(service, made.id, queued, specs)
    return accepted_group(document, remedies_path(made.id), bool(queued))


@router.get(
    "/experiments/{experiment_id}/remedies",
    response_model=RemediesList,
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": LIVE}, 304: UNCHANGED},
)
def list_remedies(
    request: Request, experiment_id: ExperimentId, service: ServiceDependency, principal: PrincipalDependency
) -> Response:
    """The trials of this experiment's remedies, newest first."""
    owner = None if principal.sees_all else principal.owner
    with service.database.read() as connection:
        experiments.get(connection, experiment_id)
        groups = sweeps.of_experiment(connection, experiment_id, owner, _MOST_LISTED)
        standings = sweeps.standings(connection, [group.id for group in groups])
        items = [
            remedies_summary(group, standings[group.id], ranking_of(group, sweeps.members(connection, group.id)))
            for group in groups
        ]
    return hashed_response(request, {"items": items}, {})


@router.get(
    "/remedies/{remedies_id}",
    response_model=Remedies,
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": LIVE}, 304: UNCHANGED},
)
def read_remedies(request: Request, remedies_id: RemediesId, service: ServiceDependency) -> Response:
    """One trial: how far it is, and what each change did as far as it has ended."""
    with service.database.read() as connection:
        group = sweeps.get(connection, remedies_id, "remedies")
        standing = sweeps.standings(connection, [remedies_id])[remedies_id]
        document = _document(connection, group)
    return hashed_response(request, document, again(group, standing))


@router.post(
    "/remedies/{remedies_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Remedies,
    responses={
        **documented(HTTPStatus.NOT_FOUND),
        200: {"model": Remedies, "description": "All of it had ended already", "headers": ACCEPTED},
        202: {"headers": ACCEPTED},
    },
)
def cancel_remedies(remedies_id: RemediesId, service: ServiceDependency) -> Response:
    """Cancel what waits of a trial, ask the workers of what runs to stop, and try nothing more."""
    with service.database.write() as connection:
        active = sweeps.request_cancel(connection, remedies_id, "remedies")
        document = _document(connection, sweeps.get(connection, remedies_id, "remedies"))
    return accepted_group(document, remedies_path(remedies_id), status=HTTPStatus.ACCEPTED if active else HTTPStatus.OK)


@router.delete(
    "/remedies/{remedies_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_remedies(remedies_id: RemediesId, service: ServiceDependency) -> None:
    """Delete a trial with all its experiments; the experiment whose remedies they are stays."""
    with service.database.write() as connection:
        sweeps.remove(connection, remedies_id, "remedies")


def _document(connection: Connection, group: Group) -> dict[str, Any]:
    standing = sweeps.standings(connection, [group.id])[group.id]
    members = sweeps.members(connection, group.id)
    return remedies_document(group, standing, members, ranking_of(group, members))
