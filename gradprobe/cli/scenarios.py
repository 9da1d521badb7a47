"""What `gradprobe demo` does: three classic networks, trained and compared. Imported only by that command."""

import json as json_module
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from gradprobe.cli.diagnose import verdict_line
from gradprobe.cli.environment import read_settings
from gradprobe.cli.exits import CommandError
from gradprobe.cli.layers import KINDS
from gradprobe.cli.live import Follower
from gradprobe.cli.session import Session
from gradprobe.cli.supervise import Terminated, ended_by_signals, running
from gradprobe.cli.track import Summary, tracks_of
from gradprobe.cli.watch import progress_bar, show_progress
from gradprobe.cli.watch_lines import Lines
from gradprobe.cli.wording import amount, commands, fixed, one_line, percent, scientific
from gradprobe.client import Client, GradientKind
from gradprobe.embedded import Stack
from gradprobe.resources import Experiment
from gradprobe.state import Status

_LOOK_SECONDS = 0.2
_STATISTICS_SECONDS = 0.5
_BAR = 12  # characters of the longest bar in a table


@dataclass(frozen=True)
class Scenario:
    """One network of the demonstration; its activation is all that differs."""

    title: str
    activation: dict[str, Any]


SCENARIOS = (
    Scenario("sigmoid", {"name": "sigmoid"}),
    Scenario("ReLU", {"name": "relu"}),
    Scenario("leaky ReLU, slope 0.2", {"name": "leaky_relu", "negative_slope": 0.2}),
)


def run_demo(session: Session, data_directory: Path | None, json: bool) -> None:
    """Start the stack, train the scenarios, show their gradients, stop the stack.

    Raises:
        CommandError: an experiment did not succeed.
    """
    settings = read_settings(data_directory)
    if not json:
        session.out.print("[bold]Do the gradients reach every layer?[/bold]")
        session.out.print("Three networks of six layers × ten units learn MNIST; only the activation differs.\n")
    stack = Stack(settings)
    try:
        # A key in the environment is another server's: this one was made a moment ago.
        api_key = None if stack.settings.authentication == "required" else ""
        with ended_by_signals(), running(session, stack, json), Client(stack.url, api_key=api_key) as client:
            experiments = _train(session, client, stack, json)
            if json:
                session.print_json(_document(client, experiments))
            else:
                _report(session, client, experiments)
                _say_verdicts(session, client, experiments)
    except Terminated:
        raise CommandError("terminated before the end") from None
    if not json:
        _say_where(session, stack, experiments)
    failed = [experiment for experiment in experiments if experiment.status is not Status.SUCCEEDED]
    if failed:
        raise CommandError("; ".join(_why(experiment) for experiment in failed))


def _train(session: Session, client: Client, stack: Stack, quiet: bool) -> list[Experiment]:
    """Submit all at once and show a bar for each until all have ended."""
    submitted = [
        client.create({"name": f"demo: {scenario.title}", "network": {"activation": scenario.activation}})
        for scenario in SCENARIOS
    ]
    followers = [Follower(client, experiment) for experiment in submitted]
    # A bar is drawn on a terminal alone; a pipe gets lines, lest it is silent until the end.
    told = [Lines(session, follower, scenario.title) for follower, scenario in zip(followers, SCENARIOS, strict=True)]
    with progress_bar(session, quiet or not session.out.is_terminal) as bar:
        tasks = [bar.add_task("", total=None, words="") for _ in followers]
        fetched = 0.0
        while not all(follower.experiment.status.ended for follower in followers):
            stack.check()
            fresh = time.monotonic() - fetched >= _STATISTICS_SECONDS
            fetched = time.monotonic() if fresh else fetched
            for task, follower, scenario in zip(tasks, followers, SCENARIOS, strict=True):
                if not follower.experiment.status.ended:
                    _look(follower, fresh)
                    show_progress(bar, task, follower, scenario.title)
            for lines in () if quiet or session.out.is_terminal else told:
                lines.tell()
            time.sleep(_LOOK_SECONDS)
    return [follower.experiment for follower in followers]


def _document(client: Client, experiments: Sequence[Experiment]) -> str:
    """Each experiment with its diagnosis, null for one that did not succeed."""
    found = []
    for experiment in experiments:
        judged = experiment.status is Status.SUCCEEDED
        diagnosis = client.diagnosis(experiment.id).model_dump(mode="json") if judged else None
        found.append({"experiment": experiment.model_dump(mode="json"), "diagnosis": diagnosis})
    return json_module.dumps(found, indent=2)


