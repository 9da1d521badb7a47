"""`gradprobe purge`."""

import json as json_module
from typing import TYPE_CHECKING, Annotated

import typer

from gradprobe.cli.durations import seconds_of
from gradprobe.cli.exits import require
from gradprobe.cli.session import session_of
from gradprobe.cli.store import opened
from gradprobe.errors import ObjectStoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from gradprobe.settings import Settings
    from gradprobe.store.database import Database

_DAY = 86_400.0
_HOUR = 3_600.0


def purge(
    context: typer.Context,
    older_than: Annotated[
        str | None,
        typer.Option(help="Experiments that ended so long ago: 30d, 8w, 1y.  [default: $GRADPROBE_RETENTION_DAYS]"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete; without it, only say what would be.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Delete what is older than it is to be kept: ended experiments with all they measured, and remembered requests.

    Where an object store is set, what of them is there as well, or else with the next `gradprobe archive`.
    The database is $GRADPROBE_DATABASE_URL, or the SQLite file in $GRADPROBE_DATA_DIRECTORY.
    """
    retention = require("gradprobe.store.retention", extra="server")
    sweeps = require("gradprobe.store.sweeps", extra="server")
    with opened() as (settings, database):
        seconds = settings.retention_days * _DAY if older_than is None else seconds_of(older_than)
        remembered = settings.idempotency_hours * _HOUR
        with database.read() as connection:
            counts = {
                "experiments": retention.count_old(connection, seconds) if seconds else 0,
                "idempotency_keys": retention.count_forgotten(connection, remembered),
            }
        if yes:
            counts = dict.fromkeys(counts, 0)
            while seconds and (deleted := _deleted(database, retention.delete_old, seconds)):
                counts["experiments"] += deleted
            if seconds:
                _deleted(database, sweeps.delete_empty, seconds)
            counts["idempotency_keys"] = _deleted(database, retention.delete_forgotten, remembered)
            _remove_objects(settings, database)
    if json:
        session_of(context).print_json(json_module.dumps(counts | {"deleted": yes}))
    else:
        typer.echo(_sentence(counts, seconds, yes))


def _sentence(counts: dict[str, int], seconds: float, done: bool) -> str:
    what = f"{counts['idempotency_keys']:,} remembered requests"
    if seconds:
        what = f"{counts['experiments']:,} experiments that ended more than {seconds / _DAY:g} days ago, and {what}"
    why = "" if seconds else ". Experiments are kept: give --older-than, or set GRADPROBE_RETENTION_DAYS"
    return f"{what}: {'deleted' if done else 'would be deleted; --yes does it'}{why}"


def _remove_objects(settings: "Settings", database: "Database") -> None:
    if not settings.object_store:
        return
    store = require("gradprobe.objects", extra="objects").opened(settings)
    try:
        require("gradprobe.archiving", extra="server").remove_condemned(database, store)
    except ObjectStoreUnavailable:
        typer.echo("The object store does not answer; the next `gradprobe archive` removes what is there.", err=True)


def _deleted(database: "Database", action: "Callable[[Connection, float], int]", seconds: float) -> int:
    with database.write() as connection:
        return action(connection, seconds)
