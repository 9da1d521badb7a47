"""Experiments as workers see them: claim, renew, finish, give back, and what becomes of a lost worker's.

A claim raises the attempt's number, and every later write names it: a worker that was paused for longer than its lease
finds another attempt there, gets `LeaseLost`, and can't harm it. All times are the database's.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select, update

from gradprobe.errors import CorruptBlock, LeaseLost
from gradprobe.state import Status, may_become
from gradprobe.store import checkpoints, series, tallies
from gradprobe.store.experiments import Record, get
from gradprobe.store.tables import experiments, now

WORKER_LOST = {
    "code": "WORKER_LOST",
    "message": "Every worker that took this experiment was lost before it ended (killed, out of memory, or cut off); "
    "see the worker's log, then POST …/retry.",
}


RUN_LOST = {
    "code": "RUN_LOST",
    "message": "The loop stopped reporting before it ended: its process is gone, or can't reach this server. "
    "What it reported is kept, and it goes on where it left off should it report again.",
}


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to one experiment, until it runs out."""

    experiment_id: str
    attempt: int
    seconds: float


def claim(connection: Connection, identifier: str, owner: str, seconds: float) -> tuple[Record, Lease] | None:
    """Take the experiment if it waits or its worker was lost; None when there is nothing to take.

    It goes on from the newest checkpoint, at the iteration in the record: what an earlier attempt measured later is
    removed. Without one it begins at 0.
    """
    free = or_(
        experiments.c.status == Status.QUEUED,
        and_(experiments.c.status == Status.RUNNING, experiments.c.lease_until < now()),
    )
    claimed = connection.execute(
        update(experiments)
        .where(
            experiments.c.id == identifier,
            experiments.c.source.is_(None),
            free,
            experiments.c.attempt < experiments.c.maximum_attempts,
        )
        .values(
            status=Status.RUNNING,
            attempt=experiments.c.attempt + 1,
            row_version=experiments.c.row_version + 1,
            lease_owner=owner,
            lease_until=now() + seconds,
            started_at=now(),
            iteration=func.coalesce(checkpoints.iteration_to_go_on_from(), 0),
        )
        .returning(experiments.c.attempt, experiments.c.iteration)
    ).one_or_none()
    if claimed is None:
        return None
    lease = Lease(identifier, claimed.attempt, seconds)
    if claimed.iteration == 0:
        checkpoints.forget(connection, [identifier])
        series.remove(connection, identifier)
        return get(connection, identifier), lease
    try:
        series.cut(connection, identifier, claimed.iteration)
    except CorruptBlock:
        begin_anew(connection, lease)
    return get(connection, identifier), lease


def waiting_like(connection: Connection, identifier: str, most: int) -> list[str]:
    """The next so many that wait and can train beside this one: of its shape, queue and priority, oldest first.

    They are locked, and those that another worker is about to claim left out: two that wait for each other's would wait
    for ever.
    """
    this = select(experiments.c.stack_key, experiments.c.queue, experiments.c.priority)
    shape = connection.execute(this.where(experiments.c.id == identifier)).one_or_none()
    if shape is None or shape.stack_key is None:
        return []
    alike = and_(experiments.c.stack_key == shape.stack_key, experiments.c.status == Status.QUEUED)
    where = and_(alike, experiments.c.queue == shape.queue, experiments.c.priority == shape.priority)
    oldest = select(experiments.c.id).where(where).order_by(experiments.c.id).limit(most)
    return list(connection.scalars(oldest.with_for_update(skip_locked=True)))


def can_stack(connection: Connection, identifier: str) -> bool:
    """Whether it may train beside others: it has not begun by itself."""
    return connection.scalar(select(experiments.c.stack_key).where(experiments.c.id == identifier)) is not None


def train_alone(connection: Connection, lease: Lease) -> None:
    """From now on it trains by itself, as the numbers that it has so far were computed; raises LeaseLost."""
    _require(connection.execute(_held(lease).values(stack_key=None)).rowcount)


def begin_anew(connection: Connection, lease: Lease) -> None:
    """Drop the checkpoint, which can't be used, and all that was measured; raises LeaseLost."""
    values = {"iteration": 0, "row_version": experiments.c.row_version + 1}
    _require(connection.execute(_held(lease).values(values)).rowcount)
    checkpoints.forget(connection, [lease.experiment_id])
    series.remove(connection, lease.experiment_id)


def renew(connection: Connection, lease: Lease, iteration: int | None = None) -> bool:
    """Hold the lease for its whole length again and note progress; returns whether cancelling was asked for.

    Raises:
        LeaseLost: when another attempt has it or the experiment ended.
    """
    values: dict[str, Any] = {"lease_until": now() + lease.seconds}
    if iteration is not None:
        values |= {"iteration": iteration, "row_version": experiments.c.row_version + 1}
    renewed = connection.execute(_held(lease).values(values).returning(experiments.c.cancel_requested_at)).one_or_none()
    if renewed is None:
        raise LeaseLost
    return renewed.cancel_requested_at is not None


