"""Transactions on both databases: all or nothing, one state for a reader, writers in turn, and clear errors."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from gradprobe.errors import DatabaseUnavailable, DataDirectoryUnusable, SchemaOutOfDate
from gradprobe.spec import Spec
from gradprobe.store import experiments, migrate
from gradprobe.store.database import Database
from gradprobe.store.listing import Filters
from gradprobe.store.tables import experiments as table
from gradprobe.store.tables import now, tags
from tests.integration.store.transactions import Store


class Stop(Exception):
    """Ends a transaction from within."""


def names(store: Store) -> list[str | None]:
    return [record.name for record in store.read(experiments.page, Filters(), None, 100)]


def test_an_exception_leaves_nothing(store: Store) -> None:
    def write_and_stop(connection: Connection) -> None:
        experiments.create(connection, Spec(name="lost", tags={"a": "b"}), 3)
        experiments.change(connection, kept.id, {"name": "changed"})
        raise Stop

    kept = store.create({"name": "kept"})
    with pytest.raises(Stop):
        store.write(write_and_stop)
    assert names(store) == ["kept"]
    assert store.get(kept.id) == kept


def test_a_statement_that_fails_takes_the_whole_transaction_with_it(store: Store) -> None:
    def change_and_fail(connection: Connection) -> None:
        experiments.change(connection, identifier, {"name": "changed"})
        connection.execute(tags.insert().values(experiment_id=identifier, key="a", value="c"))

    identifier = store.create({"name": "kept", "tags": {"a": "b"}}).id
    with pytest.raises(IntegrityError):
        store.write(change_and_fail)
    assert names(store) == ["kept"]
    store.create({"name": "after"})  # and the connection is fit for the next
    assert names(store) == ["after", "kept"]


def test_a_tag_needs_its_experiment(store: Store) -> None:
    with pytest.raises(IntegrityError), store.database.write() as connection:
        connection.execute(tags.insert().values(experiment_id="exp_" + 26 * "0", key="a", value="b"))


def test_what_is_not_committed_is_not_seen(store: Store) -> None:
    with store.database.write() as connection:
        experiments.create(connection, Spec(name="new"), 3)
        assert names(store) == []
    assert names(store) == ["new"]


def test_a_reader_sees_one_state(store: Store) -> None:
    identifier = store.create({"name": "first"}).id
    with store.database.read() as connection:
        assert experiments.get(connection, identifier).name == "first"
        store.write(experiments.change, identifier, {"name": "second"})
        assert experiments.get(connection, identifier).name == "first"
    assert store.get(identifier).name == "second"


def test_the_clock_is_the_time_in_utc_and_goes_on_within_a_transaction(store: Store) -> None:
    with store.database.write() as connection:
        first = connection.scalar(select(now()))
        time.sleep(0.01)
        second = connection.scalar(select(now()))
    assert first is not None
    assert second is not None
    assert 0.005 < second - first < 5.0
    assert first == pytest.approx(time.time(), abs=5.0)


def test_twenty_threads_that_read_and_then_write_wait_for_each_other(sqlite_database: Database) -> None:
    """On SQLite: a deferred transaction would fail at once with "database is locked", or lose an update."""
    store = Store(sqlite_database)
    identifier = store.create().id
    others = [Database(sqlite_database.url, pool_size=1) for _ in range(10)]

    def add_ten(number: int) -> None:
        database = others[number // 2] if number % 2 else sqlite_database
        for _ in range(10):
            with database.write() as connection:
                before = connection.scalar(select(table.c.iteration).where(table.c.id == identifier))
                assert before is not None
                connection.execute(update(table).where(table.c.id == identifier).values(iteration=before + 1))

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(add_ten, range(20)))
    for database in others:
        database.close()
    assert store.get(identifier).iteration == 200


def test_readers_do_not_wait_for_a_writer(store: Store) -> None:
    store.create({"name": "old"})
    with store.database.write() as connection:
        experiments.create(connection, Spec(name="new"), 3)
        with ThreadPoolExecutor(4) as threads:
            started = time.monotonic()
            assert list(threads.map(lambda _: names(store), range(8))) == [["old"]] * 8
            assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    "action",
    [
        migrate.require_head,
        lambda database: Store(database).get("exp_" + 26 * "0"),
        lambda database: Store(database).create(),
        lambda database: Store(database).read(experiments.page, Filters(), None, 1),
    ],
)
def test_a_database_that_was_never_migrated(empty_database_url: str, action: Callable[[Database], Any]) -> None:
    database = Database(make_url(empty_database_url))
    try:
        with pytest.raises(SchemaOutOfDate, match="gradprobe migrate"):
            action(database)
    finally:
        database.close()


def test_a_column_that_is_missing_is_a_schema_out_of_date(store: Store) -> None:
    with store.database.write() as connection:
        connection.execute(text("ALTER TABLE experiments DROP COLUMN provenance"))
    with pytest.raises(SchemaOutOfDate):
        store.create()


def test_a_fault_of_ours_is_not_taken_for_the_database_s(store: Store) -> None:
    with pytest.raises(DBAPIError, match="syntax error"), store.database.read() as connection:
        connection.execute(text("SELEKT 1"))


def test_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    database = Database(make_url(f"postgresql+psycopg://me:hidden@127.0.0.1:{port}/db"))
    try:
        for call in (database.ping, Store(database).create):
            with pytest.raises(DatabaseUnavailable) as caught:
                call()
            assert "hidden" not in caught.value.message
    finally:
        database.close()


def test_a_connection_that_the_server_ended(postgresql_database: Database) -> None:
    def end_connections() -> None:
        with administrator.write() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": postgresql_database.url.database},
            )

    def create_and_lose(connection: Connection) -> None:
        experiments.create(connection, Spec(name="lost"), 3)
        end_connections()
        experiments.create(connection, Spec(name="lost too"), 3)

    administrator = Database(postgresql_database.url.set(database="postgres"))
    store = Store(postgresql_database)
    store.create({"name": "kept"})
    with pytest.raises(DatabaseUnavailable):
        store.write(create_and_lose)
    assert names(store) == ["kept"]
    end_connections()
    assert names(store) == ["kept"]  # an idle connection that died is replaced unseen
    administrator.close()


def test_a_file_beneath_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryUnusable) as caught:
        Database(URL.create("sqlite", database=str(tmp_path / "file" / "gradprobe.db")))
    assert str(tmp_path / "file") in caught.value.message


@pytest.mark.parametrize(
    ("content", "told"), [(None, "can't be opened"), (b"not a database" * 100, "no SQLite database")]
)
def test_a_file_that_can_not_be_a_database(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "gradprobe.db"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    database = Database(URL.create("sqlite", database=str(path)))
    try:
        with pytest.raises(DatabaseUnavailable, match=told):
            database.ping()
    finally:
        database.close()


def test_a_writer_that_waits_too_long_says_that_the_database_is_busy(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradprobe.store.database._BUSY_SECONDS", 0.1)
    impatient = Database(sqlite_database.url)
    with sqlite_database.write() as connection:
        experiments.create(connection, Spec(), 3)
        with pytest.raises(DatabaseUnavailable, match="try again"):
            Store(impatient).create()
    Store(impatient).create()
    impatient.close()
