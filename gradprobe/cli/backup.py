"""`gradprobe backup`."""

from pathlib import Path
from typing import Annotated

import typer

from gradprobe.cli.exits import require


def backup(
    destination: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", show_default=False)],
) -> None:
    """Copy the SQLite database to a file, also while service and workers use it.

    To restore: stop them, put the file in the place of gradprobe.db, remove gradprobe.db-wal and gradprobe.db-shm, run
    `gradprobe migrate`, start them. For PostgreSQL use pg_dump; docs/operations.md says how.
    """
    settings = require("gradprobe.cli.environment", extra="server").read_settings()
    size = require("gradprobe.store.backup", extra="server").back_up(settings.database, destination)
    typer.echo(f"{destination}: {size:,} bytes")
