"""Every migration goes up and down with data in the tables, and what an older release writes goes on being written.

A worker or a service of an older release speaks of the tables as they were at its revision, so those tables, read back
from a database at that revision, stand for it: their statements have to work at the head.
"""

from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, delete, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.types import Double, Integer, LargeBinary, Numeric

from gradprobe.store import experiments, migrate
from gradprobe.store.database import Database
from gradprobe.store.listing import Filters

# SQLite's is read back without the index of an expression.
pytestmark = pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
REVISIONS = [script.revision for script in ScriptDirectory(str(migrate._SCRIPTS)).walk_revisions()][::-1]


def value(column: Any, name: str) -> Any:
    """Something that the column takes."""
    if isinstance(column.type, LargeBinary):
        return b"x"
    return 1 if isinstance(column.type, Integer | Double | Numeric) else "{}" if name in ("spec", "result") else "x"


def tables_of(database: Database) -> list[Table]:
    """As they are in the database, parents first."""
    metadata = MetaData()
    with database.read() as connection:
        metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def rows(tables: list[Table]) -> dict[str, dict[str, Any]]:
    """A row for each table, whole, with references that hold: every text key is the same."""
    return {table.name: {column.name: value(column, column.name) for column in table.columns} for table in tables}


def write(database: Database, tables: list[Table]) -> None:
    for table, row in zip(tables, rows(tables).values(), strict=True):
        with database.write() as connection:
            connection.execute(insert(table).values(row))


@pytest.mark.parametrize("revision", REVISIONS)
def test_up_and_down_with_data(empty_database_url: str, revision: str) -> None:
    url = make_url(empty_database_url)
    below = REVISIONS[REVISIONS.index(revision) - 1] if revision != REVISIONS[0] else "base"
    if below != "base":
        migrate.upgrade(url, below)
    database = Database(url)
    before = tables_of(database)
    write(database, before)
    assert migrate.upgrade(url, revision) == revision
    for table in before:
        with database.read() as connection:
            assert len(connection.execute(select(table)).all()) == 1, table.name
    assert migrate.downgrade(url, below) == below
    after = {table.name: set(table.columns.keys()) for table in tables_of(database)}
    assert after == {table.name: set(table.columns.keys()) for table in before}
    for table in before:
        with database.read() as connection:
            assert connection.execute(select(table)).one()._asdict() == rows(before)[table.name], table.name
    database.close()


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_older_release_reads_and_writes_the_newest_schema(empty_database_url: str, revision: str) -> None:
    url = make_url(empty_database_url)
    migrate.upgrade(url, revision)
    database = Database(url)
    tables = tables_of(database)
    migrate.upgrade(url)
    write(database, tables)
    for table in tables:
        row = rows(tables)[table.name]
        with database.write() as connection:
            assert connection.execute(update(table).values(row)).rowcount == 1
            assert connection.execute(select(table)).one()._asdict() == row
    for table in reversed(tables):
        with database.write() as connection:
            connection.execute(delete(table))
    database.close()


def test_names_of_an_older_release_are_found(empty_database_url: str) -> None:
    url = make_url(empty_database_url)
    migrate.upgrade(url, "0001")
    database = Database(url)
    [table] = [table for table in tables_of(database) if table.name == "experiments"]
    row = {column.name: value(column, column.name) for column in table.columns}
    texts = {"spec": "{}", "layers": "[]", "status": "succeeded", "result": None, "error": None, "provenance": None}
    with database.write() as connection:
        for number in range(3):
            one = row | texts | {"id": f"exp_{number}", "name": None if number == 2 else f"Größe {number}"}
            connection.execute(insert(table).values(one))
    migrate.upgrade(url)
    with database.read() as connection:
        found = experiments.page(connection, Filters(name="GRÖSSE 1"), None, 10)
    assert [record.name for record in found] == ["Größe 1"]
    database.close()
