"""`gradprobe archive`."""

import json as json_module
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradprobe.cli import options
from gradprobe.cli.durations import seconds_of
from gradprobe.cli.exits import FAILED, require, usage
from gradprobe.cli.session import session_of
from gradprobe.cli.store import opened

if TYPE_CHECKING:
    from gradprobe.archiving import Moved
    from gradprobe.objects import ObjectStore
    from gradprobe.store.database import Database

_NAMED_AT_MOST = 10


def archive(
    context: typer.Context,
    older_than: Annotated[
        str, typer.Option(help="Experiments that ended so long ago: 1h, 30d, 8w; 0h: all that ended.")
    ] = "1h",
    check: Annotated[bool, typer.Option("--check", help="Move nothing; compare the bucket with the database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --check: remove objects that nothing knows.")] = False,
    back: Annotated[
        bool, typer.Option("--back", help="Move all that is in the object store into the database again.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Move what ended experiments measured out of the database into $GRADPROBE_OBJECT_STORE, s3://BUCKET/PREFIX.

    It is read as before. Objects of experiments that were deleted are removed. Run it from time to time, by cron or a
    CronJob. The database is $GRADPROBE_DATABASE_URL, or the SQLite file in $GRADPROBE_DATA_DIRECTORY.
    """
    if yes and not check:
        raise usage("--yes goes with --check")
    if check and back:
        raise usage("give --check or --back, not both")
    seconds = 0.0 if older_than == "0h" else seconds_of(older_than)
    archiving = require("gradprobe.archiving", extra="server")
    with opened(archiving.SIDE_BY_SIDE) as (settings, database):
        store: ObjectStore | None = require("gradprobe.objects", extra="server").opened(settings)
        if store is None:
            raise usage("there is no object store; set GRADPROBE_OBJECT_STORE=s3://BUCKET/PREFIX")
        if check:
            document, sentence = _compared(archiving, database, store, yes)
        elif back:
            document = _sum(archiving.bring_back(database, store))
            document["removed"] = archiving.remove_condemned(database, store)
            sentence = f"{_counted(document)} moved back into the database"
        else:
            document = _sum(archiving.move_all(database, store, seconds))
            document["removed"] = archiving.remove_condemned(database, store)
            sentence = f"{_counted(document)} moved; {document['removed']:,} objects removed"
    if json:
        session_of(context).print_json(json_module.dumps(document))
    else:
        typer.echo(sentence)
    if document.get("missing"):
        raise typer.Exit(FAILED)


def _sum(moved: "Iterable[Moved]") -> dict[str, Any]:
    sizes = [one.size for one in moved]
    return {"experiments": len(sizes), "bytes": sum(sizes)}


def _counted(document: dict[str, Any]) -> str:
    return f"{document['experiments']:,} experiments, {document['bytes']:,} bytes"


def _compared(archiving: Any, database: "Database", store: "ObjectStore", remove: bool) -> tuple[dict[str, Any], str]:
    found = archiving.compare(database, store)
    if remove:
        store.remove(found.strangers)
    document = {"missing": found.missing, "strangers": found.strangers, "deleted": remove}
    done = "removed" if remove else "would be removed; --yes does it"
    lost = ", ".join(found.missing[:_NAMED_AT_MOST])
    return document, "\n".join(
        [
            f"{len(found.missing):,} objects are missing{': ' if lost else ''}{lost}",
            f"{len(found.strangers):,} objects that nothing knows: {done}",
        ]
    )
