"""`gradprobe sweep` and `gradprobe compare`."""

import json as json_module
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gradprobe.cli import options
from gradprobe.cli.exits import FAILED, usage
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.specfile import build
from gradprobe.cli.wording import NOTHING, fixed, one_line, percent, ratio, status_text
from gradprobe.client import Client
from gradprobe.group_resources import ComparedExperiment, Remedies, Sweep, SweepComparison
from gradprobe.resources import Result
from gradprobe.state import Status

_WIDE = 110  # characters that all columns take


def sweep(  # noqa: PLR0913 - each is an option of the command line
    context: typer.Context,
    *,
    spec_file: Annotated[
        str | None,
        typer.Argument(help="The base in JSON or YAML, or - for JSON on standard input.", show_default=False),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POINTER=VALUES",
            help="A field and its values, such as /network/activation=relu,tanh or /training/seed='[0, 1]'; repeat it.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Any field of the base; repeat it for more.")
    ] = None,
    name: options.Name = None,
    tag: options.Tags = None,
    sort: Annotated[str | None, typer.Option(help="Order the table by this column or axis; -test_accuracy.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow it until all have ended, then print the table.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the document.")] = False,
) -> None:
    """Submit every combination of the axes' values as one group.

    Without a base the classic sigmoid network is varied. `gradprobe sweep --axis /network/activation=sigmoid,relu
    --axis /training/seed=0,1,2 --watch` trains six networks and compares them.
    """
    session = session_of(context)
    axes = dict(_axis(text) for text in axis or ())
    if not axes:
        raise usage("A sweep needs an --axis, such as --axis /network/activation=relu,tanh")
    tags = build(None, {}, tag or ()).get("tags", {})
    with session.connect() as client:
        made = client.sweep(axes, build(spec_file, {}, (), set_ or ()), name=name, tags=tags)
        if not json:
            session.out.print(Text(f"{made.id}  {made.size} experiments", style="bold"))
        if watch:
            made = follow_sweep(session, client, made, quiet=json)
        table = client.compare_sweep(made.id, sort) if watch else None
    if json:
        session.print_json((table or made).model_dump_json(indent=2))
    elif table:
        print_table(session, table)
    else:
        session.out.print(Text(f"  gradprobe compare {made.id}   {client.url}{made.links.self}"))
    if watch and made.counts.succeeded < made.size:
        raise typer.Exit(FAILED)


def _axis(text: str) -> tuple[str, list[Any]]:
    pointer, equals, written = text.partition("=")
    if not (pointer.startswith("/") and equals and written):
        raise usage(f"--axis {text!r} is no axis; write it like --axis /network/activation=relu,tanh")
    whole = _value(written)
    values = whole if isinstance(whole, list) else [_value(part) for part in _parts(written)]
    return pointer, values


def _parts(written: str) -> list[str]:
    """The text between commas that stand in no brackets, braces or quotes."""
    parts, depth, quoted = [""], 0, False
    for character in written:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{") - (character in "]}")
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _value(text: str) -> Any:
    try:
        return json_module.loads(text)
    except ValueError:
        return text.strip()


def follow_sweep(session: Session, client: Client, made: Sweep, quiet: bool = False) -> Sweep:
    """A progress bar until all members have ended; Ctrl-C stops the watching, not the sweep."""
    if quiet:
        return client.wait_sweep(made.id)
    with progress_of_group(session, made.id) as show:
        return client.wait_sweep(made.id, on_progress=show)


