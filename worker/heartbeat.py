"""Hold the lease from a thread of its own, so that a long step or a slow write does not look like death."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gradprobe import logs
from gradprobe.errors import DatabaseUnavailable, ExperimentCancelled, LeaseLost
from gradprobe.store import leases
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease

_logger = logging.getLogger(__name__)


class Heartbeat:
    """Renews a lease until stopped; learns whether it was lost or cancelling was asked for."""

    def __init__(self, database: Database, lease: Lease, interval_seconds: float) -> None:
        self._database = database
        self._lease = lease
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._verdict: type[LeaseLost | ExperimentCancelled] | None = None
        self._thread = logs.thread(self._run, "heartbeat")

    def check(self) -> None:
        """Raises LeaseLost or ExperimentCancelled once one is known; costs nothing otherwise."""
        if self._verdict is not None:
            raise self._verdict

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                with self._database.write() as connection:
                    cancelled = leases.renew(connection, self._lease)
            except LeaseLost:
                self._verdict = LeaseLost
                return
            except DatabaseUnavailable as error:
                _logger.warning("heartbeat of %s failed: %s", self._lease.experiment_id, error)
                continue
            except Exception:
                # A heartbeat that dies in silence would cost the lease: another round may go well.
                _logger.exception("heartbeat of %s failed", self._lease.experiment_id)
                continue
            if cancelled:
                self._verdict = ExperimentCancelled
                return

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._thread.join()


@contextmanager
def beating(database: Database, lease: Lease, interval_seconds: float) -> Iterator[Heartbeat]:
    """A heartbeat for as long as the block runs."""
    heartbeat = Heartbeat(database, lease, interval_seconds)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()
