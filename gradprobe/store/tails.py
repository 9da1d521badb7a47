"""The part of a series that is still growing, written again with what comes next until it is large enough."""

from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import Connection

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.statistics import Tensor
from gradprobe.store import series
from gradprobe.store.series import BlockRow

#: A tail of fewer steps than this is kept and written again with what comes next, so that a slow run does not end as
#: thousands of tiny blocks. It is what a drain can bring at most, so that a fast run writes each step once: with four
#: times as many, PostgreSQL held 2.5 times the bytes of what was in it until it had cleared the replaced tails away.
SEALED_STEPS = 256
#: The same for a coarser level, in buckets; fewer, because a bucket is several numbers and the open one is written at
#: every flush.
SEALED_BUCKETS = 64
#: A level whose buckets would hold fewer steps than this is not worth its room: reading what was measured is as fast.
_WORTHWHILE_STEPS = 4


@dataclass(slots=True)
class LevelTail:
    """The part of a coarser level that is still growing: full buckets, and the steps of the one that is open.

    The open bucket is computed from its steps each time, so that its numbers do not depend on when it was flushed.
    """

    level: int
    full: LevelBlock | None = None
    open: StatisticsBlock | None = None

    def grow(self, measured: StatisticsBlock) -> None:
        """Append what was measured next."""
        width = WIDTHS[self.level]
        steps = StatisticsBlock.join([self.open, measured]) if self.open else measured
        boundary, beyond = int(steps.steps[-1]) // width * width, int(steps.steps[-1]) + 1
        done = steps.between(0, boundary)
        if len(done.steps):
            buckets = LevelBlock.of(done).merged(width)
            self.full = LevelBlock.join([self.full, buckets]) if self.full else buckets
        self.open = steps.between(boundary, beyond)

    def rows(self) -> list[LevelBlock]:
        """What is to be stored: one run of buckets, or two where the first is complete."""
        parts = [self.full] if self.full else []
        if self.open is not None:
            parts.append(LevelBlock.of(self.open).merged(WIDTHS[self.level]))
        return parts if self.sealed or not parts else [LevelBlock.join(parts)]

    @property
    def sealed(self) -> bool:
        """Whether the open bucket begins a new run."""
        return self.full is not None and len(self.full.starts) >= SEALED_BUCKETS


@dataclass(slots=True)
class Tail:
    """The part of a series that is still growing, as measured and on each coarser level."""

    statistics: StatisticsBlock | None = None
    counts: CountsBlock | None = None
    last_step: int = 0
    levels: list[LevelTail] = field(default_factory=lambda: [LevelTail(level) for level in WIDTHS])
    #: The first two recorded steps, as far as known: how far apart they are decides which levels are worthwhile.
    _beginning: list[int] = field(default_factory=list)

    @classmethod
    def resumed(cls, connection: Connection, experiment_id: str, tensor: Tensor, iteration: int) -> Self:
        """As it was when everything before `iteration` was stored and nothing after; raises CorruptBlock."""
        tail = cls()
        statistics, counts = series.last_block(connection, experiment_id, tensor)
        found = [block for block in (statistics, counts) if block is not None]
        tail.last_step = max((int(block.steps[-1]) for block in found), default=0)
        if max((len(block.steps) for block in found), default=SEALED_STEPS) < SEALED_STEPS:
            tail.statistics, tail.counts = statistics, counts
        tail._choose_levels(series.first_steps(connection, experiment_id, tensor, 2))
        for level in tail.levels:
            boundary = iteration // WIDTHS[level.level] * WIDTHS[level.level]
            measured = series.read_statistics(connection, experiment_id, tensor, boundary, iteration)
            level.open = measured if measured is not None and len(measured.steps) else None
        return tail

    def grow(self, statistics: StatisticsBlock | None, counts: CountsBlock | None) -> None:
        """Append what was measured next."""
        if statistics is not None and len(statistics.steps):
            self.statistics = StatisticsBlock.join([self.statistics, statistics]) if self.statistics else statistics
            self.last_step = max(self.last_step, int(statistics.steps[-1]))
            self._choose_levels(statistics.steps[:2].tolist())
            for level in self.levels:
                level.grow(statistics)
        if counts is not None and len(counts.steps):
            self.counts = CountsBlock.join([self.counts, counts]) if self.counts else counts
            self.last_step = max(self.last_step, int(counts.steps[-1]))

    def rows(self, experiment_id: str, tensor: Tensor) -> list[BlockRow]:
        """All of it as it is to be stored, in place of what was stored of it before."""
        row = series.row_of(experiment_id, tensor, self.statistics, self.counts)
        found = [row] if row is not None else []
        if len(self._beginning) == 2:
            found += [
                series.row_of_level(experiment_id, tensor, tail.level, block, self.last_step)
                for tail in self.levels
                for block in tail.rows()
            ]
        return found

    def write(self, connection: Connection, experiment_id: str, tensor: Tensor) -> None:
        """Store all of it."""
        series.replace(connection, self.rows(experiment_id, tensor))

    def drop_sealed(self) -> None:
        """Forget what is stored for good."""
        steps = self.statistics.steps if self.statistics else ()
        if max(len(steps), len(self.counts.steps) if self.counts else 0) >= SEALED_STEPS:
            self.statistics = self.counts = None
        for tail in self.levels:
            if tail.sealed:
                tail.full = None

    def _choose_levels(self, steps: list[int]) -> None:
        if len(self._beginning) == 2:
            return
        self._beginning = [*self._beginning, *steps][:2]
        if len(self._beginning) == 2:
            distance = self._beginning[1] - self._beginning[0]
            self.levels = [tail for tail in self.levels if WIDTHS[tail.level] >= _WORTHWHILE_STEPS * distance]
