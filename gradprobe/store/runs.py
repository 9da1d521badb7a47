"""Loops that are not ours: a row like an experiment's that no worker claims, and what they report into it.

A run holds a lease as a worker does, renewed by each report: one that falls silent is lost after a time, and found
again by its next report.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.errors import NotARun, RunEnded, StepsMissing
from gradprobe.state import Status
from gradprobe.statistics import Tensor
from gradprobe.store import experiments as rows
from gradprobe.store import names, tallies
from gradprobe.store.experiments import Record
from gradprobe.store.leases import RUN_LOST
from gradprobe.store.tables import experiments, now
from gradprobe.store.tails import Tail
from gradprobe.subject import WatchedSpec

WATCHED = "watched"


def create(
    connection: Connection, spec: WatchedSpec, seconds: float, identifier: str, request_id: str, owner: str | None
) -> Record:
    """Store a new run, under way; it may be silent for so many seconds."""
    values = _columns(spec) | {
        "id": identifier,
        "source": WATCHED,
        "status": Status.RUNNING,
        "request_id": request_id,
        "owner": owner,
        "created_at": now(),
        "started_at": now(),
        "lease_until": now() + seconds,
    }
    connection.execute(insert(experiments).values(values))
    names.write(connection, [identifier])
    rows.write_tags(connection, identifier, spec.tags)
    return rows.get(connection, identifier)


def locked(connection: Connection, identifier: str) -> Record:
    """The run, which nobody else changes until this transaction ends.

    Raises:
        ExperimentNotFound
        NotARun: it is an experiment.
    """
    connection.execute(select(experiments.c.id).where(experiments.c.id == identifier).with_for_update())
    record = rows.get(connection, identifier)
    if record.source != WATCHED:
        raise NotARun
    return record


def report(
    connection: Connection,
    record: Record,
    span: tuple[int, int],
    blocks: tuple[Mapping[Tensor, StatisticsBlock], Mapping[Tensor, CountsBlock]],
    seconds: float,
) -> None:
    """Store what a run measured of the steps start ≤ t < stop, as far as it is not stored yet, and renew its lease.

    Raises:
        RunEnded: it has ended otherwise than by its silence.
        StepsMissing: there is a gap before `start`.
    """
    start, stop = span
    known = record.iteration
    if start > known:
        raise StepsMissing(f"The report begins at step {start}; the next one expected is {known}.")
    if record.status.ended and (record.error or {}).get("code") != RUN_LOST["code"]:
        if stop <= known:
            return  # sent again after its answer was lost
        raise RunEnded
    if record.status.ended:  # by its silence: it ends once more, and is counted then
        tallies.add(connection, Counter({record.status: 1}))
    if stop > known:
        _store(connection, record.id, known, stop, blocks)
    values: dict[str, Any] = {
        "status": Status.RUNNING,
        "error": None,
        "finished_at": None,
        "iteration": max(stop, known),
        "iterations": max(stop, record.iterations),
        "lease_until": now() + seconds,
        "row_version": experiments.c.row_version + 1,
    }
    connection.execute(update(experiments).where(experiments.c.id == record.id).values(values))
    asked = experiments.c.cancel_requested_at.is_not(None)
    connection.execute(
        update(experiments)
        .where(experiments.c.id == record.id, asked)
        .values(status=Status.CANCELLED, finished_at=now(), lease_until=None)
    )


def _store(
    connection: Connection,
    identifier: str,
    known: int,
    stop: int,
    blocks: tuple[Mapping[Tensor, StatisticsBlock], Mapping[Tensor, CountsBlock]],
) -> None:
    statistics, counts = blocks
    for tensor in dict.fromkeys([*statistics, *counts]):
        tail = Tail.resumed(connection, identifier, tensor, known)
        measured, counted = statistics.get(tensor), counts.get(tensor)
        tail.grow(
            measured.between(known, stop) if measured is not None else None,
            counted.between(known, stop) if counted is not None else None,
        )
        tail.write(connection, identifier, tensor)


def end(
    connection: Connection,
    record: Record,
    status: Status,
    error: Mapping[str, str] | None,
    judged: Mapping[str, Any],
) -> Record:
    """End it; what has ended stays as it is, but for one that was lost and is found to have ended.

    `judged`: its verdict and summary, where there are any.
    """
    lost = (record.error or {}).get("code") == RUN_LOST["code"]
    if not record.status.ended or lost:
        values: dict[str, Any] = {
            "status": status,
            "finished_at": now(),
            "lease_until": None,
            "error": json.dumps(error) if error is not None else None,
            "verdict": judged.get("verdict"),
            "summary": json.dumps(judged["summary"]) if "summary" in judged else None,
            "iterations": max(1, record.iteration),
            "row_version": experiments.c.row_version + 1,
        }
        connection.execute(update(experiments).where(experiments.c.id == record.id).values(values))
    return rows.get(connection, record.id)


def _columns(spec: WatchedSpec) -> dict[str, Any]:
    """What `create` writes of an experiment, of a loop that reports: one attempt, its own."""
    return rows.described(spec) | {
        "iteration": 0,
        "iterations": spec.training.iterations or 1,
        "queue": "none",
        "priority": 0,
        "attempt": 1,
        "maximum_attempts": 1,
    }
