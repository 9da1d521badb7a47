"""From chunks to the database: one transaction each, fenced by the lease."""

from dataclasses import dataclass, field

from sqlalchemy import Connection

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.errors import ExperimentCancelled
from gradprobe.statistics import Tensor
from gradprobe.store import leases, series
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease
from gradprobe.store.series import BlockRow
from gradprobe.store.tails import Tail
from worker.loop import Chunk


@dataclass(slots=True)
class Flusher:
    """One attempt's way to the store: statistics, counts, progress and lease in one transaction."""

    database: Database
    lease: Lease
    attempts: int = 3  # that may follow each checkpoint
    tails: dict[Tensor, Tail] = field(default_factory=dict)
    taken: list[Chunk] = field(default_factory=list)

    def resume(self, iteration: int) -> None:
        """Take up what is stored of the iterations before this one, and go on from there.

        Raises:
            CorruptBlock: a stored block is damaged.
        """
        identifier = self.lease.experiment_id
        with self.database.read() as connection:
            self.tails = {
                tensor: Tail.resumed(connection, identifier, tensor, iteration)
                for tensor in series.tensors(connection, identifier)
            }

    def grow(self, chunk: Chunk) -> None:
        """Take a chunk; it is stored by the next `write`."""
        self.taken.append(chunk)

    def _settle(self) -> None:
        """What was taken becomes part of the tails: all of it at once, because each time copies what is there."""
        statistics: dict[Tensor, list[StatisticsBlock]] = {}
        counts: dict[Tensor, list[CountsBlock]] = {}
        for chunk in self.taken:
            own: dict[Tensor, StatisticsBlock] = {"metrics": chunk.metrics, "evaluation": chunk.evaluations}
            for tensor, block in (chunk.measured.statistics | own).items():
                statistics.setdefault(tensor, []).append(block)
            for tensor, counted in chunk.measured.counts.items():
                counts.setdefault(tensor, []).append(counted)
        self.taken = []
        for tensor, blocks in statistics.items():
            self.tails.setdefault(tensor, Tail()).grow(StatisticsBlock.join(blocks), None)
        for tensor, histograms in counts.items():
            self.tails.setdefault(tensor, Tail()).grow(None, CountsBlock.join(histograms))

    def write(self, iteration: int, state: bytes | None = None) -> None:
        """Store everything taken since the last write, and the checkpoint where there is one.

        Raises:
            LeaseLost: another attempt took over; nothing was written.
            ExperimentCancelled: after writing, when cancelling was asked for.
            DatabaseUnavailable: nothing was written; try again.
        """
        with self.database.write() as connection:
            cancelled = self.write_in(connection, iteration, state)
        self.written()
        if cancelled:
            raise ExperimentCancelled

    def write_in(self, connection: Connection, iteration: int, state: bytes | None = None) -> bool:
        """The same in the caller's transaction; returns whether cancelling was asked for.

        After the transaction call `written`. Raises LeaseLost: nothing of this experiment was written.
        """
        cancelled = self.hold_in(connection, iteration, state)
        series.replace(connection, self.rows())
        return cancelled

    def hold_in(self, connection: Connection, iteration: int, state: bytes | None = None) -> bool:
        """`write_in` without the `rows`, which the caller stores in the same transaction with those of others."""
        cancelled = leases.renew(connection, self.lease, iteration)
        if state is not None:
            leases.save(connection, self.lease, iteration, state, self.attempts)
        return cancelled

    def rows(self) -> list[BlockRow]:
        """What is to be stored, encoded."""
        identifier = self.lease.experiment_id
        self._settle()
        return [row for tensor, tail in self.tails.items() for row in tail.rows(identifier, tensor)]

    def written(self) -> None:
        """Forget what is stored for good."""
        for tail in self.tails.values():
            tail.drop_sealed()
