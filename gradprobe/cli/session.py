"""What every command shares: the server's URL, the console, and which experiment an abbreviation means."""

import os
import sys
from dataclasses import dataclass, field

import typer
from rich.console import Console

from gradprobe.cli.exits import CommandError, usage
from gradprobe.client import Client, Retries
from gradprobe.identifiers import is_experiment_id
from gradprobe.resources import Experiment

ID_HELP = "An experiment's id; `last` for the newest; or the beginning or end of an id, if only one fits."

_IMPATIENT = Retries(number=3, first=0.1)
_NEWEST = 500
_WIDTH_OF_A_PIPE = 120


def console() -> Console:
    """A console without automatic colouring of numbers; as wide as the terminal, or wide enough in a pipe."""
    measured = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if measured else _WIDTH_OF_A_PIPE)


@dataclass(frozen=True)
class Session:
    """One call of the command line."""

    url: str | None
    api_key: str | None = field(default=None, repr=False)
    out: Console = field(default_factory=console)

    def connect(self) -> Client:
        """A client for the chosen server. Somebody waits for it: where no server is, that is soon said."""
        return Client(self.url, api_key=self.api_key or None, retries=_IMPATIENT)

    def print_json(self, document: str) -> None:
        """A document as it is, for other programs: no colours, no wrapping."""
        typer.echo(document)


def session_of(context: typer.Context) -> Session:
    """The session that the group's callback made."""
    found = context.obj
    if not isinstance(found, Session):
        raise TypeError("a command was started without its group")
    return found


def resolve(client: Client, given: str) -> str:
    """The id that `given` means.

    Raises:
        CommandError: none fits, or several do.
    """
    if is_experiment_id(given):
        return given
    if given == "last":
        newest = next(iter(client.list(limit=1)), None)
        if newest is None:
            raise CommandError(f"There is no experiment at {client.url} yet; submit one with `gradprobe submit`")
        return newest.id
    fits = [experiment for experiment in client.list(limit=_NEWEST) if _fits(experiment, given)]
    if len(fits) == 1:
        return fits[0].id
    if not fits:
        raise CommandError(
            f"No id among the newest {_NEWEST} experiments begins or ends with {given!r}; see `gradprobe list`"
        )
    some = ", ".join(experiment.id for experiment in fits[:3]) + (", …" if len(fits) > 3 else "")
    raise usage(f"{given!r} fits {len(fits)} experiments ({some}); give more of the id")


def _fits(experiment: Experiment, given: str) -> bool:
    return bool(given) and (experiment.id.startswith((given, f"exp_{given}")) or experiment.id.endswith(given))
