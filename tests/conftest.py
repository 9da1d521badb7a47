"""Real servers, started once a test process and gone with it, and a fresh database for every test that asks."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import psycopg
import pytest
import redis
from sqlalchemy.engine import URL, make_url

from gradprobe.settings import Settings
from gradprobe.store import migrate
from gradprobe.store.database import Database
from gradprobe.store.tables import metadata
from tests.servers import ACCESS_KEY, BUCKET, SECRET_KEY

# A shared runner is slow now and then; how long one example takes says nothing about its correctness.
hypothesis.settings.register_profile("gradprobe", deadline=None, print_blob=True)
hypothesis.settings.load_profile("gradprobe")

TEMPLATE = "migrated"
#: Whoever a test has left connected; waits until they are gone.
_DISCONNECT = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_COLUMNS = """
    SELECT relname, attname, atttypid FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND NOT attisdropped ORDER BY relname, attnum
"""
#: Emptying takes a tenth of the time of making a database and dropping it.
_EMPTY = f"TRUNCATE {', '.join(table.name for table in metadata.sorted_tables)} RESTART IDENTITY CASCADE"

# A shell that runs the tests in the background has them ignore Ctrl-C, and every process that they start as well;
# what some of these do on Ctrl-C is what the tests ask.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ours() -> list[str]:
    return [name for name in os.environ if name.startswith(("GRADPROBE_", "REDIS_URL", "PROMETHEUS_MULTIPROC_DIR"))]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Which of what is alike the gate runs, and what has to run in one process.

    Above the store a test asks the same of both databases: each runs on one of them, by its name. Of a function's many
    variants every other one is the gate's, but for the contract's, the architecture's and those of whole processes.
    What is left out runs with `make thorough`. Tests that share the started stack are one group, so that it is started
    once, and else those of a file are one.
    """
    kept = Counter[str]()
    variants = Counter(_function(item) for item in items)
    for item in items:
        if _is_the_others_turn(item):
            item.add_marker(pytest.mark.thorough)
        elif variants[_function(item)] >= _MANY and not _EVERY_ONE.intersection(item.path.parts):
            kept[_function(item)] += 1
            if kept[_function(item)] % 2 == 0:
                item.add_marker(pytest.mark.thorough)
        if config.getoption("dist", "no") == "loadgroup":
            shares = "stack" in getattr(item, "fixturenames", ()) and "acceptance" in item.path.parts
            item.add_marker(pytest.mark.xdist_group("stack" if shares else str(item.path)))


#: So many variants are too many for every change.
_MANY = 6
_EVERY_ONE = {"contract", "architecture", "acceptance"}


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _is_the_others_turn(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or "integration" not in item.path.parts or "store" in item.path.parts:
        return False
    marks = item.iter_markers("parametrize")
    if "database_kind" not in callspec.params or any("database_kind" in mark.args[0] for mark in marks):
        return False  # what says itself which database it wants has it
    kinds = ("sqlite", "postgresql")
    without = re.sub("|".join(kinds), "", item.nodeid)
    return bool(callspec.params["database_kind"] != kinds[zlib.crc32(without.encode()) % 2])


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads what the developer's shell has set, or what a command that it ran set for its children."""
    for name in _ours():
        monkeypatch.delenv(name)
    yield
    for name in _ours():
        del os.environ[name]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a data directory of their own; for a server's URL make others: Settings(redis_url=…)."""
    return Settings(data_directory=tmp_path / "data")


@contextmanager
def _server(name: str) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("servers.py")), name]
    # A session of its own: Ctrl-C reaches the tests, which may still need the server to end in order.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, f"{name} did not start; what it printed is above"
        yield url


