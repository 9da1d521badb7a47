"""`gradprobe watch`: live on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gradprobe.cli.exits import FAILED
from gradprobe.cli.layers import KINDS, shown_rows
from gradprobe.cli.live import Follower
from gradprobe.cli.session import ID_HELP, Session, resolve, session_of
from gradprobe.cli.show import print_experiment
from gradprobe.cli.watch_lines import Lines, rate_of, waiting
from gradprobe.cli.watch_several import follow_several, tell_changes
from gradprobe.cli.wording import fixed, one_line, progress, scientific
from gradprobe.client import Client
from gradprobe.resources import Experiment
from gradprobe.sparkline import scale_caption, scale_of, sparkline
from gradprobe.state import Status

_LOOK_SECONDS = 0.25
_STATISTICS_SECONDS = 1.0
_FIXED_COLUMNS = 36  # what the columns other than the two sparklines take


def watch(
    context: typer.Context,
    experiments: Annotated[list[str], typer.Argument(help=f"{ID_HELP} Several are shown as one table.")],
    json: Annotated[
        bool, typer.Option("--json", help="Print an experiment's document, on one line, at each change of it.")
    ] = False,
) -> None:
    """Follow experiments until all have ended. Ctrl-C stops the watching, not the experiments."""
    session = session_of(context)
    with session.connect() as client:
        chosen = [client.get(found) for found in dict.fromkeys(resolve(client, one) for one in experiments)]
        if json:
            ended = tell_changes(session, client, chosen)
        elif len(chosen) == 1:
            ended = [follow(session, client, chosen[0])]
        else:
            ended = follow_several(session, client, chosen)
    if any(experiment.status is not Status.SUCCEEDED for experiment in ended):
        raise typer.Exit(FAILED)


def follow(session: Session, client: Client, experiment: Experiment, quiet: bool = False) -> Experiment:
    """Show the experiment until it has ended, and then what came of it; `quiet` shows nothing at all."""
    try:
        return follow_to_the_end(session, client, experiment, quiet)
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped watching; {experiment.id} goes on. Look again with `gradprobe watch {experiment.id}`, "
            f"stop it with `gradprobe cancel {experiment.id}`.",
            err=True,
        )
        raise


def follow_to_the_end(session: Session, client: Client, experiment: Experiment, quiet: bool) -> Experiment:
    """As `follow`, for one who knows what an interruption means."""
    if quiet:
        return client.wait(experiment.id)
    follower = Follower(client, experiment)
    ended = _live(session, follower) if session.out.is_terminal else _lines(session, follower)
    print_experiment(session, ended)
    return ended


def _looks(follower: Follower) -> Iterator[bool]:
    """Look until the experiment has ended; True where the statistics are fresh too."""
    fetched = 0.0
    while True:
        experiment = follower.look()
        due = time.monotonic() - fetched >= _STATISTICS_SECONDS
        fresh = experiment.status.ended or (due and experiment.status is Status.RUNNING)
        if fresh:
            follower.fetch_statistics()
            fetched = time.monotonic()
        yield fresh
        if experiment.status.ended:
            return
        time.sleep(_LOOK_SECONDS)


def _lines(session: Session, follower: Follower) -> Experiment:
    lines = Lines(session, follower)
    for _ in _looks(follower):
        lines.tell()
    return follower.experiment


def _live(session: Session, follower: Follower) -> Experiment:
    with _bar(session) as (bar, task), Live(console=session.out, refresh_per_second=8) as live:
        table: RenderableType = Text("")
        for fresh in _looks(follower):
            table = spark_table(follower, session.out.width) if fresh else table
            show_progress(bar, task, follower)
            live.update(Group(bar, table))
    return follower.experiment


@contextmanager
def _bar(session: Session) -> Iterator[tuple[Progress, TaskID]]:
    bar = progress_bar(session)
    yield bar, bar.add_task("", total=None, words="")


def progress_bar(session: Session, quiet: bool = False) -> Progress:
    """A bar with iterations, loss and speed; `show_progress` fills its tasks. A quiet one is not drawn."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
        console=session.out,
        disable=quiet,
    )


def show_progress(bar: Progress, task: TaskID, follower: Follower, label: str = "") -> None:
    """Bring one task of a bar up to date."""
    experiment = follower.experiment
    name = one_line(label or experiment.name or experiment.id).replace("[", "\\[")
    words = f"{progress(experiment)}  loss {fixed(follower.loss)}  {rate_of(follower)}"
    bar.update(
        task,
        description=f"{name} {experiment.status}",
        total=experiment.progress.iterations,
        completed=experiment.progress.iteration,
        words=waiting(experiment) or words,
    )


def spark_table(follower: Follower, width: int) -> Table:
    """A row per layer: the newest mean absolute gradient of each kind and its way so far."""
    tracks = {kind: track for kind, track in follower.tracks.items() if track.recorded}
    drawn = {kind: track.drawn() for kind, track in tracks.items()}
    rows = {kind: track.summaries() for kind, track in tracks.items()}
    scales = {kind: scale_of(values) for kind, values in drawn.items()}
    captions = "\n".join(f"{KINDS[kind]}: {scale_caption(scale)}" for kind, scale in scales.items())
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", caption=captions, caption_justify="left")
    table.add_column("layer" if tracks else "")
    for kind in tracks:
        table.add_column(f"mean |{KINDS[kind].split(' ')[0]}|", justify="right")
        table.add_column("over the run", no_wrap=True)
    names = next(iter(tracks.values())).names if tracks else ()
    room = max(8, (width - _FIXED_COLUMNS) // 2)
    for index in shown_rows(len(names)):
        if index is None:
            table.add_row("⋮")
            continue
        cells: list[RenderableType] = [names[index]]
        for kind, values in drawn.items():
            line = sparkline(values[index], room, scales[kind])
            cells += [scientific(rows[kind][index].newest), Text(line, style="cyan")]
        table.add_row(*cells)
    return table
