"""The database of the settings, for the commands that work on it directly."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gradprobe.cli.exits import require

if TYPE_CHECKING:
    from gradprobe.settings import Settings
    from gradprobe.store.database import Database

WHICH = "The database is $GRADPROBE_DATABASE_URL, or the SQLite file in $GRADPROBE_DATA_DIRECTORY: that of the server."


@contextmanager
def opened(connections: int = 1) -> "Iterator[tuple[Settings, Database]]":
    """The settings and their database, with so many connections, which must be at this release's schema.

    Raises:
        SchemaOutOfDate, DatabaseUnavailable
    """
    settings = require("gradprobe.cli.environment", extra="server").read_settings()
    database = require("gradprobe.store.database", extra="server").Database(settings.database, pool_size=connections)
    try:
        require("gradprobe.store.migrate", extra="server").require_head(database)
        yield settings, database
    finally:
        database.close()
