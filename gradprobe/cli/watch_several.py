"""Several experiments watched at once: one table that is drawn anew, lines in a pipe, or a document a line."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gradprobe.cli.live import Follower
from gradprobe.cli.session import Session
from gradprobe.cli.track import Track
from gradprobe.cli.watch_lines import Lines, rate_of
from gradprobe.cli.wording import NOTHING, fixed, one_line, ratio, scientific, status_text
from gradprobe.client import Client
from gradprobe.resources import Experiment
from gradprobe.sparkline import scale_caption, scale_of, sparkline
from gradprobe.state import Status

_LOOK_SECONDS = 0.25
_STATISTICS_SECONDS = 1.0
_FIXED_COLUMNS = 100  # what the columns other than the sparkline take at most
_SHORTEST_LINE, _LONGEST_LINE = 8, 48
_SYMBOLS = {"weights": "∂L/∂W", "outputs": "δ"}


def follow_several(session: Session, client: Client, experiments: Sequence[Experiment]) -> list[Experiment]:
    """Show them until all have ended; Ctrl-C stops the watching, not the experiments."""
    followers = [Follower(client, experiment) for experiment in experiments]
    try:
        if session.out.is_terminal:
            _live(session, followers)
        else:
            _lines(session, followers)
    except KeyboardInterrupt:
        typer.echo("\nStopped watching; the experiments go on. `gradprobe cancel ID` stops one.", err=True)
        raise
    return [follower.experiment for follower in followers]


def tell_changes(session: Session, client: Client, experiments: Sequence[Experiment]) -> list[Experiment]:
    """Print each experiment's document, one a line, at once and whenever it has changed, until all have ended."""
    latest = {experiment.id: experiment for experiment in experiments}
    for experiment in experiments:
        session.print_json(experiment.model_dump_json())
    while going := [experiment for experiment in latest.values() if not experiment.status.ended]:
        time.sleep(_LOOK_SECONDS)
        for before in going:
            after = client.get(before.id)
            if after != before:
                latest[after.id] = after
                session.print_json(after.model_dump_json())
    return [*latest.values()]


def _looks(followers: Sequence[Follower]) -> Iterator[None]:
    """Look at those that have not ended, until all have; what is shown is fresh after each look."""
    fetched = dict.fromkeys(range(len(followers)), float("-inf"))
    going = list(enumerate(followers))
    while going:
        for index, follower in going:
            experiment, now = follower.look(), time.monotonic()
            due = now - fetched[index] >= _STATISTICS_SECONDS and experiment.status is Status.RUNNING
            if experiment.status.ended or due:
                follower.fetch_statistics()
                fetched[index] = now
        yield
        going = [(index, follower) for index, follower in going if not follower.experiment.status.ended]
        if going:
            time.sleep(_LOOK_SECONDS)


def _live(session: Session, followers: Sequence[Follower]) -> None:
    with Live(console=session.out, refresh_per_second=4) as live:
        for _ in _looks(followers):
            live.update(several_table(followers, session.out.width))


def _lines(session: Session, followers: Sequence[Follower]) -> None:
    told = [Lines(session, follower) for follower in followers]
    for _ in _looks(followers):
        for lines in told:
            lines.tell()
    session.out.print()
    session.out.print(several_table(followers, session.out.width))


def several_table(followers: Sequence[Follower], width: int) -> Table:
    """A row per experiment: how far it is, and how much gradient reaches its first layer, now and over the run."""
    tracks = [_track(follower) for follower in followers]
    drawn = [track.drawn()[0] if track else None for track in tracks]
    scale = scale_of(np.concatenate([np.empty(0), *(values for values in drawn if values is not None)]))
    room = min(_LONGEST_LINE, max(_SHORTEST_LINE, width - _FIXED_COLUMNS))
    kinds = {track.kind for track in tracks if track} or {"outputs"}
    symbol = " or ".join(_SYMBOLS[kind] for kind in sorted(kinds))
    caption = f"{symbol} of each first layer: {scale_caption(scale)}".replace("all layers", "all of them")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", caption=caption, caption_justify="left")
    table.add_column("experiment", overflow="fold")  # the one column that gives way
    table.add_column("status", no_wrap=True)
    for heading in ("done", "loss", "it/s", f"mean |{symbol}₁|", "÷ last"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("over the run", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for follower, track, values in zip(followers, tracks, drawn, strict=True):
        line = "" if values is None else sparkline(values, room, scale)
        table.add_row(*_cells(follower, track), Text(line, style="cyan"), _verdict(follower.experiment))
    return table


def _cells(follower: Follower, track: Track | None) -> list[Text | str]:
    experiment = follower.experiment
    first, last = (track.summaries()[0].newest, track.summaries()[-1].newest) if track else (None, None)
    done = 100 * experiment.progress.iteration // experiment.progress.iterations
    return [
        Text(one_line(experiment.name or experiment.id)),
        status_text(experiment.status),
        f"{done} %",
        fixed(follower.loss),
        rate_of(follower).removesuffix(" it/s"),
        scientific(first),
        NOTHING if first is None or last is None else ratio(first, last),
    ]


def _track(follower: Follower) -> Track | None:
    """δ where it is recorded, else the weights' gradient; None before anything was."""
    recorded = {kind: track for kind, track in follower.tracks.items() if track.recorded}
    return recorded.get("outputs") or recorded.get("weights")


def _verdict(experiment: Experiment) -> Text:
    verdict = (experiment.verdict or "").replace("_", " ")
    return Text(one_line(verdict), style="green" if verdict == "healthy" else "red")
