"""Connections and transactions: the only file that knows how the two databases differ in opening one."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gradprobe.errors import DatabaseUnavailable, DataDirectoryUnusable, GradprobeError, SchemaOutOfDate

_POSTGRESQL_SCHEMA = ("42P01", "42703")  # undefined table, undefined column
_SQLITE_SCHEMA = re.compile("no such table|no such column|has no column named")
#: What each of SQLite's faults means to the caller; None: what `DatabaseUnavailable` says by itself.
_SQLITE_FAULTS = {
    sqlite3.SQLITE_BUSY: None,
    sqlite3.SQLITE_LOCKED: None,
    sqlite3.SQLITE_PROTOCOL: None,
    sqlite3.SQLITE_IOERR: None,
    sqlite3.SQLITE_CANTOPEN: "The database's file can't be opened; see that it is a file and that it can be written.",
    sqlite3.SQLITE_READONLY: "The database's file can't be written; change its permissions or choose another.",
    sqlite3.SQLITE_FULL: "The disk that holds the database is full; make room and try again.",
    sqlite3.SQLITE_CORRUPT: "The database's file is damaged; restore it from a backup.",
    sqlite3.SQLITE_NOTADB: "The database's file is no SQLite database; choose another.",
}

#: The same for PostgreSQL's, by SQLSTATE.
_POSTGRESQL_FAULTS = {
    "53100": "The disk that holds the database is full; make room and try again.",
    "53300": "The database takes no more connections; raise max_connections or lower GRADPROBE_DATABASE_POOL.",
    "25006": "The database is read-only (a standby, perhaps); point the service and the workers at the primary.",
}
#: A connection whose other side fell silent (a partition, a host that lost power) is given up after about so long,
#: and not after the operating system's quarter of an hour. Both are counted by the kernel, whatever the server does.
_SILENT = {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3, "tcp_user_timeout": 15_000}

_BUSY_SECONDS = 10.0
_CONNECT_SECONDS = 5


class Database:
    """One database. `read()` and `write()` are the only ways to a connection, each of them one transaction.

    Thread-safe. Errors of the driver leave as `DatabaseUnavailable` or `SchemaOutOfDate`.
    """

    def __init__(self, url: URL, pool_size: int = 5) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._reader = _sqlite_engine(url, pool_size, "BEGIN")
            self._writer = _sqlite_engine(url, pool_size, "BEGIN IMMEDIATE")
        else:
            self._writer = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=0,
                pool_pre_ping=True,
                pool_timeout=_CONNECT_SECONDS,
                # Not prepared: a plan that is kept serves every value alike, and what it takes to find the one
                # queued experiment of a tag is not what it takes to find the many that ended.
                connect_args={"connect_timeout": _CONNECT_SECONDS, "prepare_threshold": None, **_SILENT},
            )
            # By default each statement sees a state of its own. The pool is the writer's.
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database."""
        with _translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends and rolled back when it raises."""
        with _translated(), self._writer.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Raises DatabaseUnavailable when the database does not answer."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Give all connections back."""
        self._reader.dispose()
        self._writer.dispose()


def _sqlite_engine(url: URL, pool_size: int, begin: str) -> Engine:
    if url.database and url.database != ":memory:":
        directory = Path(url.database).parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataDirectoryUnusable(f"{directory} can't be written ({error.strerror}).") from error
    engine = create_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=_CONNECT_SECONDS, connect_args={"timeout": _BUSY_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver's own BEGIN is deferred, and a deferred transaction that turns to writing fails at once with
        # "locked", whatever the time-out: so transactions are begun by hand, below.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable from error
    except DBAPIError as error:
        translated = _of_sqlite(error.orig) if isinstance(error.orig, sqlite3.Error) else _of_postgresql(error)
        if translated is None:
            raise
        raise translated from error


def _of_sqlite(error: sqlite3.Error) -> GradprobeError | None:
    # An extended code holds the plain one in its last byte. The driver's own errors have none.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
    if code == sqlite3.SQLITE_ERROR and _SQLITE_SCHEMA.search(str(error)):
        return SchemaOutOfDate()
    return DatabaseUnavailable(_SQLITE_FAULTS[code]) if code in _SQLITE_FAULTS else None


def _of_postgresql(error: DBAPIError) -> GradprobeError | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in _POSTGRESQL_SCHEMA:
        return SchemaOutOfDate()
    if state in _POSTGRESQL_FAULTS:
        return DatabaseUnavailable(_POSTGRESQL_FAULTS[state])
    return DatabaseUnavailable() if isinstance(error, OperationalError | InterfaceError) else None
