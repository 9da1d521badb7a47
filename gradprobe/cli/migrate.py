"""`gradprobe migrate`."""

import json as json_module

import typer

from gradprobe.cli import options
from gradprobe.cli.exits import require
from gradprobe.cli.session import session_of


def migrate(context: typer.Context, json: options.Json = False) -> None:
    """Bring the database's schema to this release's.

    The database is $GRADPROBE_DATABASE_URL, or the SQLite file in $GRADPROBE_DATA_DIRECTORY. Doing it twice changes
    nothing.
    """
    settings = require("gradprobe.cli.environment", extra="server").read_settings()
    upgrade = require("gradprobe.store.migrate", extra="server").upgrade
    if not settings.database_url:
        settings.prepare_data_directory()
    revision = upgrade(settings.database)
    where = settings.database.render_as_string(hide_password=True)
    if json:
        session_of(context).print_json(json_module.dumps({"database": where, "revision": revision}))
    else:
        typer.echo(f"{where} is at revision {revision}")
