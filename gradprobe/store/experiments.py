"""Experiments as people see them: create, list, read, change, cancel, delete. What workers do is in `leases`.

Every function takes a connection inside a transaction that its caller opened and closes.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, update

from gradprobe.access import Principal
from gradprobe.errors import (
    ExperimentNotEnded,
    ExperimentNotFound,
    ExperimentRunning,
    PreconditionFailed,
    RunNotTrainedHere,
)
from gradprobe.identifiers import is_experiment_id, new_experiment_id
from gradprobe.spec import SCHEMA_VERSION, Spec
from gradprobe.stacking import stack_key
from gradprobe.state import ACTIVE, Status, may_become
from gradprobe.store import checkpoints, listing, names, objects, tallies
from gradprobe.store.documents import parsed
from gradprobe.store.listing import NEWEST, Filters, Position, Sort
from gradprobe.store.tables import blocks, experiments, now, one_of, sweeps, tags
from gradprobe.subject import AnySpec


@dataclass(frozen=True, slots=True)
class Layer:
    """A weight layer: its name, the shape of its weights and of its output for one batch."""

    name: str
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def layers_of(spec: AnySpec) -> list[Layer]:
    """The weight layers that a spec's network will have, input side first."""
    network, batch = spec.network, spec.training.batch_size
    return [
        Layer(name, layer.weight_shape, (batch, *layer.output_shape))
        for name, layer in zip(network.layer_names, network.layers, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Record:
    """One experiment's row. Times are seconds since 1970 by the database's clock.

    What a list does not look into stays text, because parsing it would be a fifth of what a page costs.
    """

    id: str
    row_version: int
    name: str | None
    notes: str | None
    tags: dict[str, str]
    spec_text: str
    layers: tuple[Layer, ...]
    status: Status
    verdict: str | None
    iteration: int
    iterations: int
    queue: str
    priority: int
    attempt: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    provenance: dict[str, Any] | None
    request_id: str | None
    owner: str | None
    sweep_id: str | None
    member: dict[str, Any] | None
    summary_text: str | None
    traceparent: str | None
    source: str | None

    @classmethod
    def from_row(cls, row: Row[Any], tags_of: dict[str, str]) -> Self:
        """From a row of `_RECORDS` and its tags."""
        values = dict(zip(_FIELDS, row, strict=True))
        for document in ("result", "error", "provenance", "member"):
            values[document] = parsed(values[document]) if values[document] is not None else None
        values |= {
            "status": Status(values["status"]),
            "layers": _layers(values["layers"]),
            "tags": tags_of,
        }
        return cls(**values)

    @property
    def spec(self) -> dict[str, Any]:
        """What was asked for; a new document each time."""
        found: dict[str, Any] = parsed(self.spec_text)
        return found

    @property
    def summary(self) -> dict[str, Any] | None:
        """The diagnosis in a few numbers; None before the end."""
        return parsed(self.summary_text) if self.summary_text is not None else None


_FIELDS = tuple(column.name for column in fields(Record) if column.name != "tags")
#: What `Record.from_row` takes.
_RECORDS = select(*(experiments.c[name.removesuffix("_text")] for name in _FIELDS))


@lru_cache(maxsize=512)
def _layers(text: str) -> tuple[Layer, ...]:
    """Most experiments of a list have one network: its layers are parsed once."""
    return tuple(Layer(name, tuple(weight), tuple(output)) for name, weight, output in parsed(text))


def queue_of(spec: Spec) -> str:
    """The queue whose workers can run it: `cpu`, `gpu`, or `any` where either will do."""
    return {"auto": "any", "cpu": "cpu", "cuda": "gpu"}[spec.training.device]


def create(
    connection: Connection,
    spec: Spec,
    maximum_attempts: int,
    request_id: str | None = None,
    owner: str | None = None,
    identifier: str | None = None,
) -> Record:
    """Store a new, queued experiment and return it."""
    identifier = identifier or new_experiment_id()
    values = _columns(spec, maximum_attempts) | {"id": identifier, "request_id": request_id, "owner": owner}
    connection.execute(insert(experiments).values(values | {"created_at": now()}))
    names.write(connection, [identifier])
    write_tags(connection, identifier, spec.tags)
    return get(connection, identifier)


def note_trace(connection: Connection, identifiers: Sequence[str], traceparent: str | None) -> None:
    """These were submitted by the request whose span this is; nothing to note where nothing is traced."""
    if traceparent is not None and identifiers:
        connection.execute(update(experiments).where(experiments.c.id.in_(identifiers)).values(traceparent=traceparent))


@dataclass(frozen=True, slots=True)
class Member:
    """An experiment of a group: its spec, and its place in the group as plain JSON."""

    spec: Spec
    place: dict[str, Any]


def create_members(
    connection: Connection, sweep_id: str, members: Sequence[Member], maximum_attempts: int
) -> list[str]:
    """Store a group's experiments, queued, in this order; their ids. Owner and request are the group's."""
    group = connection.execute(select(sweeps.c.owner, sweeps.c.request_id).where(sweeps.c.id == sweep_id)).one()
    moment = connection.scalar(select(now()))
    # Of one millisecond ids come in any order; sorted they list as they were given.
    identifiers = sorted(new_experiment_id() for _ in members)
    common = {"sweep_id": sweep_id, "owner": group.owner, "request_id": group.request_id, "created_at": moment}
    rows = [
        _columns(member.spec, maximum_attempts) | common | {"id": identifier, "member": json.dumps(member.place)}
        for identifier, member in zip(identifiers, members, strict=True)
    ]
    connection.execute(insert(experiments), rows)
    names.write(connection, identifiers)
    tagged = [
        {"experiment_id": identifier, "key": key, "value": value}
        for identifier, member in zip(identifiers, members, strict=True)
        for key, value in member.spec.tags.items()
    ]
    if tagged:
        connection.execute(insert(tags), tagged)
    return identifiers


def described(spec: AnySpec) -> dict[str, Any]:
    """The columns that say what it is."""
    layers = [[layer.name, layer.weight_shape, layer.output_shape] for layer in layers_of(spec)]
    return {
        "schema_version": SCHEMA_VERSION,
        "row_version": 1,
        **names.columns(spec.name),
        "spec": spec.model_dump_json(),
        "layers": json.dumps(layers),
    }


def _columns(spec: Spec, maximum_attempts: int) -> dict[str, Any]:
    return described(spec) | {
        "status": Status.QUEUED,
        "iteration": 0,
        "iterations": spec.training.iterations,
        "queue": queue_of(spec),
        "priority": spec.queue.priority,
        "stack_key": stack_key(spec),
        "attempt": 0,
        "maximum_attempts": maximum_attempts,
    }


def get(connection: Connection, identifier: str) -> Record:
    """Read one; raises ExperimentNotFound."""
    if is_experiment_id(identifier):
        row = connection.execute(_RECORDS.where(experiments.c.id == identifier)).one_or_none()
        if row is not None:
            return _with_tags(connection, [row])[0]
    raise _not_found(identifier)


def require_visible(connection: Connection, identifier: str, principal: Principal) -> None:
    """The one place that keeps owners apart: what belongs to another is not there, in the very words of what is not.

    An owner never changes, so what is visible once stays so, whatever transaction looks at it next.

    Raises:
        ExperimentNotFound: there is none, or it is another's.
    """
    if principal.sees_all:
        return
    mine = and_(experiments.c.id == identifier, experiments.c.owner == principal.owner)
    if not is_experiment_id(identifier) or connection.execute(select(experiments.c.id).where(mine)).first() is None:
        raise _not_found(identifier)


def require_version(connection: Connection, identifier: str, versions: Collection[int] | None) -> None:
    """That the experiment is in a state that the caller knows, and stays so until this transaction ends.

    Raises:
        ExperimentNotFound: there is none.
        PreconditionFailed: its version is none of these.
    """
    if versions is None:
        return
    locked = select(experiments.c.row_version).where(experiments.c.id == identifier).with_for_update()
    version = connection.scalar(locked) if is_experiment_id(identifier) else None
    if version is None:
        raise _not_found(identifier)
    if version not in versions:
        raise PreconditionFailed


def page(
    connection: Connection, filters: Filters, after: Position | None, limit: int, sort: Sort = NEWEST
) -> list[Record]:
    """Up to `limit` experiments that follow `after` in this order."""
    return read_all(connection, [place.id for place in listing.page(connection, filters, sort, after, limit)])


def read_all(connection: Connection, identifiers: Sequence[str]) -> list[Record]:
    """These experiments, which are there, in this order."""
    rows = {
        row.id: row
        for row in connection.execute(_RECORDS.where(one_of(connection, experiments.c.id, identifiers))).all()
    }
    return _with_tags(connection, [rows[identifier] for identifier in identifiers])


def change(connection: Connection, identifier: str, changes: Mapping[str, Any]) -> Record:
    """Set any of name, notes, tags; raises ExperimentNotFound."""
    get(connection, identifier)
    columns = {name: value for name, value in changes.items() if name == "notes"}
    if "name" in changes:
        names.forget(connection, experiments.c.id == identifier)
        columns |= names.columns(changes["name"])
    connection.execute(_touch(identifier).values(columns))
    if "name" in changes:
        names.write(connection, [identifier])
    if "tags" in changes:
        connection.execute(delete(tags).where(tags.c.experiment_id == identifier))
        write_tags(connection, identifier, changes["tags"])
    return get(connection, identifier)


def request_cancel(connection: Connection, identifier: str) -> tuple[Record, bool]:
    """Cancel at once what waits, ask the worker of what runs, leave what ended; and whether it was still active."""
    before = get(connection, identifier)
    waiting = and_(experiments.c.id == identifier, experiments.c.status == Status.QUEUED)
    cancelled = connection.execute(
        update(experiments)
        .where(waiting)
        .values(status=Status.CANCELLED, finished_at=now(), row_version=experiments.c.row_version + 1)
    )
    if cancelled.rowcount:
        checkpoints.forget(connection, [identifier])
    connection.execute(
        _touch(identifier)
        .where(experiments.c.status == Status.RUNNING, experiments.c.cancel_requested_at.is_(None))
        .values(cancel_requested_at=now())
    )
    return get(connection, identifier), before.status in ACTIVE


#: Why what did not fail is not tried again, and what to do instead.
_NOT_AGAIN = {
    Status.SUCCEEDED: "The experiment succeeded, and what it measured stays; to train it once more, submit its spec "
    "as a new experiment.",
    Status.RUNNING: "The experiment is running; cancel it first, then it can be tried again.",
    Status.QUEUED: "The experiment waits for a worker already; there is nothing to try again.",
}


def retry(connection: Connection, identifier: str, maximum_attempts: int) -> Record:
    """Queue again what failed or was cancelled.

    Raises:
        ExperimentNotFound, ExperimentNotEnded
        RunNotTrainedHere: it is a loop that reported.
    """
    record = get(connection, identifier)
    if record.source is not None:
        raise RunNotTrainedHere
    ended = record.status
    changed = connection.execute(
        _touch(identifier)
        .where(experiments.c.status == ended, experiments.c.status.in_(may_become(Status.QUEUED) - {Status.RUNNING}))
        .values(
            status=Status.QUEUED,
            iteration=0,
            maximum_attempts=experiments.c.attempt + maximum_attempts,
            message_sent_at=None,
            cancel_requested_at=None,
            lease_owner=None,
            lease_until=None,
            started_at=None,
            finished_at=None,
            result=None,
            error=None,
            verdict=None,
            summary=None,
            object=None,
        )
    )
    if changed.rowcount == 0:
        raise ExperimentNotEnded(_NOT_AGAIN.get(ended))
    tallies.add(connection, Counter({ended: 1}))
    connection.execute(delete(blocks).where(blocks.c.experiment_id == identifier))
    objects.condemn(connection, [identifier])
    checkpoints.forget(connection, [identifier])
    return get(connection, identifier)


def remove(connection: Connection, identifier: str) -> None:
    """Delete an experiment with all it measured; raises ExperimentNotFound, ExperimentRunning."""
    get(connection, identifier)
    if not tallies.delete_experiments(
        connection, experiments.c.id == identifier, experiments.c.status != Status.RUNNING
    ):
        get(connection, identifier)
        raise ExperimentRunning


def mark_sent(connection: Connection, *identifiers: str) -> None:
    """Note that a message for each of these experiments is under way."""
    connection.execute(update(experiments).where(experiments.c.id.in_(identifiers)).values(message_sent_at=now()))


def waiting(connection: Connection, resend_seconds: float, limit: int = 1000) -> list[Record]:
    """Queued ones without a message, or whose message is older than `resend_seconds`; most urgent first."""
    sent = experiments.c.message_sent_at
    rows = connection.execute(
        _RECORDS.where(experiments.c.status == Status.QUEUED, or_(sent.is_(None), sent < now() - resend_seconds))
        .order_by(experiments.c.priority.desc(), experiments.c.id)
        .limit(limit)
    ).all()
    return [Record.from_row(row, {}) for row in rows]


def _not_found(identifier: str) -> ExperimentNotFound:
    return ExperimentNotFound(f"There is no experiment {identifier!r}; GET /experiments lists those there are.")


def _touch(identifier: str) -> Any:
    return update(experiments).where(experiments.c.id == identifier).values(row_version=experiments.c.row_version + 1)


def write_tags(connection: Connection, identifier: str, given: Mapping[str, str]) -> None:
    """Tag an experiment that has none yet."""
    if given:
        rows = [{"experiment_id": identifier, "key": key, "value": value} for key, value in given.items()]
        connection.execute(insert(tags), rows)


def _with_tags(connection: Connection, rows: Sequence[Row[Any]]) -> list[Record]:
    found: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    if found:
        wanted = select(tags.c.experiment_id, tags.c.key, tags.c.value).where(
            one_of(connection, tags.c.experiment_id, found)
        )
        for identifier, key, value in connection.execute(wanted.order_by(tags.c.key)).all():
            found[identifier][key] = value
    return [Record.from_row(row, found[row.id]) for row in rows]
