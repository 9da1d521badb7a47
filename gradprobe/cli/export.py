"""`gradprobe export`."""

import json as json_module
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gradprobe.cli.exits import CommandError, require, usage
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.client.export import Export

_TO_STANDARD_OUTPUT = Path("-")


class FormName(StrEnum):
    """A file's format."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    TENSORBOARD = "tensorboard"
    PNG = "png"
    HTML = "html"


class Tool(StrEnum):
    """A tracker that takes the experiment as a run of its own."""

    MLFLOW = "mlflow"
    WANDB = "wandb"


class TableTitle(StrEnum):
    """Which table of what was measured."""

    LAYERS = "layers"
    METRICS = "metrics"
    HISTOGRAMS = "histograms"


def export(  # noqa: PLR0913 - each is an option of the command line
    context: typer.Context,
    *,
    experiment: Annotated[str, typer.Argument(help=ID_HELP)],
    form: Annotated[
        FormName,
        typer.Option(
            "--format",
            "-f",
            help="csv, parquet and arrow are tables; tensorboard is an event file; png shows the gradient flow; html "
            "is a page with verdict, pictures and findings.",
        ),
    ] = FormName.HTML,
    table: Annotated[
        TableTitle | None,
        typer.Option(help="Of the tables: a row for each layer and step, for each step, or for each bin."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, a directory, or - for standard output.  [default: here]"),
    ] = None,
    start: Annotated[int | None, typer.Option(min=0, help="The first iteration.")] = None,
    stop: Annotated[int | None, typer.Option(min=1, help="The iteration to stop before.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    to: Annotated[
        Tool | None,
        typer.Option(help="No file: log the ended experiment there, spec, results, verdict, report; twice is one run."),
    ] = None,
    project: Annotated[str, typer.Option(help="With --to: wandb's project, MLflow's experiment.")] = "gradprobe",
    json: Annotated[bool, typer.Option("--json", help="Print where the file is, and its size, as JSON.")] = False,
) -> None:
    """Write what was measured to a file for another tool: TensorBoard, pandas, a spreadsheet, a browser."""
    if to is not None:
        if force or any(given is not None for given in (table, output, start, stop)):
            raise usage("With --to no file is written; leave --table, --output, --start, --stop and --force out")
        _log(session_of(context), experiment, to, project, json)
        return
    if table is not None and form not in (FormName.CSV, FormName.PARQUET, FormName.ARROW):
        raise usage(f"A file of format {form} is no table; leave --table out")
    if json and output == _TO_STANDARD_OUTPUT:
        raise usage("With --output - the file itself is printed; leave --json out")
    session = session_of(context)
    with session.connect() as client:
        identifier = resolve(client, experiment)
        found = client.export(identifier, form.value, table.value if table else None, start, stop)
    if output == _TO_STANDARD_OUTPUT:
        sys.stdout.buffer.write(found.content)
        return
    path = _saved(found, output or Path(), force)
    if json:
        session.print_json(json_module.dumps({"path": str(path), "bytes": len(found.content)}))
        return
    typer.echo(f"{path}: {len(found.content):,} bytes")
    if form is FormName.TENSORBOARD:
        typer.echo(f"To see it: tensorboard --logdir {path.parent}")


def _saved(found: Export, output: Path, force: bool) -> Path:
    try:
        return found.save(output, overwrite=force)
    except FileExistsError as error:
        raise CommandError(f"{error.filename} is there already; give another --output, or --force") from error
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error


def _log(session: Session, experiment: str, tool: Tool, project: str, json: bool) -> None:
    trackers = require("gradprobe.trackers", extra=tool.value)  # late: it needs NumPy, and most commands do not
    log = trackers.log_to_mlflow if tool is Tool.MLFLOW else trackers.log_to_wandb
    with session.connect() as client:
        logged = log(client, resolve(client, experiment), project)
    if json:
        session.print_json(json_module.dumps({"tool": tool, "run": logged.run_id, "where": logged.where}))
    else:
        typer.echo(f"{tool}: run {logged.run_id} of {project}, {logged.where}")
