"""`gradprobe migrate`."""

import typer

from gradprobe.cli.exits import require


def migrate() -> None:
    """Bring the database's schema to this release's.

    The database is $GRADPROBE_DATABASE_URL, or the SQLite file in $GRADPROBE_DATA_DIRECTORY. Doing it twice changes
    nothing.
    """
    settings = require("gradprobe.cli.environment", extra="server").read_settings()
    upgrade = require("gradprobe.store.migrate", extra="server").upgrade
    if not settings.database_url:
        settings.prepare_data_directory()
    revision = upgrade(settings.database)
    typer.echo(f"{settings.database.render_as_string(hide_password=True)} is at revision {revision}")
