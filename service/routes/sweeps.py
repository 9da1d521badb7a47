"""Sweeps: the product of axes as one group of experiments, followed, compared, cancelled and deleted as one."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Query, Request, Response
from pydantic import Field, StringConstraints
from sqlalchemy import Connection

from gradprobe.group_resources import Sweep, SweepComparison, SweepPage
from gradprobe.identifiers import is_sweep_id, new_sweep_id
from gradprobe.spec import Label, Spec, SpecModel, Tags
from gradprobe.store import sweeps
from gradprobe.store.listing import Filters, Position
from gradprobe.store.sweeps import Group
from service.conditions import REPLAYED, RepetitionDependency
from service.dependencies import PrincipalDependency, RequestId, ServiceDependency, SweepId
from service.examples import SWEEPS
from service.expansion import Axes, Labels, expand
from service.grouping import (
    accepted_group,
    again,
    comparison_document,
    live_ratios,
    sweep_document,
    sweep_path,
    sweep_summary,
)
from service.pagination import decode_cursor, next_cursor, next_link
from service.parsing import Route
from service.problems import documented
from service.rendering import ACCEPTED, LISTED, LIVE, UNCHANGED, hashed_response
from service.ringing import ring_group
from service.submission import GroupSubmission, submit_group

router = APIRouter(prefix="/sweeps", route_class=Route, tags=["sweeps"])

_BODY: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)

#: RFC 6901, of at least one name.
Pointer = Annotated[str, StringConstraints(pattern=r"^(/([^~/\x00-\x1f]|~[01])+)+$", max_length=200)]
Values = Annotated[list[Any], Field(min_length=1, max_length=10_000)]


class NewSweep(SpecModel):
    """What all members have in common, and what they differ in."""

    name: Label | None = None
    tags: Tags = Field(default_factory=dict)
    base: Spec = Field(default_factory=Spec)
    axes: dict[Pointer, Values] = Field(
        min_length=1,
        max_length=8,
        description="By JSON pointer (RFC 6901) into the spec the values of that field; each may be an object.",
        json_schema_extra={"additionalProperties": False},
    )


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Sweep,
    responses={
        **documented(*_BODY, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS),
        202: {"headers": ACCEPTED | REPLAYED},
    },
)
def create_sweep(
    wanted: Annotated[NewSweep, Body(openapi_examples=SWEEPS)],
    service: ServiceDependency,
    request_id: RequestId,
    principal: PrincipalDependency,
    repetition: RepetitionDependency,
) -> Response:
    """Submit the product of the axes as one group. Every member is validated before any is stored."""
    axes = Axes(wanted.axes)
    members = expand(wanted.base, axes, Labels(wanted.name, wanted.tags), service.settings)
    base = wanted.base.model_dump(mode="json", exclude_unset=True)
    group = Group(
        new_sweep_id(), "sweep", base, {"axes": wanted.axes}, wanted.name, wanted.tags,
        owner=principal.owner, request_id=request_id,
    )  # fmt: skip
    with service.database.write() as connection:
        made, queued = submit_group(connection, GroupSubmission(group, members, repetition), service.settings)
        document = _document(connection, made)
    ring_group(service, made.id, queued, [member.spec for member in members])
    return accepted_group(document, sweep_path(made.id), bool(queued))


@router.get("", response_model=SweepPage, responses={**documented(), 200: {"headers": LISTED}, 304: UNCHANGED})
def list_sweeps(
    request: Request,
    service: ServiceDependency,
    principal: PrincipalDependency,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Sweeps, newest first, without their members."""
    owner = None if principal.sees_all else principal.owner
    filters = Filters(owner=owner)
    before = decode_cursor(cursor, filters, is_id=is_sweep_id).id if cursor is not None else None
    with service.database.read() as connection:
        groups = sweeps.page(connection, owner, before, limit + 1)
        standings = sweeps.standings(connection, [group.id for group in groups[:limit]])
    following = next_cursor([Position(group.id) for group in groups], limit, filters)
    headers = {"Link": next_link(request.url.path, request.query_params.multi_items(), following)} if following else {}
    items = [sweep_summary(group, standings[group.id]) for group in groups[:limit]]
    return hashed_response(request, {"items": items, "next_cursor": following}, headers)


@router.get(
    "/{sweep_id}",
    response_model=Sweep,
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": LIVE}, 304: UNCHANGED},
)
def read_sweep(request: Request, sweep_id: SweepId, service: ServiceDependency) -> Response:
    """One sweep: its members, and how many of them are in which state."""
    with service.database.read() as connection:
        group = sweeps.get(connection, sweep_id, "sweep")
        standing = sweeps.standings(connection, [sweep_id])[sweep_id]
        members = sweeps.members(connection, sweep_id)
    return hashed_response(request, sweep_document(group, standing, members), again(group, standing))


@router.get(
    "/{sweep_id}/comparison",
    response_model=SweepComparison,
    responses={**documented(HTTPStatus.NOT_FOUND), 200: {"headers": LIVE}, 304: UNCHANGED},
)
def compare_sweep(
    request: Request,
    sweep_id: SweepId,
    service: ServiceDependency,
    sort: Annotated[
        str | None, Query(max_length=200, description="A column, or the pointer of an axis; with `-` largest first.")
    ] = None,
) -> Response:
    """One table of all members: what they differ in, and what came of it, with those that failed or still run."""
    with service.database.read() as connection:
        group = sweeps.get(connection, sweep_id, "sweep")
        standing = sweeps.standings(connection, [sweep_id])[sweep_id]
        members = sweeps.members(connection, sweep_id)
        live = live_ratios(connection, members)
    document = comparison_document(group, standing, members, live, sort)
    return hashed_response(request, document, again(group, standing))


@router.post(
    "/{sweep_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Sweep,
    responses={
        **documented(HTTPStatus.NOT_FOUND),
        200: {"model": Sweep, "description": "All of it had ended already", "headers": ACCEPTED},
        202: {"headers": ACCEPTED},
    },
)
def cancel_sweep(sweep_id: SweepId, service: ServiceDependency) -> Response:
    """Cancel all members that wait, and ask the workers of those that run to stop."""
    with service.database.write() as connection:
        was_active = sweeps.request_cancel(connection, sweep_id, "sweep")
        document = _document(connection, sweeps.get(connection, sweep_id, "sweep"))
    return accepted_group(document, sweep_path(sweep_id), status=HTTPStatus.ACCEPTED if was_active else HTTPStatus.OK)


@router.delete(
    "/{sweep_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_sweep(sweep_id: SweepId, service: ServiceDependency) -> None:
    """Delete a sweep with all its experiments and what they measured; where some run it must be cancelled first."""
    with service.database.write() as connection:
        sweeps.remove(connection, sweep_id, "sweep")


def _document(connection: Connection, group: Group) -> dict[str, Any]:
    standing = sweeps.standings(connection, [group.id])[group.id]
    return sweep_document(group, standing, sweeps.members(connection, group.id))
