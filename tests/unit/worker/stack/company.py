"""Stacks for tests: who trains beside whom, stopped where and gone on with how."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradprobe.errors import WorkerStopping
from gradprobe.spec import Spec
from tests.numerics.replay import Recorded, small_dataset
from worker.checkpoint import Checkpoint
from worker.loop import Chunk, Outcome, Pace
from worker.stack.device.data import DeviceData, on_device
from worker.stack.images import Data, data_of
from worker.stack.lane import Lane, fresh, resumed
from worker.stack.training import train_stack

DATASET = small_dataset()
DATA = data_of(DATASET)
#: The same for the stack that GPUs have, on the CPU: its operations are torch's, and mean the same on any device.
ON_CPU = on_device(DATASET, torch.device("cpu"))
OFTEN = Pace(0.01, 0.01)


def at_no_step(_: int) -> Collection[str]:
    return ()


@dataclass
class Company:
    """Keeps what it is told; stops after so many steps, and lets members go where `leave` says."""

    stop_after: int | None = None
    leave: Callable[[int], Collection[str]] = at_no_step
    chunks: dict[str, list[Chunk]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    steps: int = 0

    def keep_going(self) -> None:
        if self.steps == self.stop_after:
            raise WorkerStopping
        self.steps += 1

    def leaving(self) -> Collection[str]:
        return self.leave(self.steps)

    def store(self, chunks: Mapping[str, Chunk]) -> None:
        self.take(chunks)

    def take(self, chunks: Mapping[str, Chunk]) -> None:
        for name, chunk in chunks.items():
            self.chunks.setdefault(name, []).append(chunk)

    def left(self, identifier: str) -> None:
        assert identifier not in self.outcomes

    def ended(self, identifier: str, outcome: Outcome) -> None:
        self.outcomes[identifier] = outcome

    def recorded(self, name: str) -> Recorded:
        outcome: Any = self.outcomes.get(name)
        return Recorded(outcome, self.chunks[name])

    def states(self) -> dict[str, bytes]:
        last = {name: chunks[-1].state for name, chunks in self.chunks.items()}
        return {name: state for name, state in last.items() if state is not None}


def lanes_of(specs: Mapping[str, Spec], states: Mapping[str, bytes] | None = None, device: str = "cpu") -> list[Lane]:
    size = len(DATA)
    return [
        resumed(name, spec, size, Checkpoint.read(states[name]), device) if states else fresh(name, spec, size)
        for name, spec in specs.items()
    ]


def together(specs: Mapping[str, Spec], pace: Pace = OFTEN, data: Data | DeviceData = DATA, **how: Any) -> Company:
    """Train them side by side, until they end or the worker is asked to stop."""
    company = Company(**how)
    try:
        train_stack(lanes_of(specs), data, company, pace)
    except WorkerStopping:
        assert company.stop_after is not None
    return company


def in_parts(
    specs: Mapping[str, Spec], stops: Sequence[int], split: bool = False, data: Data | DeviceData = DATA
) -> dict[str, Recorded]:
    """Stopped after so many steps each time; with `split` each goes on by itself after the last stop."""
    chunks: dict[str, list[Chunk]] = {name: [] for name in specs}
    outcomes: dict[str, Outcome] = {}
    states: dict[str, bytes] | None = None
    for stop in [*stops, None]:
        groups = [{name: spec} for name, spec in specs.items()] if split and stop is None else [dict(specs)]
        saved: dict[str, bytes] = {}
        for group in groups:
            company = Company(stop_after=stop)
            try:
                device = data.device.type if isinstance(data, DeviceData) else "cpu"
                train_stack(lanes_of(group, states, device), data, company, OFTEN)
            except WorkerStopping:
                assert stop is not None
            for name in group:
                chunks[name] += company.chunks[name]
            saved |= company.states()
            outcomes |= company.outcomes
        states = saved
    return {name: Recorded(outcomes[name], chunks[name]) for name in specs}
