"""`gradprobe demo`."""

from pathlib import Path
from typing import Annotated

import typer

from gradprobe.cli.exits import require
from gradprobe.cli.session import session_of
from gradprobe.cli.up import DATA_DIRECTORY_HELP


def demo(
    context: typer.Context,
    data_directory: Annotated[Path | None, typer.Option(help=DATA_DIRECTORY_HELP, show_default=False)] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the experiments and their diagnoses, and nothing else.")
    ] = False,
) -> None:
    """See vanishing gradients on this machine: three networks trained side by side, layer by layer.

    Sigmoid, ReLU and leaky ReLU; six layers of ten units each, on MNIST. Starts the whole stack, trains, shows every
    layer's gradients, and stops the stack. The measurements stay in the data directory.
    """
    require("gradprobe.cli.scenarios", extra="embedded").run_demo(session_of(context), data_directory, json)
