"""Ring again for what waits without a message, take back what lost its worker, move trials of remedies on.

Runs beside every worker.

Several at once do no harm: a lost experiment is moved by one UPDATE, and a second ring for one experiment is dropped
by the claim. A queue that still holds messages is left alone, so that a long queue is not rung for over and over.
"""

import logging
import threading
from pathlib import Path
from typing import Final

from gradprobe.errors import DatabaseUnavailable, SchemaOutOfDate
from gradprobe.queue import QUEUES, Doorbell
from gradprobe.settings import Settings
from gradprobe.store import experiments, leases, names
from gradprobe.store.database import Database
from gradprobe.trial import stages

#: A round: that many take a tenth of a second.
_NAMES: Final = 1000

_logger = logging.getLogger(__name__)


class Reconciler:
    """A thread that puts database and broker in step every `reconcile_seconds`, from the process's start on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(settings.database, pool_size=2)
        self._doorbell = Doorbell(settings)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Begin, at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stopped.set()
        if self._thread.ident is not None:  # a worker may be stopped before it was ready
            self._thread.join()
        self._database.close()

    def _run(self) -> None:
        while True:
            try:
                self.once()
            except (DatabaseUnavailable, SchemaOutOfDate) as error:
                _logger.warning("reconciler: %s", error)
            except Exception:
                # A reconciler that dies in silence is the fault it exists to mend.
                _logger.exception("reconciler: failed, goes on")
            if self._settings.liveness_file is not None:
                Path(self._settings.liveness_file).touch()
            if self._stopped.wait(self._settings.reconcile_seconds):
                return

    def once(self) -> list[str]:
        """One round; returns the ids it rang for."""
        with self._database.write() as connection:
            for identifier, status in leases.recover(connection).items():
                _logger.warning("%s lost its worker and is %s", identifier, status, extra={"experiment_id": identifier})
        with self._database.write() as connection:
            names.mend(connection, _NAMES)
        with self._database.write() as connection:
            for identifier in stages.advance(connection, self._settings):
                _logger.info("%s: no single remedy is enough, combinations are tried", identifier)
        with self._database.read() as connection:
            waiting = experiments.waiting(connection, self._settings.resend_seconds)
        rung = []
        for queue in QUEUES:
            mine = [record for record in waiting if record.queue == queue]
            if not mine or self._doorbell.depth(queue) != 0:
                continue
            for record in mine:
                if not self._doorbell.ring(record.id, record.queue, record.priority):
                    break
                with self._database.write() as connection:
                    experiments.mark_sent(connection, record.id)
                rung.append(record.id)
        return rung
