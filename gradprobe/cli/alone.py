"""What `gradprobe run` does. Imported only by that command, because it needs the server's libraries."""

from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from gradprobe.cli.diagnose import print_diagnosis
from gradprobe.cli.environment import read_settings
from gradprobe.cli.exits import FAILED, CommandError
from gradprobe.cli.session import Session
from gradprobe.cli.show import print_layers
from gradprobe.cli.supervise import Terminated, ended_by_signals, running
from gradprobe.cli.watch import follow_to_the_end
from gradprobe.client import Client
from gradprobe.embedded import Stack
from gradprobe.resources import DiagnosisDocument, Experiment
from gradprobe.state import Status


def run_alone(session: Session, spec: Any, data_directory: Path | None, json: bool) -> None:
    """Start the stack, train one experiment, say what was found, stop the stack.

    Raises:
        CommandError: it was terminated, or the experiment failed.
    """
    stack = Stack(read_settings(data_directory))
    # A key in the environment is another server's: this one was made a moment ago.
    api_key = None if stack.settings.authentication == "required" else ""
    try:
        with ended_by_signals(), running(session, stack, quiet=json), Client(stack.url, api_key=api_key) as client:
            ended = _trained(session, client, client.create(spec), quiet=json)
            _report(session, client, ended, json)
    except Terminated:
        raise CommandError("terminated before the end; the experiment is cancelled") from None
    if not json:
        session.out.print(Text(f"\nKept in {stack.directory}; `gradprobe up` serves it, dashboard included.", "dim"))
    if ended.status is not Status.SUCCEEDED:
        raise typer.Exit(FAILED)


def _trained(session: Session, client: Client, experiment: Experiment, quiet: bool) -> Experiment:
    try:
        return follow_to_the_end(session, client, experiment, quiet)
    except (KeyboardInterrupt, Terminated):
        # Otherwise whoever starts a worker on this data directory next would train it to its end.
        client.cancel(experiment.id)
        typer.echo(f"\n{experiment.id} is cancelled.", err=True)
        raise


def _report(session: Session, client: Client, ended: Experiment, json: bool) -> None:
    if not json:
        print_layers(session, client, ended)
        session.out.print()
    found = client.document(DiagnosisDocument, ended.id, "diagnosis", {})
    if json:
        session.print_json(found.model_dump_json(indent=2))
    else:
        print_diagnosis(session, found)
