"""`gradprobe keys create`, `list` and `revoke`: on the database itself, so that the first key needs no other."""

import json as json_module
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gradprobe.access import OWNER_PATTERN, Scope
from gradprobe.cli.durations import seconds_of
from gradprobe.cli.exits import require, usage
from gradprobe.cli.session import session_of
from gradprobe.cli.store import WHICH, opened
from gradprobe.cli.wording import NOTHING, age, one_line

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gradprobe.store.keys import Key


app = typer.Typer(
    help=f"Make, list and revoke the keys that open a server. {WHICH}",
    short_help="Make, list and revoke the keys that open a server.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("create")
def create(
    context: typer.Context,
    *,
    owner: Annotated[str, typer.Argument(help="Whose experiments it opens: a person, a team, a program.")],
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="read, write, or admin for everybody's; repeat it.  [default: read, write]"),
    ] = None,
    expires: Annotated[str, typer.Option(help="After 12h, 30d, 8w, 1y; or never.")] = "1y",
    note: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the key with all that is known of it.")] = False,
) -> None:
    """Make a key and print it, this once: only its SHA-256 is stored."""
    if not re.fullmatch(OWNER_PATTERN, owner):
        raise usage(f"{owner!r} can't be an owner: up to 64 letters, digits and . _ @ + -, the first a letter or digit")
    lifetime = None if expires == "never" else seconds_of(expires)
    scopes = scope or [Scope.READ, Scope.WRITE]
    with _transaction() as connection:
        key, secret = require("gradprobe.store.keys", extra="server").create(connection, owner, scopes, lifetime, note)
    if json:
        session_of(context).print_json(json_module.dumps({"key": secret} | _document(key)))
        return
    typer.echo(secret)
    until = f"until {_time(key.expires_at)}" if key.expires_at else "for ever"
    typer.echo(f"{key.id}: {', '.join(key.scopes)} for {owner}, {until}. It is shown this once; keep it.", err=True)


@app.command("list")
def list_keys(
    context: typer.Context, json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False
) -> None:
    """List all keys, without what would open anything."""
    session = session_of(context)
    with _transaction() as connection:
        found: list[Key] = require("gradprobe.store.keys", extra="server").every(connection)
    if json:
        session.print_json(json_module.dumps([_document(key) for key in found]))
    elif not found:
        session.out.print("There is no key yet; make one with `gradprobe keys create NAME`", markup=False)
    else:
        session.out.print(_table(found))


@app.command("revoke")
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Its id (key_…) or how it begins (gp_ and eight characters).")],
    json: Annotated[bool, typer.Option("--json", help="Print what is known of it.")] = False,
) -> None:
    """End a key, at once and for good."""
    with _transaction() as connection:
        found: Key = require("gradprobe.store.keys", extra="server").revoke(connection, key)
    if json:
        session_of(context).print_json(json_module.dumps(_document(found)))
    else:
        typer.echo(f"{found.id} ({found.prefix}…, {found.owner}) opens nothing any more")


@contextmanager
def _transaction() -> "Iterator[Connection]":
    with opened() as (_, database), database.write() as connection:
        yield connection


def _document(key: "Key") -> dict[str, Any]:
    times = {name: _time(value) for name, value in asdict(key).items() if name.endswith("_at")}
    return asdict(key) | {"scopes": list(key.scopes)} | times


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:-6] + "Z"


def _table(found: "list[Key]") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("id", "begins with", "owner", "scopes", "made", "last used", "expires", "note"):
        table.add_column(heading, no_wrap=heading != "note")
    for key in found:
        ends = "revoked" if key.revoked_at else (_time(key.expires_at) or "never")
        made, used = (_ago(value) for value in (key.created_at, key.last_used_at))
        table.add_row(key.id, key.prefix, key.owner, ", ".join(key.scopes), made, used, ends, one_line(key.note or ""))
    return table


def _ago(seconds: float | None) -> str:
    return NOTHING if seconds is None else age(datetime.fromtimestamp(seconds, UTC))
