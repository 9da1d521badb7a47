"""Times that a busy machine can't bend: the subjects take turns, and ratios are taken within a round.

A figure measured in one go tells as much about what else ran at that moment as about the subject. So every subject is
measured once a round, in an order that rotates; a ratio compares two times of the same round, and the median over the
rounds counts. The smallest times are shown beside it: what disturbs can only add.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Wall time and this process's time on the processors, in seconds from some beginning."""
    return time.perf_counter(), time.process_time()


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of one unit of work, an iteration or a request."""

    wall: float
    processor: float

    @classmethod
    def between(cls, began: Clocks, ended: Clocks, units: int) -> Self:
        """The mean of `units` units."""
        return cls((ended[0] - began[0]) / units, (ended[1] - began[1]) / units)


@dataclass(frozen=True, slots=True)
class Times:
    """One subject's times, one a round."""

    rounds: Sequence[Timed]

    @property
    def wall(self) -> float:
        """The median."""
        return median(timed.wall for timed in self.rounds)

    @property
    def least(self) -> float:
        """The smallest."""
        return min(timed.wall for timed in self.rounds)

    @property
    def processor(self) -> float:
        """The median of the processor's time."""
        return median(timed.processor for timed in self.rounds)

    def over(self, base: "Times") -> float:
        """The median over the rounds of this one's time divided by the base's time in the same round."""
        return median(mine.wall / theirs.wall for mine, theirs in zip(self.rounds, base.rounds, strict=True))

    def processor_over(self, base: "Times") -> float:
        """The same of the processor's time, which does not count waiting for a processor that others use."""
        pairs = zip(self.rounds, base.rounds, strict=True)
        return median(mine.processor / theirs.processor for mine, theirs in pairs)


def in_rounds(subjects: Mapping[str, Callable[[], Timed]], rounds: int) -> dict[str, Times]:
    """Measure every subject once a round; each round begins with the next one."""
    found: dict[str, list[Timed]] = {name: [] for name in subjects}
    order = list(subjects)
    for _ in range(rounds):
        for name in order:
            gc.collect()
            found[name].append(subjects[name]())
        order = [*order[1:], order[0]]
    return {name: Times(timed) for name, timed in found.items()}


def repeatedly(action: Callable[[], object], repetitions: int) -> Times:
    """One action again and again, after once that does not count."""
    action()
    rounds = []
    for _ in range(repetitions):
        began = clocks()
        action()
        rounds.append(Timed.between(began, clocks(), 1))
    return Times(rounds)


def once(action: Callable[[], object]) -> float:
    """Wall seconds of what is too long to repeat."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
