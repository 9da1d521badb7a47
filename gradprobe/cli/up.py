"""`gradprobe up`."""

from pathlib import Path
from typing import Annotated

import typer

from gradprobe.cli.exits import require
from gradprobe.cli.session import session_of

DATA_DIRECTORY_HELP = (
    "Where the database, the broker's data, logs and data sets are.  [default: $GRADPROBE_DATA_DIRECTORY, or this "
    "user's data directory]"
)

WORKERS_HELP = (
    "Worker processes; each trains one experiment at a time, or several of one shape side by side.  [default: one a "
    "core, as far as the memory allows, at most 8]"
)


def up(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the API; 0 for any that is free.")] = 8000,
    data_directory: Annotated[Path | None, typer.Option(help=DATA_DIRECTORY_HELP, show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help=WORKERS_HELP, show_default=False)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but the URL, once it is ready.")] = False,
) -> None:
    """Run the whole stack on this machine: API, worker and broker, until Ctrl-C.

    It listens on the loopback interface alone, where nobody needs a key, and there is no option to change that: for a
    server that others can reach, `gradprobe serve`. What was measured stays in the data directory.
    """
    session = session_of(context)
    require("gradprobe.cli.supervise", extra="embedded").run_stack(session, port, data_directory, workers, quiet)
