"""A worker's surroundings: settings by which all happens soon, one data set for all, a database that locks."""

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psycopg
import pytest
import torch
from sqlalchemy.engine import make_url

from gradprobe.settings import Settings
from gradprobe.store import database as database_module
from gradprobe.store.database import Database
from tests.integration.store.transactions import Store
from tests.integration.worker.company import Killed
from tests.numerics.replay import small_dataset
from worker import execute as execution
from worker.company import Company


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture(scope="session")
def worker_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The same for all tests, so that the data set is made once."""
    return Settings(
        data_directory=tmp_path_factory.mktemp("worker"),
        threads=1,
        heartbeat_seconds=0.1,
        lease_seconds=5.0,
        flush_seconds=0.05,
    )


Locked = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def locked(database_url: str) -> Locked:
    """A block during which somebody else holds the whole database, so that nobody can write."""
    url = make_url(database_url)

    @contextmanager
    def hold_sqlite() -> Iterator[None]:
        connection = sqlite3.connect(Path(str(url.database)), isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield
        finally:
            connection.close()

    @contextmanager
    def hold_postgresql() -> Iterator[None]:
        conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(conninfo) as connection:
            connection.execute("LOCK TABLE experiments IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()

    return hold_sqlite if url.get_backend_name() == "sqlite" else hold_postgresql


@pytest.fixture
def impatient(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database as one sees it who waits for a lock for a moment only."""
    monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.05)
    url = make_url(database_url)
    if url.get_backend_name() == "postgresql":
        url = url.update_query_dict({"options": "-c lock_timeout=50"})
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever data set is asked for is a small one."""
    monkeypatch.setattr(execution, "_dataset", lambda *_: small_dataset())


@pytest.fixture
def settings(worker_settings: Settings) -> Settings:
    """By which even short experiments are saved on the way."""
    changes = {"flush_seconds": 0.05, "checkpoint_seconds": 0.1, "maximum_attempts": 50}
    return worker_settings.model_copy(update=changes)


@pytest.fixture
def end_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None, type[BaseException]], None]]:
    """The next stacks end before this many iterations; None: they don't."""
    keeper = Company.keep_going

    def arrange(iterations: int | None, how: type[BaseException] = Killed) -> None:
        looks = itertools.count()

        def keep_going(_: Company) -> None:
            if next(looks) == iterations:
                raise how

        monkeypatch.setattr(Company, "keep_going", keeper if iterations is None else keep_going)

    return arrange