@contextmanager
def progress_of_group(session: Session, title: str) -> Iterator[Any]:
    """What brings a bar up to date with a sweep or with remedies that are tried."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn())
    with Progress(*columns, console=session.out) as bar:
        task = bar.add_task(title, total=None, words="")

        def show(group: Sweep | Remedies) -> None:
            counts = group.counts
            ended = counts.succeeded + counts.failed + counts.cancelled
            words = f"{ended} of {ended + counts.queued + counts.running} ended"
            words += f", {counts.failed} failed" if counts.failed else ""
            total = max(1, group.progress.iterations)
            bar.update(task, total=total, completed=group.progress.iteration, words=words)

        yield show


def print_table(session: Session, found: SweepComparison) -> None:
    """A row per member."""
    wide = session.out.width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id (end)", no_wrap=True)
    for pointer in found.axes:
        table.add_column(pointer.rpartition("/")[2], overflow="fold")  # these give way
    for heading in ("status", "verdict", *(("cause",) if wide else ())):
        table.add_column(heading, no_wrap=True)
    for heading in ("δ₁ ÷ δ_N", *(("its mean",) if wide else ()), "loss", "accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row, identifier in enumerate(found.experiments):
        axes = [Text(one_line(_short(values[row]))) for values in found.axes.values()]
        table.add_row(
            identifier[-8:], *axes, *_cells({name: column[row] for name, column in found.columns.items()}, wide)
        )
    session.out.print(table)


def _cells(member: dict[str, Any], wide: bool) -> list[Text | str]:
    verdict, cause = (Text(str(member[name] or NOTHING).replace("_", " ")) for name in ("verdict", "cause"))
    mean = [_ratio(member["delta_ratio_mean"])] if wide else []
    return [
        status_text(Status(member["status"])),
        verdict,
        *([cause] if wide else []),
        _ratio(member["delta_ratio_initial"]),
        *mean,
        fixed(member["final_loss"]),
        percent(member["test_accuracy"]),
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict) and "name" in value:
        return str(value["name"])
    return value if isinstance(value, str) else json_module.dumps(value)


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else ratio(value, 1.0)


def compare(
    context: typer.Context,
    *,
    what: Annotated[list[str], typer.Argument(help=f"A sweep's id, or up to 20 experiments. {ID_HELP}")],
    sort: Annotated[str | None, typer.Option(help="Of a sweep: order by this column or axis.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the document.")] = False,
) -> None:
    """Compare the members of a sweep, or experiments, in one table."""
    session = session_of(context)
    with session.connect() as client:
        if len(what) == 1 and what[0].startswith("swp_"):
            table = client.compare_sweep(what[0], sort)
            if json:
                session.print_json(table.model_dump_json(indent=2))
            else:
                print_table(session, table)
            return
        identifiers = [resolve(client, one) for one in what]
        found = client.compare(identifiers, of="outputs", statistics=["norm"], max_points=200)
        results = [] if json else [client.get(one).result for one in identifiers]
    if json:
        session.print_json(found.model_dump_json(indent=2))
    else:
        session.out.print(_side_by_side(found.items, results))


def _side_by_side(items: list[ComparedExperiment], results: list[Result | None]) -> Table:
    """A row per layer, the first recorded ‖δ‖ of each experiment against its last layer's; then what `list` tells."""
    title = "‖δ‖ ÷ that of the last layer, at the first recorded step"
    table = Table(title=title, title_justify="left", box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("layer")
    for item in items:
        table.add_column(Text(one_line(item.name or item.experiment_id[-8:])), justify="right")
    for index in range(max((len(item.series.layers) for item in items if item.series), default=0)):
        table.add_row(f"layer{index + 1}", *(_at_start(item, index) for item in items))
    accuracy = [result.test_accuracy if result else None for result in results]
    table.add_row("test accuracy", *(percent(value) for value in accuracy), end_section=True)
    table.add_row("loss", *(fixed(result.final_loss if result else None) for result in results))
    table.add_row("verdict", *(Text((item.verdict or NOTHING).replace("_", " ")) for item in items))
    return table


def _at_start(item: ComparedExperiment, index: int) -> str:
    layers = item.series.layers if item.series else []
    columns = [layer.statistics["norm"] for layer in layers]
    if index >= len(columns) or not columns[index]:
        return NOTHING
    here, last = columns[index][0], columns[-1][0]
    return NOTHING if here is None or last is None else ratio(here, last)
