"""`gradprobe serve`."""

import atexit
import os
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from gradprobe.cli.exits import require
from gradprobe.errors import DatabaseUnavailable, NoKey

if TYPE_CHECKING:
    from gradprobe.settings import Settings

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; any other than loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Processes that answer.")] = 1,
    patience: Annotated[
        int, typer.Option(min=0, max=3600, help="Seconds that running requests have to end when it is stopped.")
    ] = 10,
) -> None:
    """Run the API alone, in front of a database and a broker that are there; `gradprobe up` runs all of it.

    On any address but loopback every request needs a key, and without one in the database it refuses to start.
    """
    settings = require("gradprobe.cli.environment", extra="service").read_settings()
    if host not in _LOOPBACK and settings.authentication != "loopback_in_front":
        # For the processes that it starts: whoever connects, by whatever interface, needs a key.
        os.environ["GRADPROBE_AUTHENTICATION"] = "required"
        _require_key(settings, host)
    require("fastapi", extra="service")
    if settings.telemetry:
        require("gradprobe.telemetry", extra="service").require_installed()
    if processes > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # Each process writes its figures there, and whichever is asked for them adds up all of them.
        directory = tempfile.TemporaryDirectory(prefix="gradprobe-metrics-")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory.name
        atexit.register(directory.cleanup)
    require("gradprobe.logs", extra="service").configure(settings.log_format, settings.log_level)
    require("uvicorn", extra="service").run(
        "service.app:create_app",
        factory=True,
        host=host,
        port=port,
        workers=processes,
        timeout_graceful_shutdown=patience,
        timeout_keep_alive=settings.idle_connection_seconds,
        server_header=False,
        log_config=None,
    )


def _require_key(settings: "Settings", host: str) -> None:
    """Raises NoKey where there is no key. A database that is away is no reason: every request still needs one."""
    database = require("gradprobe.store.database", extra="service").Database(settings.database, pool_size=1)
    try:
        with database.read() as connection:
            found = require("gradprobe.store.keys", extra="service").any_valid(connection)
    except DatabaseUnavailable:
        return
    finally:
        database.close()
    if not found:
        raise NoKey(
            f"Others can reach {host}, so a key is needed and there is none yet; make one with "
            "`gradprobe keys create NAME`, then start it again."
        )
