"""The training loop of a stack, on one screen: members train side by side, and each leaves when it is done."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from gradprobe.errors import WorkerStopping
from worker.checkpoint import Calendar
from worker.loop import Chunk, Outcome, Pace
from worker.stack.device.data import DeviceData
from worker.stack.device.stack import DeviceStack
from worker.stack.images import Data
from worker.stack.lane import Lane
from worker.stack.stack import Stack

#: Storing may take this share of the time: where many are stored, it is done less often.
_SHARE: Final = 0.1


class Company(Protocol):
    """Who the members are to everybody else: where their measurements go, and what is asked of them meanwhile."""

    def keep_going(self) -> None:
        """Called before every iteration; may raise to stop, WorkerStopping after a last checkpoint."""
        ...

    def leaving(self) -> Collection[str]:
        """The members that are to train no further; called before every iteration."""
        ...

    def take(self, chunks: Mapping[str, Chunk]) -> None:
        """Keep what was measured of these members; it need not be stored yet."""
        ...

    def store(self, chunks: Mapping[str, Chunk]) -> None:
        """Take what was measured of these members, and store it with all that was taken before."""
        ...

    def left(self, identifier: str) -> None:
        """A member trains no further, as it was to, and all that was measured was stored."""
        ...

    def ended(self, identifier: str, outcome: Outcome) -> None:
        """A member has done its last iteration, and all that was measured was stored."""
        ...


def train_stack(lanes: Sequence[Lane], data: Data | DeviceData, company: Company, pace: Pace) -> None:
    """Train members of one shape until each has ended or left, on the device of their data.

    Where some go, the others go on in a smaller stack. On the CPU a member's numbers do not depend on its company.

    Raises:
        Unrepeatable: when a step's tensors are too large to be kept.
    """
    remaining, calendar, first = list(lanes), Calendar(pace.checkpoint_seconds), pace.first_flush_seconds
    while remaining:
        stack = _stack(remaining, data, pace.memory_mebibytes)
        gone = _train(stack, company, pace, calendar, first)
        staying = [member for member, row in enumerate(stack.rows) if row.lane.identifier not in gone]
        remaining = [stack.lane(member) for member in staying]
        first = pace.flush_seconds


def _stack(lanes: Sequence[Lane], data: Data | DeviceData, memory_mebibytes: int) -> Stack | DeviceStack:
    if isinstance(data, DeviceData):
        return DeviceStack(lanes, data, memory_mebibytes)
    return Stack(lanes, data, memory_mebibytes)


def _train(
    stack: Stack | DeviceStack, company: Company, pace: Pace, calendar: Calendar, first_flush: float
) -> Collection[str]:
    """Until members leave or end; their names."""
    names = [row.lane.identifier for row in stack.rows]
    everybody = range(len(names))

    def flush(saving: bool) -> float:
        stack.settle()
        began = time.perf_counter()
        company.store(dict(zip(names, stack.drain(everybody if saving else ()), strict=True)))
        took = time.perf_counter() - began
        if saving:
            calendar.saved(took)
        return took

    flush_at = time.perf_counter() + first_flush
    for _ in range(stack.remaining):
        leaving = set(company.leaving()).intersection(names)
        if leaving:
            flush(saving=False)
            for name in leaving:
                company.left(name)
            return leaving
        try:
            company.keep_going()
        except WorkerStopping:
            flush(saving=True)
            raise
        stack.step()
        if time.perf_counter() > flush_at:
            took = flush(calendar.due)
            flush_at = time.perf_counter() + max(pace.flush_seconds, took / _SHARE)
        elif stack.full:
            company.take(dict(zip(names, stack.drain(), strict=True)))
    return _end(stack, company)


def _end(stack: Stack | DeviceStack, company: Company) -> Collection[str]:
    ended = [member for member, row in enumerate(stack.rows) if stack.done(member)]
    tests = stack.evaluate(ended)
    names = [row.lane.identifier for row in stack.rows]
    company.store(dict(zip(names, stack.drain(), strict=True)))
    for member, test, trained in zip(ended, tests, stack.evaluate_training_set(ended), strict=True):
        seconds = stack.position(member).seconds
        company.ended(names[member], Outcome(stack.rows[member].losses.mean, test, trained, seconds))
    return {names[member] for member in ended}
