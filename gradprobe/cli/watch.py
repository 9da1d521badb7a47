"""`gradprobe watch`: live on a terminal, a line now and then anywhere else."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
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
from gradprobe.cli.wording import NOTHING, amount, fixed, one_line, progress, scientific
from gradprobe.client import Client
from gradprobe.resources import Experiment
from gradprobe.sparkline import scale_caption, scale_of, sparkline
from gradprobe.state import Status

_LOOK_SECONDS = 0.25
_STATISTICS_SECONDS = 1.0
_LINE_SECONDS = 5.0
_LONG_IN_QUEUE_SECONDS = 10.0
_FIXED_COLUMNS = 36  # what the columns other than the two sparklines take


def watch(context: typer.Context, experiment: Annotated[str, typer.Argument(help=ID_HELP)]) -> None:
    """Follow an experiment until it has ended. Ctrl-C stops the watching, not the experiment."""
    session = session_of(context)
    with session.connect() as client:
        ended = follow(session, client, client.get(resolve(client, experiment)))
    if ended.status is not Status.SUCCEEDED:
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
    said, status = float("-inf"), None
    for _ in _looks(follower):
        experiment, now = follower.experiment, time.monotonic()
        if experiment.status is not status or now - said >= _LINE_SECONDS:
            said, status = now, experiment.status
            session.out.print(
                f"{datetime.now().astimezone():%H:%M:%S}  {experiment.id}  {status}  {progress(experiment)}  "
                f"loss {fixed(follower.loss)}  {_rate(follower)}",
                markup=False,
            )
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


def progress_bar(session: Session) -> Progress:
    """A bar with iterations, loss and speed; `show_progress` fills its tasks."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
        console=session.out,
    )


def show_progress(bar: Progress, task: TaskID, follower: Follower, label: str = "") -> None:
    """Bring one task of a bar up to date."""
    experiment = follower.experiment
    name = one_line(label or experiment.name or experiment.id).replace("[", "\\[")
    words = f"{progress(experiment)}  loss {fixed(follower.loss)}  {_rate(follower)}"
    bar.update(
        task,
        description=f"{name} {experiment.status}",
        total=experiment.progress.iterations,
        completed=experiment.progress.iteration,
        words=_waiting(experiment) or words,
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


def _rate(follower: Follower) -> str:
    return f"{NOTHING if math.isnan(follower.rate) else amount(follower.rate)} it/s"


def _waiting(experiment: Experiment) -> str | None:
    if experiment.status is not Status.QUEUED:
        return None
    waited = (datetime.now().astimezone() - experiment.created_at).total_seconds()
    return "waiting for a worker" + (f" for {waited:.0f} s" if waited > _LONG_IN_QUEUE_SECONDS else "")
