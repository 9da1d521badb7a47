"""A sweep's members side by side, against as many plain loops one after another: microseconds of one member's step."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import torch

from benchmarks.results import Goal, Row, Table
from benchmarks.timing import Clocks, Timed, Times, clocks, in_rounds
from benchmarks.training import (
    NEVER,
    dataset,
    lasting,
    new_database,
    new_lease,
    plain_network,
    plain_step,
    recorded,
    timed,
)
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store import series
from worker.flush import Flusher
from worker.loop import Chunk, Outcome, Pace
from worker.stack.device.data import DeviceData
from worker.stack.images import Data, data_of
from worker.stack.lane import fresh
from worker.stack.training import train_stack

PLAIN = "plain loop, one after another"
FASTER = "times faster"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long, with how many, and on what."""

    rounds: int = 9
    seconds: float = 2.0
    members: tuple[int, ...] = (64, 32, 16, 8, 4, 2)
    dataset: str = "mnist"
    pace: Pace = field(default_factory=lambda: Pace(memory_mebibytes=512))


QUICK = Effort(1, 0.01, (4,), "synthetic", Pace(0.05, 0.02))


def measure(effort: Effort) -> list[Table]:
    """The classic net: the largest stack in every form of recording, then smaller ones."""
    device, most = torch.device("cpu"), effort.members[0]
    kinds: dict[str, tuple[Spec, bool, float | None]] = {
        "nothing recorded": (recorded(Spec(), NEVER, NEVER), False, None),
        "everything, every 10th step": (recorded(Spec(), 10, 10), False, 8.0),
        "the same, stored in SQLite": (recorded(Spec(), 10, 10), True, 8.0),
        "every step, histograms every 25th": (recorded(Spec(), 1, 25), False, 5.0),
        "everything, every step": (recorded(Spec(), 1, 1), False, 5.0),
        "everything, every step, stored in SQLite": (recorded(Spec(), 1, 1), True, 5.0),
    }

    def plain() -> Timed:
        spec = Spec()
        return timed(
            plain_step(plain_network(spec, device), spec, dataset(effort.dataset), device), effort.seconds, device
        )

    subjects = {PLAIN: plain} | {
        name: partial(stacked, spec, most, kept, effort) for name, (spec, kept, _) in kinds.items()
    }
    times = in_rounds(subjects, effort.rounds)
    goals = {name: [Goal(FASTER, "≥", goal)] for name, (_, _, goal) in kinds.items() if goal is not None}
    largest = Table(f"classic net, {most} members of their own seeds, one core", rows_of(times, goals))
    spec = recorded(Spec(), 10, 10)
    sizes = {PLAIN: plain} | {
        f"{members} members": partial(stacked, spec, members, False, effort) for members in effort.members
    }
    return [
        largest,
        Table("classic net, everything every 10th step, by members", rows_of(in_rounds(sizes, effort.rounds), {})),
    ]


def rows_of(times: Mapping[str, Times], goals: Mapping[str, list[Goal]]) -> list[Row]:
    base = times[PLAIN]
    return [
        Row(
            name,
            {
                "µs a member's step": found.wall * 1e6,
                FASTER: base.over(found),
                "of the least": base.least / found.least,
            },
            goals.get(name, ()),
        )
        for name, found in times.items()
    ]


class _Enough(Exception):
    """Ends a training that has been timed."""


class Store(Protocol):
    """What takes the chunks of a stack, and stores them where asked to."""

    def __call__(self, chunks: Mapping[str, Chunk], now: bool) -> None: ...


def _forget(chunks: Mapping[str, Chunk], now: bool) -> None:
    """Keeps nothing."""


@dataclass(slots=True)
class _Clock:
    """A company that notes when each flush ended, so that what is timed holds whole flushes."""

    seconds: float
    keep: Store
    marks: list[tuple[int, Clocks]] = field(default_factory=list)

    def keep_going(self) -> None:
        if len(self.marks) > 1 and self.marks[-1][1][0] - self.marks[0][1][0] >= self.seconds:
            raise _Enough

    def leaving(self) -> Collection[str]:
        return ()

    def take(self, chunks: Mapping[str, Chunk]) -> None:
        self.keep(chunks, now=False)

    def store(self, chunks: Mapping[str, Chunk]) -> None:
        self.keep(chunks, now=True)
        self.marks.append((next(iter(chunks.values())).iteration, clocks()))

    def left(self, identifier: str) -> None:
        raise AssertionError(identifier)

    def ended(self, identifier: str, outcome: Outcome) -> None:
        raise AssertionError(identifier)


def stacked(spec: Spec, members: int, kept: bool, effort: Effort, data: Data | DeviceData | None = None) -> Timed:
    """Time one member's step in a stack of so many, each with a seed of its own, where `data` are; None: on the CPU."""
    data = data or data_of(dataset(effort.dataset))
    specs = {str(seed): _seeded(lasting(spec, NEVER), seed) for seed in range(members)}
    with _stored(specs) if kept else _nowhere() as keep:
        clock = _Clock(effort.seconds, keep)
        try:
            train_stack([fresh(name, one, len(data)) for name, one in specs.items()], data, clock, effort.pace)
        except _Enough:
            (first, began), (last, ended) = clock.marks[0], clock.marks[-1]
            return Timed.between(began, ended, (last - first) * members)
    raise AssertionError("the training ended before it was timed")


def _seeded(spec: Spec, seed: int) -> Spec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"seed": seed})})


@contextmanager
def _nowhere() -> Iterator[Store]:
    yield _forget


@contextmanager
def _stored(specs: Mapping[str, Spec]) -> Iterator[Store]:
    """All members' chunks in one transaction of a SQLite database of its own, as the worker stores them."""
    with TemporaryDirectory(prefix="gradprobe-bench-") as directory:
        database = new_database(Settings(data_directory=Path(directory)))
        flushers = {name: Flusher(database, new_lease(database, spec)) for name, spec in specs.items()}

        def store(chunks: Mapping[str, Chunk], now: bool) -> None:
            for name, chunk in chunks.items():
                flushers[name].grow(chunk)
            if not now:
                return
            rows = [row for flusher in flushers.values() for row in flusher.rows()]
            with database.write() as connection:
                for name, chunk in chunks.items():
                    flushers[name].hold_in(connection, chunk.iteration, chunk.state)
                series.replace(connection, rows)
            for flusher in flushers.values():
                flusher.written()

        try:
            yield store
        finally:
            database.close()
