"""`gradprobe diagnose`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gradprobe import sentences
from gradprobe.cli.exits import usage
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.wording import one_line
from gradprobe.client import Client, ProblemError
from gradprobe.diagnosis.thresholds import DEFAULT
from gradprobe.errors import GradprobeError
from gradprobe.parts.faults import meant
from gradprobe.resources import DiagnosisDocument, Experiment

_STYLES: dict[sentences.Role, str] = {
    "healthy": "bold green", "undecided": "bold yellow", "critical": "bold red", "warning": "bold yellow",
    "plain": "", "aside": "dim",
}  # fmt: skip


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
    thresholds = _thresholds(threshold or ())
    query = {"preset": preset.value if preset else None, **thresholds}
    with session.connect() as client:
        identifier = resolve(client, experiment)
        try:
            found = client.document(DiagnosisDocument, identifier, "diagnosis", query)
        except ProblemError as error:
            raise _about_the_option(error, thresholds) from error
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


def _about_the_option(error: ProblemError, thresholds: Mapping[str, float]) -> GradprobeError:
    """What the service refuses of a threshold, as a fault of the option that it came from; any other as it is."""
    told = []
    for fault in error.problem.errors:
        name = fault.pointer.removeprefix("/query/")
        if name in thresholds:
            unknown = fault.code == "unknown_parameter"
            hint = f"there is no such threshold; {meant(name, list(DEFAULT.values()))}" if unknown else fault.message
            told.append(f"--threshold {name}: {hint}")
    return usage("; ".join(told)) if told else error


def print_diagnosis(session: Session, found: DiagnosisDocument) -> None:
    """The verdicts in words, every finding with its evidence and remedies, and each layer's ln χ by its parts."""
    for line in sentences.diagnosis(found):
        session.out.print(Text.assemble(*((piece, _STYLES[role]) for piece, role in line)))
    if found.attribution:
        session.out.print()
        session.out.print(_attribution_table(found.attribution))


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
        table.add_row(layer["name"], *(sentences.number(layer[name]) for name in ("log_chi", *parts)))
    return table


def verdict_line(client: Client, experiment: Experiment) -> Text:
    """One experiment's verdict in words, in its colour."""
    found = client.document(DiagnosisDocument, experiment.id, "diagnosis", {})
    return Text(one_line(found.summary), style=_STYLES[sentences.role(found.verdict)])
