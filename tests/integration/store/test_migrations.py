"""Migrations on both databases: up, down and up again, to exactly the tables that the code speaks of."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import delete, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url

from gradprobe.errors import DatabaseUnavailable, SchemaOutOfDate
from gradprobe.identifiers import new_experiment_id
from gradprobe.store import migrate, series
from gradprobe.store.database import Database
from gradprobe.store.tables import metadata, objects, tags
from tests.integration.service import measured
from tests.integration.store.transactions import Store

UPGRADE = """
import sys
from sqlalchemy.engine import make_url
from gradprobe.store import migrate
print("ready", flush=True)
sys.stdin.readline()
print(migrate.upgrade(make_url(sys.argv[1])))
"""


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    """A database that was never migrated."""
    database = Database(make_url(empty_database_url))
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(inspect(connection).get_table_names())


def test_a_release_works_on_the_schema_of_a_later_one(empty: Database) -> None:
    """While a release is rolled out, or taken back; what it writes there, `test_compatibility` holds."""
    migrate.upgrade(empty.url)
    with empty.write() as connection:
        connection.exec_driver_sql("ALTER TABLE experiments ADD COLUMN of_a_later_release TEXT")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    migrate.require_head(empty)
    assert migrate.upgrade(empty.url) == "9999"
    identifier = Store(empty).create().id
    assert Store(empty).claim(identifier) is not None


def test_an_older_schema_is_refused(empty: Database) -> None:
    migrate.upgrade(empty.url, "0001")
    with pytest.raises(SchemaOutOfDate, match=f"schema 0001, this release needs {migrate.head()}"):
        migrate.require_head(empty)


def test_up_down_and_up_again(empty: Database) -> None:
    assert tables(empty) == set()
    assert migrate.upgrade(empty.url) == migrate.head()
    assert tables(empty) == {*metadata.tables, "alembic_version"}
    migrate.require_head(empty)
    identifier = Store(empty).create({"tags": {"a": "b"}}).id

    assert migrate.downgrade(empty.url, "base") == "base"
    assert tables(empty) == {"alembic_version"}
    with pytest.raises(SchemaOutOfDate, match=f"schema none, this release needs {migrate.head()}"):
        migrate.require_head(empty)

    assert migrate.upgrade(empty.url) == migrate.head()
    assert Store(empty).create().id > identifier


def test_owners_and_keys_come_and_go_and_experiments_stay(store: Store) -> None:
    """0003 adds what the release before did not know: neither way does an experiment lose anything it had."""
    url = store.database.url
    identifier = store.create({"tags": {"a": "b"}, "network": {"depth": 2, "width": 2}}).id
    claimed = store.claim(identifier)
    assert claimed is not None
    block = measured.write_statistics(store.database, claimed[0], "weights", range(3))
    before = store.get(identifier)

    migrate.downgrade(url, "0001")
    with store.database.read() as connection:
        assert "owner" not in {column["name"] for column in inspect(connection).get_columns("experiments")}
        assert connection.execute(select(tags)).one().value == "b"
    migrate.upgrade(url)

    assert store.get(identifier) == before
    stored = store.read(series.read_statistics, identifier, "weights")
    assert stored is not None
    assert np.array_equal(stored.values, block.values)


def test_the_release_before_goes_on_writing(store: Store) -> None:
    """A worker or service of 0001 names its own columns alone, in a database that is ahead of it."""
    row = store.row(store.create().id)
    old = {name: value for name, value in row.items() if name != "owner"} | {"id": new_experiment_id()}
    with store.database.write() as connection:
        connection.execute(text(f"INSERT INTO experiments ({', '.join(old)}) VALUES (:{', :'.join(old)})"), old)

    assert store.get(old["id"]).owner is None
    assert store.claim(old["id"]) is not None


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(store: Store) -> None:
    created = store.create({"name": "kept"})
    assert migrate.upgrade(store.database.url) == migrate.head()
    assert store.get(created.id) == created


# Not compared on SQLite: an index of an expression, which it is not read back from.
@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_the_migrated_schema_is_the_one_that_the_code_speaks_of(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
        for table in metadata.sorted_tables:
            inspector = inspect(connection)
            assert inspector.get_pk_constraint(table.name)["constrained_columns"] == list(
                table.primary_key.columns.keys()
            )
            rules = [key["options"].get("ondelete") for key in inspector.get_foreign_keys(table.name)]
            assert rules == [key.ondelete for key in table.foreign_key_constraints]


def test_several_upgrades_at_once(empty_database_url: str) -> None:
    """As services that start together would: each of them reaches the head, none fails."""
    command = [sys.executable, "-c", UPGRADE, empty_database_url]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), answers
    assert [out.strip() for out, _ in answers] == [migrate.head()] * len(processes)
    database = Database(make_url(empty_database_url))
    migrate.require_head(database)
    database.close()


def test_a_migration_that_fails_leaves_nothing(empty: Database) -> None:
    with pytest.raises(Exception, match="no-such-revision"):
        migrate.upgrade(empty.url, "no-such-revision")
    assert tables(empty) == set()


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(DatabaseUnavailable):
        migrate.upgrade(URL.create("postgresql+psycopg", "me", "p", "127.0.0.1", 1, "db"))


def test_what_is_in_the_object_store_is_not_forgotten(empty: Database) -> None:
    """Only the columns of 0014 tell where it is."""
    migrate.upgrade(empty.url, "0014")
    with empty.write() as connection:
        connection.execute(insert(objects).values(name="exp_1/x", experiment_id="exp_1", size=1))
    with pytest.raises(RuntimeError, match="gradprobe archive --back"):
        migrate.downgrade(empty.url, "0012")
    assert "objects" in tables(empty)
    with empty.write() as connection:
        connection.execute(delete(objects))
    assert migrate.downgrade(empty.url, "0012") == "0012"
