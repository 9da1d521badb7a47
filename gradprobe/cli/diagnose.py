"""`gradprobe diagnose`."""

import json as json_module
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gradprobe.cli.exits import usage
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.wording import NOTHING, amount, one_line
from gradprobe.client import Client
from gradprobe.resources import DiagnosisDocument, Experiment, FindingDocument

_STYLES = {"healthy": "bold green", "undecided": "bold yellow"}
_MOST_REMEDIES = 3


class PresetName(StrEnum):
    """Another tool's rules."""

    SMDEBUG = "smdebug"
    AUTOTRAINER = "autotrainer"
    MINDINSIGHT = "mindinsight"


def diagnose(
    context: typer.Context,
    *,
    experiment: Annotated[str, typer.Argument(help=ID_HELP)],
    preset: Annotated[
        PresetName | None, typer.Option(help="Judge as another tool would, with its documented thresholds.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another threshold, such as depth_limit=8; repeat it."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the document.")] = False,
) -> None:
    """Say what is wrong with an experiment, since when, what carries it, and what to change."""
    session = session_of(context)
    query = {"preset": preset.value if preset else None, **_thresholds(threshold or ())}
    with session.connect() as client:
        found = client.document(DiagnosisDocument, resolve(client, experiment), "diagnosis", query)
    if json:
        session.print_json(found.model_dump_json(indent=2))
    else:
        print_diagnosis(session, found)


def _thresholds(given: Any) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise usage(f"--threshold {text!r} is not a name and a number; write it like depth_limit=8") from None
    return found


def print_diagnosis(session: Session, found: DiagnosisDocument) -> None:
    """The verdicts in words, every finding with its evidence and remedies, and each layer's ln χ by its parts."""
    session.out.print(Text(found.verdict.replace("_", " "), style=_style(found.verdict)))
    session.out.print(Text(f"  {one_line(found.summary)}"))
    phases = f"at initialization: {found.at_initialization}; in training: {found.in_training}"
    session.out.print(Text(f"  {phases.replace('_', ' ')}", style="dim"))
    for finding in found.findings:
        session.out.print()
        _print_finding(session, finding)
    if found.attribution:
        session.out.print()
        session.out.print(_attribution_table(found.attribution))


def _print_finding(session: Session, finding: FindingDocument) -> None:
    title = Text(finding.rule.replace("_", " "), style="bold red" if finding.severity == "critical" else "bold yellow")
    detail = f", {finding.detail}" if finding.detail else ""
    title.append(f"  {finding.phase}, cause: {finding.cause}{detail}".replace("_", " "), style="dim")
    session.out.print(title)
    session.out.print(Text(f"  {one_line(finding.explanation)}"))
    numbers = ", ".join(f"{name} {_number(value)}" for name, value in finding.evidence.items())
    session.out.print(Text(f"  {one_line(numbers)}", style="dim"))
    for remedy in finding.remedies[:_MOST_REMEDIES]:
        session.out.print(Text(f"  → {remedy.id.replace('_', ' ')}: {one_line(remedy.reason)}"))
        session.out.print(Text(f"    {json_module.dumps(remedy.patch)}", style="dim"))


def _attribution_table(attribution: Mapping[str, Any]) -> Table:
    table = Table(
        title="What carries δ from layer to layer at the first step, in e-folds of ‖δ‖²", title_justify="left",
        title_style="bold", box=None, header_style="dim",
    )  # fmt: skip
    parts = ("weight_scale", "activation_derivative", "normalization", "width")
    table.add_column("layer")
    for heading in ("ln χ", *(part.replace("_", " ") for part in parts)):
        table.add_column(heading, justify="right")
    for layer in attribution["layers"]:
        table.add_row(layer["name"], *(_number(layer[name]) for name in ("log_chi", *parts)))
    return table


def verdict_line(client: Client, experiment: Experiment) -> Text:
    """One experiment's verdict in words, in its colour."""
    found = client.document(DiagnosisDocument, experiment.id, "diagnosis", {})
    return Text(one_line(found.summary), style=_style(found.verdict))


def _style(verdict: str) -> str:
    return _STYLES.get(verdict, "bold red")


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NOTHING if value is None else str(value)
    if isinstance(value, int) or value == 0:
        return f"{value:g}"
    return f"{value:.2f}" if 0.01 <= abs(value) < 1000 else amount(value) if value >= 1000 else f"{value:.1e}"
