"""What a whole server does, with its worker processes, over HTTP: a sweep, the first statistics, tiny experiments."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import Progress

from benchmarks.results import Figure, Goal, Row, Table
from gradprobe import Client
from gradprobe.embedded import Stack
from gradprobe.settings import Settings
from worker.data.cache import obtain
from worker.data.mnist import MNIST
from worker.data.sources import sources_of

_ROOT = Path(__file__).absolute().parents[2]
_PATIENCE_SECONDS = 1800.0
_ACTIVATIONS = ("sigmoid", "tanh", "relu")


@dataclass(frozen=True, slots=True)
class Effort:
    """How many of each."""

    seeds: int = 32
    iterations: int = 2500
    scripts: int = 6
    posts: int = 20
    tiny: int = 400
    tiny_iterations: int = 100
    workers: tuple[int, ...] = (1, 2, 4, 8)
    per_worker: int = 64


QUICK = Effort(2, 20, 1, 1, 4, 10, (1,), 2)


@contextmanager
def server(workers: int, **changes: Any) -> Iterator[Client]:
    """A server of its own with so many warm worker processes, on SQLite and a broker of its own."""
    with TemporaryDirectory(prefix="gradprobe-bench-") as directory:
        given = Settings()
        options = {"datasets_directory": given.datasets_directory, "maximum_active": 100_000, **changes}
        settings = Settings(data_directory=Path(directory), **{k: v for k, v in options.items() if v is not None})
        _share_data_sets(given, settings)
        with Stack(settings, workers=workers) as stack, Client(stack.url) as client:
            # Each child loads torch, compiled code and data once; what is measured comes after.
            base = {"training": {"iterations": 50}}
            for _ in range(2):
                widths = list(range(8, 8 + 2 * workers))
                warm = client.sweep({"/network/width": widths, "/training/seed": [0, 1, 2]}, base)
                _until_ended(client, warm.id, len(warm.members))
            yield client


def _share_data_sets(given: Settings, settings: Settings) -> None:
    if given.dataset_cache.is_dir():
        settings.dataset_cache.symlink_to(given.dataset_cache.absolute(), target_is_directory=True)


def sweep(effort: Effort) -> Table:
    """Three activations of so many seeds, from POST to the last verdict, on two workers; and scripts beside it."""
    members = len(_ACTIVATIONS) * effort.seeds
    script = _script(effort)
    with server(2) as client:
        base = {"training": {"iterations": effort.iterations}}
        axes: dict[str, list[Any]] = {
            "/network/activation": list(_ACTIVATIONS),
            "/training/seed": list(range(effort.seeds)),
        }
        began = time.perf_counter()
        made = client.sweep(axes, base)
        _until_ended(client, made.id, members)
        seconds = time.perf_counter() - began
        stacks = sorted({member.verdict or "none" for member in client.get_sweep(made.id).members})
    scripts = script * members
    figures: dict[str, Figure] = {"seconds": seconds, "share of the scripts": seconds / scripts}
    return Table(
        f"{members} experiments of {effort.iterations} iterations, every step recorded, two worker processes",
        [
            Row(
                "plain scripts, one after another",
                {"seconds": scripts},
                note=f"{effort.scripts} run, {script:.2f} s each",
            ),
            Row("one sweep, POST to verdicts", figures, [Goal("share of the scripts", "≤", 1 / 6)], ", ".join(stacks)),
        ],
    )


def _until_ended(client: Client, sweep_id: str, members: int) -> None:
    with Progress(transient=True) as progress:
        task = progress.add_task("sweep", total=members)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            found = client.get_sweep(sweep_id)
            counts = found.counts
            progress.update(task, completed=members - counts.queued - counts.running)
            if found.status == "ended":
                return
            time.sleep(0.2)
    raise TimeoutError(sweep_id)


def _script(effort: Effort) -> float:
    """Seconds of one plain script, from its start to its end; the median."""
    settings = Settings()
    obtain(MNIST, settings.dataset_cache, sources_of(MNIST, settings))
    files = str((settings.dataset_cache / MNIST.name).absolute())
    seconds = []
    for number in range(effort.scripts):
        arguments = [_ACTIVATIONS[number % len(_ACTIVATIONS)], str(number), str(effort.iterations), files]
        command = [sys.executable, "-m", "benchmarks.scale.script", *arguments]
        began = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(_ROOT)}, capture_output=True)  # noqa: S603
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def first_statistics(effort: Effort) -> Table:
    """From POST to the first statistics that a client reads, on an idle worker."""
    waits = []
    with server(1) as client:
        for seed in range(effort.posts):
            began = time.perf_counter()
            posted = client.create({"training": {"seed": seed, "iterations": 2500}})
            while not len(client.gradients(posted.id).steps):
                time.sleep(0.01)
            waits.append(time.perf_counter() - began)
            client.wait(posted.id, timeout=_PATIENCE_SECONDS)
    figures: dict[str, Figure] = {"s, median": median(waits), "s, longest": max(waits)}
    row = Row("classic net, idle worker", figures, [Goal("s, median", "≤", 1.0, "s")])
    return Table(f"POST to first statistics, {effort.posts} times", [row])


def tiny(effort: Effort) -> Table:
    """How much of two processes' time is training, where experiments are tiny."""
    share = "share in training"
    rows = []
    for name, members in (("side by side where they are alike", None), ("each by itself", 1)):
        changes = {} if members is None else {"stack_members": members}
        with server(2, maximum_sweep=10_000, **changes) as client:
            began = time.perf_counter()
            axes = {"/training/seed": list(range(effort.tiny))}
            made = client.sweep(axes, {"training": {"iterations": effort.tiny_iterations}})
            _until_ended(client, made.id, effort.tiny)
            wall = time.perf_counter() - began
            seconds = client.compare_sweep(made.id).columns["seconds"]
        trained = sum(float(value) for value in seconds if value is not None)
        figures: dict[str, Figure] = {"experiments a second": effort.tiny / wall, share: trained / (2 * wall)}
        rows.append(Row(name, figures, [Goal(share, "≥", 0.8, "of two")] if members is None else ()))
    return Table(f"{effort.tiny} experiments of {effort.tiny_iterations} iterations, two worker processes", rows)


