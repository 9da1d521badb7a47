"""The Celery application: `celery -A worker.app worker --concurrency 1 --queues any,cpu`.

The parent process only talks to the broker and reconciles; torch lives in the pool's child, a fresh interpreter
(`spawn`: CUDA does not survive a fork), which stays warm from one experiment to the next.
"""

import importlib
import logging
import os
import signal
from functools import cache
from typing import Any

from celery.signals import worker_process_init, worker_ready, worker_shutdown, worker_shutting_down

from gradprobe.queue import TRAIN, celery_app
from gradprobe.settings import Settings
from gradprobe.store.database import Database
from worker.reconcile import Reconciler

_logger = logging.getLogger(__name__)

settings = Settings()
# Inherited by the children: code compiled once serves every later process on this machine.
os.environ.setdefault("NUMBA_CACHE_DIR", str(settings.data_directory / "compiled"))
app = celery_app(settings)


#: The one consumer of this process, once it is ready; it knows the pool's children.
_consumers: list[Any] = []


@cache
def _database() -> Database:
    return Database(settings.database, pool_size=3)


@cache
def _reconciler() -> Reconciler:
    return Reconciler(settings)


def _executor() -> Any:
    # By name, and late: the parent imports this file too, and must stay without torch.
    return importlib.import_module("worker.execute")


@app.task(name=TRAIN)  # type: ignore[untyped-decorator]  # Celery ships no types
def train(experiment_id: str) -> None:
    """Run one experiment. A message for one that ended, runs elsewhere or does not exist does nothing."""
    _executor().execute(experiment_id, settings, _database())


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _warm_up(**_: Any) -> None:
    executor = _executor()
    executor.warm_up()
    signal.signal(signal.SIGUSR2, lambda *_: executor.stopping.set())


@worker_ready.connect  # type: ignore[untyped-decorator]
def _begin(sender: Any, **_: Any) -> None:
    settings.prepare_data_directory()
    _reconciler().start()
    _consumers.append(sender)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _ask_children_to_stop(**_: Any) -> None:
    # Celery's warm shutdown would wait for the experiment's end, hours perhaps: it is given back instead.
    for consumer in _consumers:
        for process in consumer.pool.info["processes"]:
            os.kill(process, signal.SIGUSR2)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop_reconciling(**_: Any) -> None:
    _reconciler().stop()
