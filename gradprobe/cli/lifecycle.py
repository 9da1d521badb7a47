"""`gradprobe cancel`, `retry` and `delete`."""

import json as json_module
import sys
from typing import Annotated

import typer
from rich.text import Text

from gradprobe.cli import options
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.wording import status_text
from gradprobe.resources import Experiment


def cancel(
    context: typer.Context, experiment: Annotated[str, typer.Argument(help=ID_HELP)], json: options.Json = False
) -> None:
    """Ask an experiment to stop. What it has measured stays; one that has ended is left as it is."""
    session = session_of(context)
    with session.connect() as client:
        found = client.cancel(resolve(client, experiment))
    _report(session, found, json)
    if not found.status.ended and not json:
        session.out.print(f"It stops at its next look; see `gradprobe watch {found.id}`", markup=False)


def retry(
    context: typer.Context, experiment: Annotated[str, typer.Argument(help=ID_HELP)], json: options.Json = False
) -> None:
    """Queue an experiment again that failed or was cancelled."""
    session = session_of(context)
    with session.connect() as client:
        _report(session, client.retry(resolve(client, experiment)), json)


def delete(
    context: typer.Context,
    experiment: Annotated[str, typer.Argument(help=ID_HELP)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print its id; ask nothing.")] = False,
) -> None:
    """Delete an experiment and everything that was measured. Asks first where someone can answer."""
    session = session_of(context)
    with session.connect() as client:
        found = resolve(client, experiment)
        if not (yes or json) and sys.stdin.isatty():
            typer.confirm(f"Delete {found} and its measurements?", abort=True)
        client.delete(found)
    if json:
        session.print_json(json_module.dumps({"id": found, "deleted": True}))
    else:
        session.out.print(f"{found} deleted", markup=False)


def _report(session: Session, experiment: Experiment, json: bool) -> None:
    if json:
        session.print_json(experiment.model_dump_json(indent=2))
        return
    session.out.print(Text.assemble((experiment.id, "bold"), "  ", status_text(experiment.status)))
