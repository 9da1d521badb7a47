"""From chunks to the database: one transaction each, fenced by the lease."""

from dataclasses import dataclass, field

from sqlalchemy import Connection

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import ExperimentCancelled
from gradprobe.statistics import Tensor
from gradprobe.store import leases, series
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease
from gradprobe.store.tails import Tail
from worker.loop import Chunk


@dataclass(slots=True)
class Flusher:
    """One attempt's way to the store: statistics, counts, progress and lease in one transaction."""

    database: Database
    lease: Lease
    attempts: int = 3  # that may follow each checkpoint
    tails: dict[Tensor, Tail] = field(default_factory=dict)

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
        measured: list[tuple[Tensor, StatisticsBlock]] = [
            *chunk.measured.statistics.items(),
            ("metrics", chunk.metrics),
            ("evaluation", chunk.evaluations),
        ]
        for tensor, block in measured:
            self.tails.setdefault(tensor, Tail()).grow(block, None)
        for counted, counts in chunk.measured.counts.items():
            self.tails.setdefault(counted, Tail()).grow(None, counts)

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
        cancelled = leases.renew(connection, self.lease, iteration)
        for tensor, tail in self.tails.items():
            tail.write(connection, self.lease.experiment_id, tensor)
        if state is not None:
            leases.save(connection, self.lease, iteration, state, self.attempts)
        return cancelled

    def written(self) -> None:
        """Forget what is stored for good."""
        for tail in self.tails.values():
            tail.drop_sealed()
