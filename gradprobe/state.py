"""The states of an experiment and the moves between them, in one place."""

from enum import StrEnum


class Status(StrEnum):
    """Where an experiment is in its life."""

    #: Accepted and stored; waits for a worker.
    QUEUED = "queued"
    #: A worker holds its lease and trains.
    RUNNING = "running"
    #: Trained to the end. A run that diverged is a success of the service: its findings say so.
    SUCCEEDED = "succeeded"
    #: The service failed, not the network; `error` says how.
    FAILED = "failed"
    #: Stopped because someone asked.
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether no further move is possible but a retry on request."""
        return self in ENDED


ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
ACTIVE = frozenset({Status.QUEUED, Status.RUNNING})

#: from → to. `running → queued` is a worker that gave its lease back or lost it; `failed/cancelled → queued` is a
#: retry that a person asked for.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.CANCELLED, Status.FAILED}),
    Status.RUNNING: frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.QUEUED, Status.RUNNING}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
}


def may_become(target: Status) -> frozenset[Status]:
    """The states from which `target` can be entered."""
    return frozenset(source for source, targets in TRANSITIONS.items() if target in targets)
