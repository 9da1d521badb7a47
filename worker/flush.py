"""From chunks to the database: one transaction each, fenced by the lease."""

from dataclasses import dataclass, field

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.errors import ExperimentCancelled
from gradprobe.statistics import Tensor
from gradprobe.store import leases, series
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease
from worker.loop import Chunk

#: A tail of fewer steps than this is kept and written again with what comes next, so that a slow run does not end as
#: thousands of tiny blocks.
SEALED_STEPS = 1024


@dataclass(slots=True)
class Tail:
    """The part of a series that is still growing."""

    statistics: StatisticsBlock | None = None
    counts: CountsBlock | None = None

    def grow(self, statistics: StatisticsBlock | None, counts: CountsBlock | None) -> None:
        """Append what was measured next."""
        if statistics is not None and len(statistics.steps):
            self.statistics = StatisticsBlock.join([self.statistics, statistics]) if self.statistics else statistics
        if counts is not None:
            self.counts = CountsBlock.join([self.counts, counts]) if self.counts else counts

    @property
    def sealed(self) -> bool:
        """Whether the next steps begin a new block."""
        steps = self.statistics.steps if self.statistics else ()
        return max(len(steps), len(self.counts.steps) if self.counts else 0) >= SEALED_STEPS


@dataclass(slots=True)
class Flusher:
    """One attempt's way to the store: statistics, counts, progress and lease in one transaction."""

    database: Database
    lease: Lease
    tails: dict[Tensor, Tail] = field(default_factory=dict)

    def grow(self, chunk: Chunk) -> None:
        """Take a chunk; it is stored by the next `write`."""
        measured: list[tuple[Tensor, StatisticsBlock]] = [
            *chunk.measured.statistics.items(),
            ("metrics", chunk.metrics),
            ("evaluation", chunk.evaluations),
        ]
        for tensor, block in measured:
            self.tails.setdefault(tensor, Tail()).grow(block, None)
        for counted, counts in chunk.measured.counts.items():
            self.tails.setdefault(counted, Tail()).grow(None, counts)

    def write(self, iteration: int) -> None:
        """Store everything taken since the last write.

        Raises:
            LeaseLost: another attempt took over; nothing was written.
            ExperimentCancelled: after writing, when cancelling was asked for.
            DatabaseUnavailable: nothing was written; try again.
        """
        with self.database.write() as connection:
            cancelled = leases.renew(connection, self.lease, iteration)
            for tensor, tail in self.tails.items():
                series.write(connection, self.lease.experiment_id, tensor, tail.statistics, tail.counts)
        self.tails = {tensor: tail for tensor, tail in self.tails.items() if not tail.sealed}
        if cancelled:
            raise ExperimentCancelled