def by_workers(effort: Effort) -> list[Table]:
    """What an experiment takes, from two lengths on one worker; then the model made of it beside 1 to 8 processes."""
    cores = len(os.sched_getaffinity(0))
    fixed, an_iteration = _calibrate(effort)
    constants = Table(
        "of one experiment among alike ones, on one worker process",
        [
            Row("whatever its length", {"ms": fixed * 1e3}),
            Row("an iteration, every step recorded and stored", {"ms": an_iteration * 1e3}),
        ],
    )
    rows = []
    for workers in effort.workers:
        members = effort.per_worker * min(workers, 2 * cores)
        seconds = _swept(workers, members, effort.iterations)
        model = members * (fixed + effort.iterations * an_iteration) / min(workers, cores)
        figures: dict[str, Figure] = {
            "experiments": members,
            "s": seconds,
            "an hour": members / seconds * 3600,
            "an hour, model": members / model * 3600,
            "measured / model": model / seconds,
        }
        rows.append(Row(f"{workers} worker processes", figures))
    title = f"classic net, {effort.iterations} iterations, every step recorded, SQLite, {cores} cores"
    return [constants, Table(title, rows)]


def _calibrate(effort: Effort) -> tuple[float, float]:
    """Seconds of an experiment whatever its length, and of an iteration."""
    short, long = max(1, effort.iterations // 10), effort.iterations
    brief, whole = (_swept(1, effort.per_worker, iterations) / effort.per_worker for iterations in (short, long))
    an_iteration = (whole - brief) / (long - short)
    return brief - short * an_iteration, an_iteration


def _swept(workers: int, members: int, iterations: int) -> float:
    """Seconds from the POST of a sweep of so many seeds to its end."""
    with server(workers, maximum_sweep=10_000) as client:
        began = time.perf_counter()
        axes = {"/training/seed": list(range(members))}
        made = client.sweep(axes, {"training": {"iterations": iterations}})
        _until_ended(client, made.id, members)
        return time.perf_counter() - began
