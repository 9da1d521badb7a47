"""What `gradprobe up` does. Imported only by that command, because it needs the server's libraries."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.table import Table
from sqlalchemy.engine import make_url

from gradprobe import __version__
from gradprobe.cli.environment import read_settings
from gradprobe.cli.exits import OK
from gradprobe.cli.session import Session
from gradprobe.cli.wording import commands
from gradprobe.client import ServerUnreachable
from gradprobe.embedded import ChildDied, Stack
from gradprobe.embedded.sizing import default_workers
from gradprobe.embedded.stack import DEFAULT_PORT


class Terminated(BaseException):
    """SIGTERM or SIGHUP: someone asks this process to end in an orderly way."""


def run_stack(session: Session, port: int, data_directory: Path | None, workers: int | None, quiet: bool) -> None:
    """Run the stack in the foreground until a signal, or until one of its processes ends by itself."""
    began = time.monotonic()
    stack = Stack(read_settings(data_directory), port=port, workers=workers or default_workers())
    try:
        with ended_by_signals(), running(session, stack, quiet):
            if quiet:
                typer.echo(stack.url)
            else:
                _describe(session, stack, time.monotonic() - began)
            stack.watch()
    except Terminated:
        raise typer.Exit(OK) from None
    finally:
        if stack.was_ready and not quiet:
            session.out.print("stopped")


@contextmanager
def running(session: Session, stack: Stack, quiet: bool = False) -> Iterator[Stack]:
    """The stack, with its steps told on the console; the end of a dead child's log goes to standard error."""
    try:
        with _told(session, stack, quiet):
            stack.start()
        try:
            yield stack
        except ServerUnreachable:
            stack.check()  # a dead child is the better explanation
            raise
    except ChildDied as error:
        typer.echo("\n".join(f"  | {line}" for line in error.log.splitlines()), err=True)
        raise
    finally:
        with _told(session, stack, quiet):
            stack.stop()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Terminated` here, so that everything is cleaned up as after Ctrl-C."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _told(session: Session, stack: Stack, quiet: bool) -> Iterator[None]:
    if quiet:
        yield
    elif session.out.is_terminal:
        with session.out.status("") as spinner:
            stack.announce = spinner.update
            yield
    else:
        stack.announce = typer.echo
        yield


def _describe(session: Session, stack: Stack, seconds: float) -> None:
    broker = make_url(stack.broker_url).render_as_string(hide_password=True)
    table = Table.grid(padding=(0, 2, 0, 2), pad_edge=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in (
        ("API", stack.url),
        ("dashboard", f"{stack.url}/ in a browser"),
        ("documentation", f"{stack.url}/docs"),
        ("data directory", str(stack.directory)),
        ("database", stack.settings.database.render_as_string(hide_password=True)),
        ("broker", f"{broker} ({'an embedded Valkey' if stack.embeds_broker else 'as set, not started here'})"),
        ("workers", str(stack.workers)),
        ("logs", str(stack.logs)),
    ):
        table.add_row(heading, text)
    option = "" if stack.port == DEFAULT_PORT else f" --url {stack.url}"
    session.out.print(f"[bold]Gradprobe {__version__} is ready[/bold] after {seconds:.1f} s")
    session.out.print(table, markup=False, soft_wrap=True)
    session.out.print("\nTry it from another terminal; Ctrl-C here stops everything:")
    lines = (
        f"gradprobe{option} submit --activation relu --watch",
        f"curl -X POST {stack.url}/experiments -H 'Content-Type: application/json' -d '{{}}'",
    )
    for line in commands(*lines):
        session.out.print(f"  {line}", markup=False, soft_wrap=True)