def _look(follower: Follower, fresh: bool) -> None:
    experiment = follower.look()
    if experiment.status.ended or (fresh and experiment.status is Status.RUNNING):
        follower.fetch_loss()


def _report(session: Session, client: Client, experiments: Sequence[Experiment]) -> None:
    session.out.print(
        "\n∂L/∂W is the gradient of a layer's weights, δ = ∂L/∂z the one at its outputs, before the activation.\n"
        "layer1 sees the image, layer6 gives the answer; gradients travel from layer6 to layer1.",
        markup=False,
    )
    for scenario, experiment in zip(SCENARIOS, experiments, strict=True):
        session.out.print()
        if experiment.status is not Status.SUCCEEDED:
            session.out.print(Text(_why(experiment), style="red"))
            continue
        kinds: dict[GradientKind, list[Summary]] = {}
        for kind, track in tracks_of(experiment).items():
            track.fetch(client, experiment)
            kinds[kind] = track.summaries()
        session.out.print(_table(scenario, kinds))
        for kind, rows in kinds.items():
            session.out.print(Text(f"  {KINDS[kind]} at the first step: {_verdict(rows)}"))
        result = experiment.result
        if result:
            session.out.print(
                Text(
                    f"  final loss {fixed(result.final_loss)}, test accuracy {percent(result.test_accuracy)}, "
                    f"{result.seconds:.1f} s of training"
                )
            )


def _say_verdicts(session: Session, client: Client, experiments: Sequence[Experiment]) -> None:
    session.out.print("\n[bold]The verdicts[/bold]")
    for scenario, experiment in zip(SCENARIOS, experiments, strict=True):
        if experiment.status is Status.SUCCEEDED:
            line = Text(f"  {scenario.title:<24}").append_text(verdict_line(client, experiment))
            session.out.print(line, soft_wrap=True)


def _table(scenario: Scenario, kinds: dict[GradientKind, list[Summary]]) -> Table:
    table = Table(title=scenario.title, title_justify="left", title_style="bold", box=None, header_style="dim")
    table.add_column("layer")
    for kind, symbol in (("weights", "∂L/∂W"), ("outputs", "δ")):
        table.add_column(f"mean |{symbol}|\nfirst step", justify="right")
        table.add_column(f"mean |{symbol}|\nmean of run", justify="right")
        if kind == "outputs":
            table.add_column("δ, first step\n(length ∝ value)", no_wrap=True)
    largest = max((row.first for row in kinds["outputs"] if math.isfinite(row.first)), default=0.0)
    for weight, output in zip(kinds["weights"], kinds["outputs"], strict=True):
        table.add_row(
            weight.name, scientific(weight.first), scientific(weight.mean),
            scientific(output.first), scientific(output.mean),
            Text(_bar(output.first / largest if largest > 0 else 0.0), style="cyan"),
        )  # fmt: skip
    return table


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8) if math.isfinite(share) else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _verdict(rows: Sequence[Summary]) -> str:
    """`layer1 is 2,310 times weaker than layer6`."""
    first, last = rows[0], rows[-1]
    if not (first.first > 0 and last.first > 0):
        return f"{first.name} {scientific(first.first)}, {last.name} {scientific(last.first)}"
    quotient = last.first / first.first
    if 0.9 < quotient < 1.1:
        return f"{first.name} is as strong as {last.name}"
    word, factor = ("weaker", quotient) if quotient > 1 else ("stronger", 1 / quotient)
    return f"{first.name} is {amount(factor)} times {word} than {last.name}"


def _why(experiment: Experiment) -> str:
    reason = f": {experiment.error.message}" if experiment.error else ""
    return one_line(f"{experiment.name} {experiment.status}{reason}")


def _say_where(session: Session, stack: Stack, experiments: Sequence[Experiment]) -> None:
    database = stack.settings.database
    where = database.database if database.get_backend_name() == "sqlite" else database.render_as_string()
    session.out.print("\n[bold]The raw data[/bold]")
    for heading, text in (("data directory", str(stack.directory)), ("database", str(where))):
        session.out.print(f"  {heading:<16}{text}", markup=False, soft_wrap=True)
    session.out.print("\nEvery number again, once the server runs on the same data:")
    lines = [f"gradprobe up --data-directory {stack.directory}"]
    for experiment in experiments:
        query = "of=outputs&statistics=mean_abs"
        lines.append(f"curl 'http://127.0.0.1:8000/experiments/{experiment.id}/gradients?{query}'")
    lines += ["gradprobe show last", f"gradprobe diagnose {experiments[0].id}"]
    for line in commands(*lines):
        session.out.print(f"  {line}", markup=False, soft_wrap=True)
