"""Bring a database to this release's schema: one set of migrations for SQLite and PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.engine import URL

from gradprobe.errors import SchemaOutOfDate
from gradprobe.store.database import Database

_SCRIPTS = Path(__file__).parent / "migrations"
#: Any number that no other program takes a PostgreSQL advisory lock on: "gradprob" in ASCII.
_LOCK = 0x67726164_70726F62


def upgrade(url: URL, revision: str = "head") -> str:
    """Migrate up to `revision`; returns the revision reached. Two at once wait for each other.

    Raises:
        DatabaseUnavailable: when the database does not answer.
    """
    return _run(url, lambda config: command.upgrade(config, revision))


def downgrade(url: URL, revision: str) -> str:
    """Migrate down to `revision` ("base": an empty database); returns it. Data of newer columns is lost."""
    return _run(url, lambda config: command.downgrade(config, revision))


def head() -> str:
    """The revision that this release speaks."""
    return str(ScriptDirectory(str(_SCRIPTS)).get_current_head())


def current(connection: Connection) -> str | None:
    """The database's revision; None for one that was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def require_head(database: Database) -> None:
    """Raises SchemaOutOfDate with both revisions when the database is not at this release's schema."""
    with database.read() as connection:
        found = current(connection)
    if found != head():
        raise SchemaOutOfDate(
            f"The database is at schema {found or 'none'}, this release needs {head()}; run `gradprobe migrate`."
        )


def _run(url: URL, action: Callable[[Config], None]) -> str:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    database = Database(url, pool_size=1)
    try:
        with database.write() as connection:
            if not database.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            config.attributes["connection"] = connection
            action(config)
            return current(connection) or "base"
    finally:
        database.close()
