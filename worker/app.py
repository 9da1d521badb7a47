"""The Celery application: `celery -A worker.app worker --concurrency 1 --queues any,cpu`.

The parent process only talks to the broker and reconciles; torch lives in the pool's child, a fresh interpreter
(`spawn`: CUDA does not survive a fork), which stays warm from one experiment to the next.
"""

import importlib
import logging
import os
import signal
from contextlib import suppress
from functools import cache
from typing import Any

from billiard.util import get_logger as get_pool_logger
from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
    worker_shutting_down,
)

from gradprobe import guard, logs, stages, telemetry
from gradprobe.queue import TRAIN, celery_app
from gradprobe.settings import Settings
from gradprobe.store.database import Database
from worker.reconcile import Reconciler

_logger = logging.getLogger(__name__)

settings = Settings()
# Inherited by the children: code compiled once serves every later process on this machine.
os.environ.setdefault("NUMBA_CACHE_DIR", str(settings.data_directory / "compiled"))
app = celery_app(settings)
if settings.telemetry:
    telemetry.require_installed()


_PARENT = "_GRADPROBE_WORKER"
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
    executor = _executor()
    try:
        executor.execute(experiment_id, settings, _database())
    except executor.DeviceLost as error:
        _logger.critical("this process ends, and the pool starts another: the device is lost: %s", error)
        os._exit(os.EX_SOFTWARE)  # what exits in good order would take the parent along


@setup_logging.connect  # type: ignore[untyped-decorator]  # who listens keeps Celery from doing it
def _log(**_: Any) -> None:
    get_pool_logger()  # which is cut off from all others where it is first asked for
    logs.configure(settings.log_format, settings.log_level)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _speak_one_language(instance: Any, **_: Any) -> None:
    _log()  # at once: what Celery warns of as it starts belongs there too
    os.environ[_PARENT] = str(os.getpid())  # for the children
    instance.quiet = True  # its banner would stand raw among the lines


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _let_children_speak_it(**_: Any) -> None:
    os.environ.pop("_MP_FORK_LOGLEVEL_", None)  # with it a child would log by itself until this file is there


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _warm_up(**_: Any) -> None:
    # A parent that is killed closes the child's pipe, which only an idle child reads: one that trains would go on
    # beside its successor, one that starts would first load torch. SIGUSR2 ends the latter and asks the former, as
    # an orderly stop does, to give its experiment back.
    guard.signal_when_parent_ends(signal.SIGUSR2, int(os.environ[_PARENT]))
    _log()  # Celery may have asked before this file was there to hear it
    if settings.telemetry:
        telemetry.start("worker")
    os.nice(settings.niceness)
    executor = _executor()
    executor.warm_up()
    signal.signal(signal.SIGUSR2, lambda *_: executor.stopping.set())


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _send_the_last_spans(**_: Any) -> None:
    telemetry.stop()


@worker_ready.connect  # type: ignore[untyped-decorator]
def _begin(sender: Any, **_: Any) -> None:
    settings.prepare_data_directory()
    _reconciler().start()
    _consumers.append(sender)
    stages.tell("connected")


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _ask_children_to_stop(**_: Any) -> None:
    # Celery's warm shutdown would wait for the experiment's end, hours perhaps: it is given back instead.
    for consumer in _consumers:
        for process in consumer.pool.info["processes"]:
            with suppress(ProcessLookupError):  # one that ended by itself has nothing to give back
                os.kill(process, signal.SIGUSR2)


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop_reconciling(**_: Any) -> None:
    _reconciler().stop()
