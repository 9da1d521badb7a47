"""Bring a database to this release's schema: one set of migrations for SQLite and PostgreSQL."""

from collections.abc import Callable
from functools import cache
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

    A database that a later release has migrated stays as it is.

    Raises:
        DatabaseUnavailable: when the database does not answer.
    """

    def action(config: Config) -> None:
        if not _is_newer(current(config.attributes["connection"])):
            command.upgrade(config, revision)

    return _run(url, action)


def downgrade(url: URL, revision: str) -> str:
    """Migrate down to `revision` ("base": an empty database); returns it. Data of newer columns is lost."""
    return _run(url, lambda config: command.downgrade(config, revision))


def head() -> str:
    """The revision that this release speaks."""
    return _revisions()[0]


def current(connection: Connection) -> str | None:
    """The database's revision; None for one that was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def require_head(database: Database) -> None:
    """Raises SchemaOutOfDate with both revisions when the database's schema is older than this release's.

    A newer one will do: migrations only add, so that while a release is rolled out, or taken back, the one before goes
    on reading and writing.
    """
    with database.read() as connection:
        found = current(connection)
    if found != head() and not _is_newer(found):
        raise SchemaOutOfDate(
            f"The database is at schema {found or 'none'}, this release needs {head()}; run `gradprobe migrate`."
        )


def _is_newer(revision: str | None) -> bool:
    """Whether a later release migrated the database: this one does not know the revision."""
    return revision is not None and revision not in _revisions()


@cache
def _revisions() -> tuple[str, ...]:
    """All that this release knows, the newest first."""
    return tuple(script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions())


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
