"""`gradprobe run`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gradprobe.cli import options
from gradprobe.cli.exits import require
from gradprobe.cli.session import session_of
from gradprobe.cli.specfile import OPTION_PATHS, build, validated
from gradprobe.cli.up import DATA_DIRECTORY_HELP


def run(  # noqa: PLR0913 - each is an option of the command line
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
    data_directory: Annotated[Path | None, typer.Option(help=DATA_DIRECTORY_HELP, show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the diagnosis's document, and nothing else.")] = False,
) -> None:
    """Train one experiment on this machine, with no server running: progress, every layer's gradients, the verdict.

    Without options: the classic vanishing gradient, six sigmoid layers of ten units on MNIST. A spec file is read
    first, the options override it, --set overrides both. What was measured stays in the data directory, where
    `gradprobe up` finds it. Ctrl-C cancels the experiment.
    """
    given: dict[str, Any] = {option: value for option, value in locals().items() if option in OPTION_PATHS}
    spec = build(spec_file, given, tag or (), set_ or ())
    validated(spec)  # before anything is started for it
    require("gradprobe.cli.alone", extra="embedded").run_alone(session_of(context), spec, data_directory, json)
