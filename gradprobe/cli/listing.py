"""`gradprobe list`."""

from enum import StrEnum
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.table import Table
from rich.text import Text

from gradprobe.cli.session import session_of
from gradprobe.cli.wording import NOTHING, age, fixed, network, one_line, percent, status_text
from gradprobe.resources import Experiment
from gradprobe.state import Status

_WIDE_ENOUGH_FOR_IDS = 118
_END_OF_ID = 8


class Order(StrEnum):
    """What a list is sorted by; with a minus descending."""

    CREATED = "created"
    NEWEST = "-created"
    NAME = "name"
    NAME_DESCENDING = "-name"
    STATUS = "status"
    STATUS_DESCENDING = "-status"
    VERDICT = "verdict"
    VERDICT_DESCENDING = "-verdict"
    ACCURACY = "accuracy"
    BEST = "-accuracy"


def list_experiments(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    context: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only those in this state.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="KEY=VALUE", help="Only those with this tag.")] = None,
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    sort: Annotated[
        Order,
        typer.Option(metavar="ORDER", help="created, name, status, verdict, accuracy; a minus before it: descending."),
    ] = Order.NEWEST,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print the documents as a JSON array.")] = False,
) -> None:
    """List experiments, newest first or in another order."""
    session = session_of(context)
    # The contract writes a tag key:value; on a command line key=value is what `submit --tag` takes.
    wanted = tag.replace("=", ":", 1) if tag and ":" not in tag.partition("=")[0] else tag
    order = None if sort is Order.NEWEST else sort.value  # a server of an older release knows no other, by no name
    with session.connect() as client:
        found = list(client.list(status=status, tag=wanted, name=name, sort=order, limit=limit))
        url = client.url
    if json:
        session.print_json(TypeAdapter(list[Experiment]).dump_json(found, indent=2).decode())
    elif found:
        session.out.print(_table(found, session.out.width >= _WIDE_ENOUGH_FOR_IDS))
    else:
        which = "that fits" if status or tag or name else "yet"
        session.out.print(f"No experiment {which} at {url}; submit one with `gradprobe submit`", markup=False)


def _table(experiments: list[Experiment], whole_ids: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id" if whole_ids else "id (end)", no_wrap=True)
    table.add_column("name", overflow="fold")  # the one column that gives way
    table.add_column("status", no_wrap=True)
    table.add_column("done", justify="right", no_wrap=True)
    table.add_column("activation × depth × width" if whole_ids else "network", no_wrap=True)
    for heading in ("loss", "test accuracy" if whole_ids else "accuracy", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    for experiment in experiments:
        done = 100 * experiment.progress.iteration // experiment.progress.iterations
        result = experiment.result
        table.add_row(
            experiment.id if whole_ids else experiment.id[-_END_OF_ID:],
            Text(one_line(experiment.name or NOTHING)),
            status_text(experiment.status),
            f"{done} %",
            Text(network(experiment.spec)),
            fixed(result.final_loss if result else None),
            percent(result.test_accuracy if result else None),
            age(experiment.created_at),
        )
    return table
