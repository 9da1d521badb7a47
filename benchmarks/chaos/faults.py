"""The faults: each does its harm, lets it last, and mends what an operator or a supervisor would mend."""

import os
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
from sqlalchemy import select, text

from benchmarks.chaos.system import PostgreSQL, System, paused, tree, wait
from gradprobe.embedded.children import Child
from gradprobe.errors import DatabaseUnavailable
from gradprobe.queue import QUEUES, Doorbell
from gradprobe.settings import Settings
from gradprobe.store.tables import experiments

Random = random.Random
#: A file may not grow beyond this while the disk is full; all of the database's are larger.
_FULL = 1024
_SKEW_SECONDS = 300
_FAKETIME = ("usr/lib/*", "usr/lib*", "usr/local/lib")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `databases`: those with which it can."""

    name: str
    do: Callable[[System, Random], None]
    databases: Sequence[str] = ("sqlite", "postgresql")
    possible: Callable[[], bool] = lambda: True


def kill_and_start(child: Child) -> None:
    """SIGKILL to a process and all that it started; it is started again at once."""
    child.patience = 0.0
    for process in tree(child.pid):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    child.stop()
    child.start()


def _lease(system: System) -> float:
    return system.stack.settings.lease_seconds


def kill_pool_child(system: System, chance: Random) -> None:
    """SIGKILL to the process that trains, as the kernel does when memory runs out."""
    for process in system.trainers(chance.choice(system.workers)):
        process.kill()


def kill_worker(system: System, chance: Random) -> None:
    """SIGKILL to a worker and all its processes; its supervisor starts it again."""
    kill_and_start(chance.choice(system.workers))


def kill_worker_parent(system: System, chance: Random) -> None:
    """SIGKILL to a worker's parent process alone: what it leaves has some seconds to give back what it trains."""
    worker = chance.choice(system.workers)
    for process in tree(worker.pid)[:1]:
        process.kill()
    wait(chance.uniform(0.0, 4.0))
    worker.stop()
    worker.start()


def stop_worker(system: System, chance: Random) -> None:
    """SIGTERM to a worker, as in a rolling restart."""
    worker = chance.choice(system.workers)
    worker.patience = 10.0
    worker.stop()
    worker.start()


def pause_trainer(system: System, chance: Random) -> None:
    """The training process stands still for longer than its lease, then goes on as if nothing had been."""
    with paused(system.trainers(chance.choice(system.workers))):
        wait(_lease(system) + chance.uniform(0.5, 3.0))


def pause_worker(system: System, chance: Random) -> None:
    """As when a whole virtual machine is moved: worker, reconciler and training stand still."""
    with paused(tree(chance.choice(system.workers).pid)):
        wait(_lease(system) + chance.uniform(0.5, 3.0))


def kill_service(system: System, _: Random) -> None:
    """SIGKILL to the API; its supervisor starts it again."""
    kill_and_start(system.child("API"))


def stop_service(system: System, _: Random) -> None:
    """SIGTERM to the API, as in a rolling restart."""
    service = system.child("API")
    service.patience = 10.0
    service.stop()
    service.start()


def kill_broker(system: System, chance: Random) -> None:
    """The broker is killed, away for some seconds, and comes back with what its disk had."""
    broker = system.child("broker")
    broker.patience = 0.0
    broker.stop()
    wait(chance.uniform(0.0, 4.0))
    broker.start()


def flush_broker(system: System, _: Random) -> None:
    """The broker forgets everything: messages, queues, bindings."""
    with system.broker() as broker:
        broker.flushall()


def hang_broker(system: System, chance: Random) -> None:
    """The broker's connections stay open and nothing answers."""
    with paused(tree(system.child("broker").pid)):
        wait(chance.uniform(2.0, 7.0))


def duplicate_messages(system: System, chance: Random) -> None:
    """Messages that nobody meant: for what runs, for what ended, twice, in the wrong queue, for nothing at all."""
    with suppress(DatabaseUnavailable), system.database.read() as connection:
        identifiers = list(connection.execute(select(experiments.c.id)).scalars())
        doorbell = Doorbell(Settings(data_directory=system.stack.directory, redis_url=system.stack.broker_url))
        chosen = chance.choices(identifiers, k=10) if identifiers else []
        for identifier in [*chosen, "exp_" + "0" * 26, "nonsense"]:
            doorbell.ring(identifier, chance.choice(QUEUES), chance.randint(0, 9))
        doorbell.close()


