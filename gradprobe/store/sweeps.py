"""Groups of experiments: sweeps, and remedies that are tried. Their members are ordinary experiments.

Every function takes a connection inside a transaction that its caller opened and closes.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, Self

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, select, update

from gradprobe.access import Principal
from gradprobe.errors import GradprobeError, RemediesNotFound, SweepNotFound, SweepRunning
from gradprobe.identifiers import is_sweep_id
from gradprobe.state import ACTIVE, Status
from gradprobe.store import tallies
from gradprobe.store.documents import parsed
from gradprobe.store.tables import experiments, now, sweeps

Kind = Literal["sweep", "remedies"]

#: Nothing will be added to the group any more.
COMPLETE: Final = 0
#: Once all of it has ended, it is looked at whether more is to be tried.
FIRST: Final = 1
_DOCUMENTS: Final = ("tags", "base", "definition")
_NOT_FOUND: Final[dict[Kind, tuple[type[GradprobeError], str]]] = {
    "sweep": (SweepNotFound, "There is no sweep {!r}; GET /sweeps lists those there are."),
    "remedies": (RemediesNotFound, "There are no remedies {!r}; GET /experiments/ID/remedies lists those there are."),
}


@dataclass(frozen=True, slots=True)
class Group:
    """A sweep, or remedies that are tried.

    `base` is the spec that members differ from, `definition` what tells how, both as plain JSON. Times are seconds
    since 1970 by the database's clock.
    """

    id: str
    kind: Kind
    base: dict[str, Any]
    definition: dict[str, Any]
    name: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    stage: int = COMPLETE
    experiment_id: str | None = None
    owner: str | None = None
    request_id: str | None = None
    created_at: float = 0.0

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From a row of the table."""
        values = dict(row._mapping)
        for document in _DOCUMENTS:
            values[document] = parsed(values[document])
        return cls(**{column.name: values[column.name] for column in fields(cls)})


@dataclass(frozen=True, slots=True)
class Place:
    """A member as its group's tables tell of it, without its spec and layers."""

    id: str
    sweep_id: str
    row_version: int
    name: str | None
    status: Status
    verdict: str | None
    iteration: int
    iterations: int
    member: dict[str, Any]
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    summary: dict[str, Any] | None

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """From its columns of the table."""
        values = dict(row._mapping)
        for document in ("member", "result", "error", "summary"):
            values[document] = parsed(values[document]) if values[document] is not None else None
        values |= {"status": Status(values["status"]), "member": values["member"] or {}}
        return cls(**values)


@dataclass(slots=True)
class Standing:
    """How far a group is: its members by status, and iterations done and planned."""

    counts: dict[Status, int] = field(default_factory=lambda: dict.fromkeys(Status, 0))
    iteration: int = 0
    iterations: int = 0

    @property
    def active(self) -> bool:
        """Whether any member waits or runs."""
        return any(self.counts[status] for status in ACTIVE)


def create(connection: Connection, group: Group) -> Group:
    """Store a new group, of no members yet, and return it."""
    values = {column.name: getattr(group, column.name) for column in fields(group)}
    values |= {name: json.dumps(values[name]) for name in _DOCUMENTS} | {"created_at": now()}
    connection.execute(insert(sweeps).values(values))
    return get(connection, group.id, group.kind)


def get(connection: Connection, identifier: str, kind: Kind) -> Group:
    """Read one; raises SweepNotFound or RemediesNotFound."""
    if is_sweep_id(identifier):
        row = connection.execute(select(sweeps).where(sweeps.c.id == identifier, sweeps.c.kind == kind)).one_or_none()
        if row is not None:
            return Group.from_row(row)
    raise _not_found(identifier, kind)


def require_visible(connection: Connection, identifier: str, kind: Kind, principal: Principal) -> None:
    """As `experiments.require_visible`: what belongs to another is not there, in the very words of what is not.

    Raises:
        SweepNotFound, RemediesNotFound: there is none, or it is another's.
    """
    if not principal.sees_all and get(connection, identifier, kind).owner != principal.owner:
        raise _not_found(identifier, kind)


