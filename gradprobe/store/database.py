"""Connections and transactions: the only file that knows how the two databases differ in opening one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gradprobe.errors import DatabaseUnavailable, DataDirectoryUnusable, SchemaOutOfDate

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
            self._reader = self._writer = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=0,
                pool_pre_ping=True,
                pool_timeout=_CONNECT_SECONDS,
                connect_args={"connect_timeout": _CONNECT_SECONDS},
            )

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
    def _configure(connection: SQLiteConnection, _record: Any) -> None:
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
    except (OperationalError, ProgrammingError) as error:
        if _is_missing_table(error):
            raise SchemaOutOfDate from error
        if isinstance(error, OperationalError):
            raise DatabaseUnavailable from error
        raise
    except (InterfaceError, PoolTimeout) as error:
        raise DatabaseUnavailable from error


def _is_missing_table(error: SQLAlchemyError) -> bool:
    told = str(getattr(error, "orig", error))
    return "no such table" in told or "no such column" in told or 'relation "' in told or "UndefinedColumn" in told
