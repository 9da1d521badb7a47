"""`gradprobe backup`."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from gradprobe.cli import options
from gradprobe.cli.exits import require
from gradprobe.cli.session import session_of


def backup(
    context: typer.Context,
    destination: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Copy the SQLite database to a file, also while service and workers use it.

    To restore: stop them, put the file in the place of gradprobe.db, remove gradprobe.db-wal and gradprobe.db-shm, run
    `gradprobe migrate`, start them. For PostgreSQL use pg_dump; docs/operations.md says how.
    """
    settings = require("gradprobe.cli.environment", extra="server").read_settings()
    size = require("gradprobe.store.backup", extra="server").back_up(settings.database, destination)
    if json:
        session_of(context).print_json(json_module.dumps({"file": str(destination), "bytes": size}))
    else:
        typer.echo(f"{destination}: {size:,} bytes")