def page(connection: Connection, owner: str | None, before: str | None, limit: int) -> list[Group]:
    """Up to `limit` sweeps, newest first, older than the id `before`; of one owner, or of all (None)."""
    query = select(sweeps).where(sweeps.c.kind == "sweep").order_by(sweeps.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(sweeps.c.id < before)
    if owner is not None:
        query = query.where(sweeps.c.owner == owner)
    return [Group.from_row(row) for row in connection.execute(query)]


def of_experiment(connection: Connection, experiment_id: str, owner: str | None, limit: int) -> list[Group]:
    """The trials of an experiment's remedies, newest first; of one owner, or of all (None)."""
    query = select(sweeps).where(sweeps.c.experiment_id == experiment_id).order_by(sweeps.c.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(sweeps.c.owner == owner)
    return [Group.from_row(row) for row in connection.execute(query)]


def members(connection: Connection, identifier: str) -> list[Place]:
    """A group's members in the order that they were given."""
    columns = [experiments.c[column.name] for column in fields(Place)]
    query = select(*columns).where(experiments.c.sweep_id == identifier).order_by(experiments.c.id)
    return [Place.from_row(row) for row in connection.execute(query)]


def standings(connection: Connection, identifiers: Collection[str]) -> dict[str, Standing]:
    """How far each of these groups is."""
    found = {identifier: Standing() for identifier in identifiers}
    query = (
        select(
            experiments.c.sweep_id,
            experiments.c.status,
            func.count().label("number"),
            func.sum(experiments.c.iteration).label("iteration"),
            func.sum(experiments.c.iterations).label("iterations"),
        )
        .where(experiments.c.sweep_id.in_(found))
        .group_by(experiments.c.sweep_id, experiments.c.status)
    )
    for row in connection.execute(query):
        standing = found[row.sweep_id]
        standing.counts[Status(row.status)] = row.number
        standing.iteration += int(row.iteration)
        standing.iterations += int(row.iterations)
    return found


def request_cancel(connection: Connection, identifier: str, kind: Kind) -> bool:
    """Cancel what waits, ask the workers of what runs, add nothing any more; whether any of it was still active."""
    get(connection, identifier, kind)
    was_active = standings(connection, [identifier])[identifier].active
    connection.execute(update(sweeps).where(sweeps.c.id == identifier).values(stage=COMPLETE))
    mine = update(experiments).where(experiments.c.sweep_id == identifier)
    newer = experiments.c.row_version + 1
    connection.execute(
        mine.where(experiments.c.status == Status.QUEUED).values(
            status=Status.CANCELLED, finished_at=now(), row_version=newer
        )
    )
    connection.execute(
        mine.where(experiments.c.status == Status.RUNNING, experiments.c.cancel_requested_at.is_(None)).values(
            cancel_requested_at=now(), row_version=newer
        )
    )
    return was_active


def remove(connection: Connection, identifier: str, kind: Kind) -> None:
    """Delete a group with all its experiments and what they measured.

    Raises:
        SweepNotFound, RemediesNotFound: there is none.
        SweepRunning: some of them run, so that nothing was deleted.
    """
    get(connection, identifier, kind)
    mine = experiments.c.sweep_id == identifier
    # What waits might be claimed meanwhile, so it is deleted first and what was not is looked for afterwards.
    tallies.delete_experiments(connection, mine, experiments.c.status != Status.RUNNING)
    if connection.execute(select(experiments.c.id).where(mine).limit(1)).first() is not None:
        raise SweepRunning
    connection.execute(delete(sweeps).where(sweeps.c.id == identifier))


def finished_stages(connection: Connection, limit: int = 100) -> list[Group]:
    """Groups to which more may be added, and none of whose experiments waits or runs."""
    active = exists().where(experiments.c.sweep_id == sweeps.c.id, experiments.c.status.in_(ACTIVE))
    query = select(sweeps).where(sweeps.c.stage != COMPLETE, ~active).order_by(sweeps.c.id).limit(limit)
    return [Group.from_row(row) for row in connection.execute(query)]


def advance(connection: Connection, group: Group, stage: int, definition: dict[str, Any] | None = None) -> bool:
    """Move a group on from the stage it was read at; False where somebody else has done so before."""
    values: dict[str, Any] = {"stage": stage}
    if definition is not None:
        values["definition"] = json.dumps(definition)
    unmoved = and_(sweeps.c.id == group.id, sweeps.c.stage == group.stage)
    return connection.execute(update(sweeps).where(unmoved).values(values)).rowcount == 1


def delete_empty(connection: Connection, seconds: float) -> int:
    """Delete the groups older than this that have no experiment left; how many there were."""
    filled: Sequence[Any] = (experiments.c.sweep_id == sweeps.c.id,)
    gone = delete(sweeps).where(sweeps.c.created_at < now() - seconds, ~exists().where(*filled))
    return connection.execute(gone).rowcount


def _not_found(identifier: str, kind: Kind) -> GradprobeError:
    error, words = _NOT_FOUND[kind]
    return error(words.format(identifier))