@dataclass(frozen=True)
class PostgreSQL:
    """A server, and a connection that creates and drops its databases."""

    url: URL
    administrator: psycopg.Connection
    #: Migrated databases that no test uses, each with what its schema was and a connection that empties it.
    _free: list[tuple[str, object, psycopg.Connection]] = field(default_factory=list)

    @contextmanager
    def database(self) -> Iterator[URL]:
        """An empty, migrated database: one that a test has left, emptied, as long as its schema is what it was."""
        name, schema, connection = self._free.pop() if self._free else self._migrated()
        yield self.url.set(database=name)
        if _emptied(connection, schema):
            self._free.append((name, schema, connection))
        else:
            connection.close()
            self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @contextmanager
    def copy(self, template: str) -> Iterator[URL]:
        """A copy of `template`, dropped afterwards."""
        name = self._copied(template)
        yield self.url.set(database=name)
        self.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def close(self) -> None:
        """Close the connections; the databases go with the server."""
        for _, _, connection in self._free:
            connection.close()

    def execute(self, statement: str) -> None:
        self.administrator.execute(statement.encode())

    def _migrated(self) -> tuple[str, object, psycopg.Connection]:
        name = self._copied(TEMPLATE)
        connection = psycopg.connect(conninfo(self.url.set(database=name)), autocommit=True)
        return name, _schema(connection), connection

    def _copied(self, template: str) -> str:
        name = f"test_{secrets.token_hex(8)}"
        # Faster than the default strategy where nothing waits for the disk.
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return name


def conninfo(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _emptied(connection: psycopg.Connection, schema: object) -> bool:
    """Empty a database; False where its schema is another one now, or where the test cut every connection."""
    try:
        connection.execute(_DISCONNECT)
        if _schema(connection) != schema:
            return False
        connection.execute(_EMPTY)
    except psycopg.OperationalError:
        return False
    return True


def _schema(connection: psycopg.Connection) -> object:
    """Every column of every table, index and sequence, how many constraints and triggers, and the migration."""
    columns = connection.execute(_COLUMNS).fetchall()
    rest = connection.execute(
        "SELECT (SELECT count(*) FROM pg_constraint), (SELECT count(*) FROM pg_trigger)"
    ).fetchall()
    return columns, rest, connection.execute("SELECT version_num FROM alembic_version").fetchall()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server; its database `migrated` has this release's schema and is copied, never used."""
    with _server("postgresql") as address:
        url = make_url(address)
        with psycopg.connect(conninfo(url), autocommit=True) as administrator:
            server = PostgreSQL(url, administrator)
            server.execute(f'CREATE DATABASE "{TEMPLATE}"')
            migrate.upgrade(url.set(database=TEMPLATE))
            yield server
            server.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(sqlite_url(path))
    return path


def sqlite_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Each of the two databases in turn."""
    return str(request.param)


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty database for this test alone: a SQLite file, then PostgreSQL."""
    if database_kind == "sqlite":
        path = tmp_path / "gradprobe.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield str(sqlite_url(path))
    else:
        with request.getfixturevalue("postgresql").database() as url:
            yield url.render_as_string(hide_password=False)


@pytest.fixture
def empty_database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that was never migrated."""
    if database_kind == "sqlite":
        yield str(sqlite_url(tmp_path / "empty.db"))
    else:
        with request.getfixturevalue("postgresql").copy("template0") as url:
            yield url.render_as_string(hide_password=False)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated, empty database, closed afterwards."""
    opened = Database(make_url(database_url))
    yield opened
    opened.close()


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """As `database`, SQLite alone."""
    path = tmp_path / "gradprobe.db"
    shutil.copy(sqlite_template, path)
    opened = Database(sqlite_url(path))
    yield opened
    opened.close()


@pytest.fixture
def postgresql_database_url(postgresql: PostgreSQL) -> Iterator[str]:
    """As `database_url`, PostgreSQL alone."""
    with postgresql.database() as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture
def postgresql_database(postgresql_database_url: str) -> Iterator[Database]:
    """As `database`, PostgreSQL alone."""
    opened = Database(make_url(postgresql_database_url))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """A Valkey server's URL, without a database number."""
    with _server("valkey") as url:
        yield url


@pytest.fixture(scope="session", params=["s3", pytest.param("swift", marks=pytest.mark.integrations)])
def s3(request: pytest.FixtureRequest) -> Iterator[str]:
    """An S3 server's address, with the bucket and the keys that `tests.servers` names: a small one, and OpenStack's."""
    with _server(request.param) as address:
        yield address


@pytest.fixture
def object_store(s3: str) -> dict[str, str]:
    """Settings of an object store that holds nothing yet."""
    return {
        "object_store": f"s3://{BUCKET}/{secrets.token_hex(8)}",
        "object_store_endpoint": s3,
        "object_store_access_key": ACCESS_KEY,
        "object_store_secret_key": SECRET_KEY,
    }


@pytest.fixture
def redis_url(valkey: str) -> str:
    """The URL of a broker that holds nothing yet."""
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
    return f"{valkey}/0"
