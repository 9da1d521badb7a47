"""What experiments take, against what `gradprobe.estimate` says beforehand; and constants that would fit best."""

import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.results import Figure, Goal, Result, Row, Table, command
from benchmarks.timing import Timed, Times, in_rounds
from benchmarks.training import dataset, lasting, new_database, new_lease, recorded, storing, watched
from gradprobe.estimate import SECONDS, estimate, features, seconds_per_iteration
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from worker.flush import Flusher
from worker.loop import Pace, train

_CPU = torch.device("cpu")
_PACE = Pace(0.2, 0.05)
_MEBIBYTE = 1024 * 1024
_STORED_ITERATIONS = 1000


def _spec(kind: str, depth: int, width: int, batch: int, every: int = 1) -> Spec:
    network = {"kind": kind, "depth": depth, "width": width, "activation": "relu", "initialization": "he_normal"}
    spec = Spec.model_validate({"network": network, "training": {"batch_size": batch}})
    return recorded(spec, every, 25 * every)


def _subjects(quick: bool) -> dict[str, Spec]:
    small = [("mlp", 6, 10, 30, 1), ("conv", 3, 4, 8, 1)]
    more = [
        ("mlp", 1, 10, 30, 1),
        ("mlp", 6, 10, 30, 100),
        ("mlp", 6, 10, 1000, 1),
        ("mlp", 20, 50, 30, 1),
        ("mlp", 100, 100, 64, 1),
        ("mlp", 100, 100, 64, 100),
        ("mlp", 4, 1000, 128, 1),
        ("mlp", 4, 1000, 128, 100),
        ("mlp", 500, 10, 10, 1),
        ("mlp", 4, 3000, 32, 1),
        ("mlp", 4, 3000, 32, 100),
        ("conv", 5, 16, 32, 1),
        ("conv", 5, 32, 64, 100),
        ("resnet", 20, 16, 32, 1),
        ("resnet", 20, 16, 32, 100),
    ]
    return _named(small if quick else small[:1] + more)


def _named(rows: Sequence[tuple[str, int, int, int, int]]) -> dict[str, Spec]:
    return {
        f"{kind} {depth}×{width}, batch {batch}, every {every}": _spec(kind, depth, width, batch, every)
        for kind, depth, width, batch, every in rows
    }


def run(quick: bool) -> Result:
    """Seconds, memory and storage on one thread of the CPU."""
    rounds, seconds, name = (1, 0.01, "synthetic") if quick else (2, 0.5, "mnist")
    data = dataset(name)
    subjects = _subjects(quick)

    def timing(spec: Spec) -> Timed:
        return watched(spec, data, seconds, _CPU, pace=Pace(0.02, 0.01) if quick else _PACE)

    times = in_rounds({subject: partial(timing, spec) for subject, spec in subjects.items()}, rounds)
    tables = [_seconds(subjects, times), _fitted(list(subjects.values()), times)]
    some = list(subjects.items())[:: 1 if quick else 4]
    large = _named(
        [("mlp", 6, 10, 30, 1), ("mlp", 4, 3000, 32, 1), ("mlp", 10, 1000, 4000, 1), ("conv", 5, 64, 256, 1)]
    )
    memory = _memory(list((subjects if quick else large).items()), quick)
    return Result("estimates", [*tables, memory, _storage(some, 50 if quick else _STORED_ITERATIONS)])


def _seconds(subjects: dict[str, Spec], times: dict[str, Times]) -> Table:
    rows = []
    for subject, spec in subjects.items():
        said, found = seconds_per_iteration(spec), _least(times[subject])
        figures: dict[str, Figure] = {
            "ms, measured": found * 1e3,
            "ms, estimated": said * 1e3,
            "estimated ÷ measured": said / found,
        }
        rows.append(
            Row(subject, figures, [Goal("estimated ÷ measured", "≥", 0.5), Goal("estimated ÷ measured", "≤", 3.0)])
        )
    return Table("one iteration on one thread, processor time", rows)


def _least(times: Times) -> float:
    """Seconds on the processor, which waiting for others does not lengthen."""
    return min(timed.processor for timed in times.rounds)


def _fitted(specs: Sequence[Spec], times: dict[str, Times]) -> Table:
    """Constants, none negative, of the least relative error; `SECONDS` are those of one such run, rounded up."""
    found = np.array([_least(timed) for timed in times.values()])
    matrix = np.array([list(features(spec).values()) for spec in specs]) / found[:, None]
    fitted = _nonnegative(matrix, np.ones(len(specs)))
    rows = [
        Row(name, {"µs, in use": SECONDS[name] * 1e6, "µs, fits best": value * 1e6})
        for name, value in zip(SECONDS, fitted, strict=True)
    ]
    return Table("what an iteration's time is made of", rows)


def _nonnegative(matrix: Any, target: Any) -> Any:
    """Least squares without negative terms, by leaving out what would become one."""
    used = list(range(matrix.shape[1]))
    while used:
        solution = np.linalg.lstsq(matrix[:, used], target, rcond=None)[0]
        if (solution >= 0).all():
            break
        used.pop(int(np.argmin(solution)))
    answer = np.zeros(matrix.shape[1])
    answer[used] = solution
    return answer


def _memory(subjects: Sequence[tuple[str, Spec]], quick: bool) -> Table:
    rows = []
    for subject, spec in subjects:
        name = "synthetic" if quick else "mnist"
        child = [sys.executable, "-m", "benchmarks.estimates", "--child", name, spec.model_dump_json()]
        peak = int(subprocess.run(child, check=True, capture_output=True, text=True).stdout)  # noqa: S603
        said = estimate(spec).memory_bytes
        figures: dict[str, Figure] = {
            "MiB, measured": peak / _MEBIBYTE,
            "MiB, estimated": said / _MEBIBYTE,
            "estimated ÷ measured": said / peak,
        }
        rows.append(Row(subject, figures, [Goal("estimated ÷ measured", "≥", 0.8)]))
    return Table("a worker's memory at its peak", rows)


def _storage(subjects: Sequence[tuple[str, Spec]], iterations: int) -> Table:
    rows = []
    for subject, spec in subjects:
        shorter = lasting(spec, max(10, iterations // max(1, spec.network.depth)))
        with TemporaryDirectory(prefix="gradprobe-bench-") as directory:
            database = new_database(Settings(data_directory=Path(directory)))
            empty = _size(Path(directory))
            flusher = Flusher(database, new_lease(database, shorter))
            train(shorter, dataset("synthetic"), _CPU, storing(flusher), _PACE)
            database.close()
            found = _size(Path(directory)) - empty
        said = estimate(shorter).stored_bytes
        figures: dict[str, Figure] = {"kB, measured": found / 1e3, "kB, estimated": said / 1e3}
        rows.append(Row(subject, figures | {"estimated ÷ measured": said / max(found, 1)}))
    return Table("storage in SQLite", rows)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("gradprobe.db*"))


def _child(name: str, document: str) -> None:
    torch.set_num_threads(1)
    data = dataset(name)
    train(lasting(Spec.model_validate_json(document), 12), data, _CPU, lambda _: None, _PACE)
    # Not getrusage: what that tells begins with the size of the process that this one was forked from.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    sys.stdout.write(str(int(peak) * 1024))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:])
    else:
        command(run)
