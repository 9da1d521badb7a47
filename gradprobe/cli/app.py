"""The command `gradprobe`: its group, its commands, and how an error becomes one line and an exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from gradprobe import __version__
from gradprobe.cli import (
    archive,
    backup,
    demo,
    diagnose,
    export,
    gradients,
    import_run,
    keys,
    lifecycle,
    listing,
    migrate,
    predict,
    purge,
    remedy,
    serve,
    show,
    submit,
    sweep,
    up,
    watch,
)
from gradprobe.cli import (
    run as run_command,
)
from gradprobe.cli.exits import EPILOG, FAILED, INTERRUPTED, OK, UNREACHABLE, CommandError
from gradprobe.cli.session import Session
from gradprobe.cli.wording import one_line
from gradprobe.client import DEFAULT_URL, ServerUnreachable
from gradprobe.errors import GradprobeError

app = typer.Typer(
    name="gradprobe",
    rich_markup_mode="markdown",
    epilog=EPILOG,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def gradprobe(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help=f"The server to speak to.  [default: {DEFAULT_URL}]", envvar="GRADPROBE_URL"),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The key that opens it; better in $GRADPROBE_API_KEY or in the file $GRADPROBE_API_KEY_FILE, since "
            "others on this machine can read a command line.",
            envvar="GRADPROBE_API_KEY",
            show_envvar=False,
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Do the gradients reach every layer of a network in training?

    Gradprobe trains a network and records every layer's gradients. New here? `gradprobe demo` shows it on this
    machine; `gradprobe run` trains one of yours; `gradprobe up` starts a server, and then `gradprobe submit
    --activation relu --watch` runs an experiment on it.
    """
    if version:
        typer.echo(f"gradprobe {__version__}")
        raise typer.Exit(OK)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(OK)
    context.obj = Session(url, api_key)


_ON_A_SERVER: dict[str, Callable[..., None]] = {
    "submit": submit.submit,
    "list": listing.list_experiments,
    "show": show.show,
    "watch": watch.watch,
    "gradients": gradients.gradients,
    "diagnose": diagnose.diagnose,
    "export": export.export,
    "import": import_run.import_run,
    "remedy": remedy.remedy,
    "sweep": sweep.sweep,
    "compare": sweep.compare,
    "cancel": lifecycle.cancel,
    "retry": lifecycle.retry,
    "delete": lifecycle.delete,
}
_THEORY: dict[str, Callable[..., None]] = {"predict": predict.predict}
_HERE: dict[str, Callable[..., None]] = {"demo": demo.demo, "run": run_command.run, "up": up.up}
_OPERATION: dict[str, Callable[..., None]] = {
    "serve": serve.serve,
    "migrate": migrate.migrate,
    "backup": backup.backup,
    "purge": purge.purge,
    "archive": archive.archive,
}
_OPERATORS = "For those who run a server"

_PANELS = {
    "Experiments on a server": _ON_A_SERVER,
    "Without a server": _THEORY,
    "The whole stack on this machine": _HERE,
    _OPERATORS: _OPERATION,
}

for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(keys.app, name="keys", rich_help_panel=_OPERATORS)


def run(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; an error is one line on standard error."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="gradprobe", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("GRADPROBE_TRACEBACK"):
            raise
        message, code = _explain(error)
        typer.echo(f"gradprobe: {one_line(message)}", err=True)
    return code if isinstance(code, int) else OK


def main() -> NoReturn:
    """The entry point of the command `gradprobe`."""
    sys.exit(run())


def _explain(error: Exception) -> tuple[str, int]:
    """The line for a person and the exit code."""
    match error:
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "gradprobe"
            said = error.format_message().rstrip(".").replace(": Value error, ", ": ")
            return f"{said}; see {command} --help", error.exit_code
        case CommandError():
            return error.message, error.exit_code
        case ServerUnreachable():
            return error.message, UNREACHABLE
        case GradprobeError():
            return f"{error.message} [{error.code}]", FAILED
        case _:
            return f"unexpected {type(error).__name__}: {error} (GRADPROBE_TRACEBACK=1 shows where)", FAILED