def _server(system: System) -> PostgreSQL:
    if system.postgresql is None:
        raise TypeError("this fault is PostgreSQL's")
    return system.postgresql


def crash_postgresql(system: System, chance: Random) -> None:
    """PostgreSQL crashes, is away for some seconds, and recovers."""
    server = _server(system)
    server.crash()
    wait(chance.uniform(0.0, 5.0))
    server.start()


def cut_connections(system: System, _: Random) -> None:
    """Every connection to PostgreSQL is cut, whatever it is doing."""
    everyone = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename <> ''"
    with suppress(DatabaseUnavailable), system.database.read() as connection:
        connection.execute(text(everyone))


def hang_postgresql(system: System, chance: Random) -> None:
    """PostgreSQL's connections stay open and nothing answers: what a partition looks like from both of its sides."""
    with paused(_server(system).processes()):
        wait(_lease(system) + chance.uniform(0.0, 3.0))


def fill_disk(system: System, chance: Random) -> None:
    """No file of any process can grow: SQLite's log can't be written, nor can their own."""
    limits = [*(child.pid for child in system.workers), system.child("API").pid]

    def limit(size: int) -> None:
        for pid in limits:
            for process in tree(pid):
                with suppress(psutil.NoSuchProcess):
                    process.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

    limit(_FULL)
    try:
        wait(chance.uniform(1.0, 6.0))
    finally:
        limit(psutil.RLIM_INFINITY)


@cache
def faketime_library() -> Path | None:
    """libfaketime, which shifts a process's clock; None where it is not installed."""
    found = [path for place in _FAKETIME for path in sorted(Path("/").glob(f"{place}/faketime/libfaketimeMT.so.1"))]
    return found[0] if found else None


def skew_clock(system: System, chance: Random) -> None:
    """A worker is started again on a machine whose clock is five minutes wrong; or right again."""
    worker = chance.choice(system.workers)
    environment = {k: v for k, v in worker.environment.items() if not k.startswith(("FAKETIME", "LD_PRELOAD"))}
    skew = chance.choice([-_SKEW_SECONDS, 0, _SKEW_SECONDS])
    if skew:
        environment |= {
            "LD_PRELOAD": str(faketime_library()),
            "FAKETIME": f"{skew:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    worker.environment = environment
    kill_and_start(worker)


FAULTS: Sequence[Fault] = (
    Fault("worker's pool child killed", kill_pool_child),
    Fault("worker killed, whole tree", kill_worker),
    Fault("worker's parent killed alone", kill_worker_parent),
    Fault("worker stopped by SIGTERM", stop_worker),
    Fault("training paused beyond its lease", pause_trainer),
    Fault("worker paused beyond its lease", pause_worker),
    Fault("service killed", kill_service),
    Fault("service stopped by SIGTERM", stop_service),
    Fault("broker killed and restarted", kill_broker),
    Fault("broker flushed", flush_broker),
    Fault("broker hung", hang_broker),
    Fault("duplicate and stray messages", duplicate_messages),
    Fault("PostgreSQL crashed and restarted", crash_postgresql, ("postgresql",)),
    Fault("connections to PostgreSQL cut", cut_connections, ("postgresql",)),
    Fault("PostgreSQL hung", hang_postgresql, ("postgresql",)),
    # SQLite is one machine's, and its clock that machine's own.
    Fault("worker's clock five minutes wrong", skew_clock, ("postgresql",), lambda: faketime_library() is not None),
    Fault("disk full", fill_disk, ("sqlite",), lambda: hasattr(psutil, "RLIMIT_FSIZE") and os.name == "posix"),
)


def of(database: str) -> list[Fault]:
    """Those that can happen with this database on this machine."""
    return [fault for fault in FAULTS if database in fault.databases and fault.possible()]
