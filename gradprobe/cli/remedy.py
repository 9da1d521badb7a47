"""`gradprobe remedy`."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gradprobe.cli.exits import FAILED
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.sweep import progress_of_group
from gradprobe.cli.wording import NOTHING, fixed, one_line, percent, ratio
from gradprobe.group_resources import ChangeDocument, IntervalDocument, RankingDocument, Remedies


def remedy(
    context: typer.Context,
    *,
    experiment: Annotated[str, typer.Argument(help=ID_HELP)],
    remedies: Annotated[
        list[str] | None, typer.Option("--remedy", help="One of the diagnosis's remedies; repeat it. [default: all]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Over how many seeds.")] = 3,
    controls: Annotated[
        int | None, typer.Option(min=0, help="Random changes to compare with. [default: as many as remedies]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the document.")] = False,
) -> None:
    """Try the diagnosis's remedies and say which change is enough.

    Each is trained over the same seeds and the same order of the data as the plain spec, and beside random changes.
    """
    session = session_of(context)
    with session.connect() as client:
        made = client.remedies(resolve(client, experiment), remedies, seeds=seeds, controls=controls)
        if json:
            ended = client.wait_remedies(made.id)
        else:
            session.out.print(Text(f"{made.id}  {len(made.members)} experiments", style="bold"))
            with progress_of_group(session, made.id) as show:
                ended = client.wait_remedies(made.id, on_progress=show)
    if json:
        session.print_json(ended.model_dump_json(indent=2))
    else:
        print_remedies(session, ended)
    if ended.enough is None:
        raise typer.Exit(FAILED)


def print_remedies(session: Session, found: Remedies) -> None:
    """The conclusion, and a row per change, best first."""
    session.out.print(Text(one_line(found.ranking.conclusion), style="bold green" if found.enough else "bold red"))
    session.out.print(_table(found.ranking))
    caption = "Differences are to the plain spec of the same seeds, with 95 % intervals by Student's t."
    session.out.print(Text(f"  {caption}", style="dim"))


def _table(ranking: RankingDocument) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("change")
    table.add_column("verdicts")
    for heading in ("‖δ₁‖ ÷ ‖δ_N‖", "loss", "test accuracy", "difference", "to random changes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for change in (ranking.plain, *ranking.changes):
        style = "bold green" if change.id == ranking.enough else "dim" if change.arm in ("plain", "control") else ""
        verdicts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in change.verdicts.items())
        delta = change.means.get("delta_ratio")
        table.add_row(
            Text(one_line(_name(change))), Text(verdicts or NOTHING), NOTHING if delta is None else ratio(delta, 1.0),
            fixed(change.means.get("final_loss")), percent(change.means.get("test_accuracy")),
            _points(change.effects.get("test_accuracy")), _points(change.against_control), style=style,
        )  # fmt: skip
    return table


def _name(change: ChangeDocument) -> str:
    if change.arm == "control":
        return f"random: {change.reason.removesuffix(' drawn at random.')}"
    return change.id.replace("_", " ").replace("+", " + ")


def _points(effect: IntervalDocument | None) -> str:
    if effect is None:
        return NOTHING
    if effect.low is None or effect.high is None:
        return f"{100 * effect.mean:+.1f}"
    return f"{100 * effect.mean:+.1f} ({100 * effect.low:+.1f} … {100 * effect.high:+.1f})"
