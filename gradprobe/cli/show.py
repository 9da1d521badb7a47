"""`gradprobe show`."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gradprobe.cli.diagnose import verdict_line
from gradprobe.cli.layers import TITLES, layer_table
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.track import tracks_of
from gradprobe.cli.wording import describe, one_line, outcome, progress, since, status_text
from gradprobe.client import Client
from gradprobe.resources import Experiment


def show(
    context: typer.Context,
    experiment: Annotated[str, typer.Argument(help=ID_HELP)],
    json: Annotated[bool, typer.Option("--json", help="Print the experiment's document.")] = False,
) -> None:
    """Show one experiment: what it is, what came of it, and every layer's gradients."""
    session = session_of(context)
    with session.connect() as client:
        found = client.get(resolve(client, experiment))
        if json:
            session.print_json(found.model_dump_json(indent=2))
        else:
            print_experiment(session, found)
            if found.verdict:
                session.out.print(Text("  verdict  ", style="dim").append_text(verdict_line(client, found)))
            print_layers(session, client, found)


def print_experiment(session: Session, experiment: Experiment) -> None:
    """The experiment itself, heading by heading."""
    title = Text.assemble((experiment.id, "bold"), "  ", status_text(experiment.status))
    if experiment.verdict:
        title.append(f"  {one_line(experiment.verdict.replace('_', ' '))}", style="bold")
    session.out.print(title)
    table = Table.grid(padding=(0, 2, 0, 2), pad_edge=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for heading, text in _facts(experiment):
        table.add_row(heading, Text(one_line(text), style="red" if heading == "error" else ""))
    session.out.print(table)


def print_layers(session: Session, client: Client, experiment: Experiment) -> None:
    """A table of mean absolute gradients per kind that was recorded."""
    for kind, track in tracks_of(experiment).items():
        track.fetch(client, experiment)
        session.out.print()
        if track.recorded:
            session.out.print(layer_table(track, session.out.width))
        else:
            session.out.print(f"{TITLES[kind]}: nothing recorded yet")


def _facts(experiment: Experiment) -> list[tuple[str, str]]:
    facts = [("name", experiment.name or ""), *describe(experiment.spec)]
    facts.append(("tags", ", ".join(f"{key}={value}" for key, value in experiment.tags.items())))
    facts.append(("notes", experiment.notes or ""))
    attempt = f", attempt {experiment.attempt}" if experiment.attempt > 1 else ""
    facts.append(("progress", f"{progress(experiment)}{attempt}, created {since(experiment.created_at)}"))
    facts.append(("result", outcome(experiment) or ""))
    if experiment.error:
        facts.append(("error", f"{experiment.error.message} [{experiment.error.code}]"))
    made = experiment.provenance
    if made:
        beside = f"; side by side with {made.stacked - 1} others" if made.stacked and made.stacked > 1 else ""
        facts.append(
            (
                "made by",
                f"gradprobe {made.gradprobe}, torch {made.torch}, Python {made.python} on {made.platform}; "
                f"{made.device}, threads: {made.threads}; worker {made.worker}{beside}",
            )
        )
        facts.append(("data's SHA-256", made.dataset_sha256 or ""))
    return [(heading, text) for heading, text in facts if text]
