"""`gradprobe submit`."""

from typing import Annotated, Any

import typer
from rich.table import Table

from gradprobe.cli import options
from gradprobe.cli.exits import FAILED
from gradprobe.cli.session import Session, session_of
from gradprobe.cli.specfile import OPTION_PATHS, build
from gradprobe.cli.watch import follow
from gradprobe.cli.wording import describe, one_line, status_text
from gradprobe.resources import Experiment
from gradprobe.state import Status


def submit(  # noqa: PLR0913 - each is an option of the command line
    context: typer.Context,
    *,
    spec_file: options.SpecFile = None,
    activation: options.Activation = None,
    initialization: options.Initialization = None,
    depth: options.Depth = None,
    width: options.Width = None,
    optimizer: options.Optimizer = None,
    learning_rate: options.LearningRate = None,
    iterations: options.Iterations = None,
    batch_size: options.BatchSize = None,
    seed: options.Seed = None,
    dataset: options.Dataset = None,
    device: options.Device = None,
    name: options.Name = None,
    tag: options.Tags = None,
    set_: options.Fields = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it has ended.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the experiment's document.")] = False,
) -> None:
    """Submit an experiment.

    Without options: the classic vanishing gradient, six sigmoid layers of ten units on MNIST. A spec file is read
    first, the options override it, --set overrides both.
    """
    given: dict[str, Any] = {option: value for option, value in locals().items() if option in OPTION_PATHS}
    session = session_of(context)
    spec = build(spec_file, given, tag or (), set_ or ())
    with session.connect() as client:
        experiment = client.create(spec)
        if not json:
            _announce(session, client.url, experiment, watch)
        if watch:
            experiment = follow(session, client, experiment, quiet=json)
    if json:
        session.print_json(experiment.model_dump_json(indent=2))
    if watch and experiment.status is not Status.SUCCEEDED:
        raise typer.Exit(FAILED)


def _announce(session: Session, url: str, experiment: Experiment, watched: bool) -> None:
    session.out.print(experiment.id, status_text(experiment.status), style="bold")
    table = Table.grid(padding=(0, 2, 0, 2), pad_edge=True)
    if experiment.name:
        table.add_row("name", one_line(experiment.name))
    for heading, text in describe(experiment.spec):
        table.add_row(heading, one_line(text))
    table.add_row("url", f"{url}/experiments/{experiment.id}")
    if not watched:
        table.add_row("next", f"gradprobe watch {experiment.id}")
        table.add_row("", f"gradprobe show {experiment.id}")
    session.out.print(table, markup=False)
