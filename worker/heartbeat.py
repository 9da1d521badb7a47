"""Hold the lease from a thread of its own, so that a long step or a slow write does not look like death."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gradprobe import logs
from gradprobe.errors import DatabaseUnavailable, ExperimentCancelled, LeaseLost
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease, renew

_logger = logging.getLogger(__name__)


Verdict = type[LeaseLost | ExperimentCancelled]


class Heartbeat:
    """Renews leases until stopped; learns whether one was lost or its cancelling was asked for."""

    def __init__(self, database: Database, leases: Sequence[Lease], interval_seconds: float) -> None:
        self._database = database
        # In one order, in which whoever locks several rows takes them.
        self._leases = sorted(leases, key=lambda lease: lease.experiment_id)
        self._interval = interval_seconds
        self._stopped = threading.Event()
        #: By experiment, once there is one.
        self.verdicts: dict[str, Verdict] = {}
        self._thread = logs.thread(self._run, "heartbeat")

    def check(self) -> None:
        """Raises LeaseLost or ExperimentCancelled once one is known of any; costs nothing otherwise."""
        for verdict in self.verdicts.values():
            raise verdict

    def _run(self) -> None:
        while len(self.verdicts) < len(self._leases) and not self._stopped.wait(self._interval):
            try:
                self.verdicts |= self._renew()
            except DatabaseUnavailable as error:
                _logger.warning("heartbeat of %s failed: %s", self._names, error)
            except Exception:
                # A heartbeat that dies in silence would cost the lease: another round may go well.
                _logger.exception("heartbeat of %s failed", self._names)

    def _renew(self) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        with self._database.write() as connection:
            for lease in self._leases:
                if lease.experiment_id in self.verdicts:
                    continue
                try:
                    if renew(connection, lease):
                        found[lease.experiment_id] = ExperimentCancelled
                except LeaseLost:
                    found[lease.experiment_id] = LeaseLost
        return found

    @property
    def _names(self) -> str:
        return ", ".join(lease.experiment_id for lease in self._leases)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._thread.join()


@contextmanager
def beating(database: Database, leases: Sequence[Lease], interval_seconds: float) -> Iterator[Heartbeat]:
    """A heartbeat for as long as the block runs."""
    heartbeat = Heartbeat(database, leases, interval_seconds)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()