def save(connection: Connection, lease: Lease, iteration: int, state: bytes, attempts: int) -> None:
    """Keep a checkpoint: a next attempt goes on from here, and may again lose `attempts` workers.

    Call it in the transaction that renewed the lease and stored what was measured before `iteration`. The lease counts
    from the end of it: a large one takes longer to write than a lease lasts.
    """
    checkpoints.save(connection, lease.experiment_id, lease.attempt, iteration, state)
    values = {"maximum_attempts": lease.attempt + attempts, "lease_until": now() + lease.seconds}
    connection.execute(_held(lease).values(values))


def note_provenance(connection: Connection, lease: Lease, provenance: Mapping[str, Any]) -> None:
    """Store what is needed to get the same numbers again; raises LeaseLost."""
    values = {"provenance": json.dumps(provenance), "row_version": experiments.c.row_version + 1}
    _require(connection.execute(_held(lease).values(values)).rowcount)


def note_summary(connection: Connection, lease: Lease, summary: Mapping[str, Any]) -> None:
    """Store what the diagnosis came to in a few numbers, in the transaction that ends it; raises LeaseLost."""
    _require(connection.execute(_held(lease).values(summary=json.dumps(summary))).rowcount)


def finish(
    connection: Connection,
    lease: Lease,
    status: Status,
    *,
    result: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
    verdict: str | None = None,
) -> None:
    """End the experiment; raises LeaseLost, so that an ended state is never overwritten."""
    if Status.RUNNING not in may_become(status) or not status.ended:
        raise ValueError(f"an experiment can't end as {status}")
    values = {
        "status": status,
        "finished_at": now(),
        "lease_until": None,
        "row_version": experiments.c.row_version + 1,
        "result": None if result is None else json.dumps(result),
        "error": None if error is None else json.dumps(error),
        "verdict": verdict,
    }
    _require(connection.execute(_held(lease).values(values)).rowcount)
    checkpoints.forget(connection, [lease.experiment_id])


def give_back(connection: Connection, lease: Lease) -> None:
    """Queue the experiment again without counting the attempt, for a worker that stops in an orderly way.

    Cancelled instead where that was asked meanwhile. Raises LeaseLost.
    """
    values = {
        "status": Status.QUEUED,
        "lease_until": None,
        "message_sent_at": None,
        "maximum_attempts": experiments.c.maximum_attempts + 1,
        "row_version": experiments.c.row_version + 1,
    }
    not_cancelled = _held(lease).where(experiments.c.cancel_requested_at.is_(None))
    if connection.execute(not_cancelled.values(values)).rowcount == 0:
        finish(connection, lease, Status.CANCELLED)


def recover(connection: Connection) -> dict[str, Status]:
    """Move on every experiment whose lease ran out: queued again, cancelled if that was asked, or failed for good.

    Returns the new state of each. Ended states are never touched, and a row that someone is writing to is left for the
    next round: its worker lives, and may be long in writing a large checkpoint.
    """
    expired = and_(experiments.c.status == Status.RUNNING, experiments.c.lease_until < now())
    lost = experiments.c.id.in_(select(experiments.c.id).where(expired).with_for_update(skip_locked=True))
    asked = experiments.c.cancel_requested_at.is_not(None)
    used_up = experiments.c.attempt >= experiments.c.maximum_attempts
    ended = {"finished_at": now(), "lease_until": None}
    watched = experiments.c.source.is_not(None)
    moves: list[tuple[Any, dict[str, Any]]] = [
        (and_(watched, ~asked), {"status": Status.FAILED, "error": json.dumps(RUN_LOST), **ended}),
        (asked, {"status": Status.CANCELLED, **ended}),
        (used_up, {"status": Status.FAILED, "error": json.dumps(WORKER_LOST), **ended}),
        (~used_up, {"status": Status.QUEUED, "lease_until": None, "message_sent_at": None}),
    ]
    moved: dict[str, Status] = {}
    for condition, values in moves:
        rows = connection.execute(
            update(experiments)
            .where(lost, condition)
            .values(row_version=experiments.c.row_version + 1, **values)
            .returning(experiments.c.id)
        ).scalars()
        moved |= dict.fromkeys(rows, values["status"])
    checkpoints.forget(connection, [identifier for identifier, status in moved.items() if status.ended])
    tallies.add(connection, +Counter({tallies.EXPIRED_LEASES: len(moved)}))
    return moved


def owner_of(connection: Connection, identifier: str) -> str | None:
    """The name of the worker that holds or last held the lease."""
    return connection.scalar(select(experiments.c.lease_owner).where(experiments.c.id == identifier))


def _held(lease: Lease) -> Any:
    return update(experiments).where(
        experiments.c.id == lease.experiment_id,
        experiments.c.attempt == lease.attempt,
        experiments.c.status == Status.RUNNING,
    )


def _require(rows: int) -> None:
    if rows != 1:
        raise LeaseLost
