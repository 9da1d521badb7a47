"""Reading a run back over HTTP: one statistic of 50 layers over 10,000 steps, from us, MLflow and TensorBoard."""

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from benchmarks.peers import PeerMissing, require
from benchmarks.results import Figure, Goal, Result, Row, Table, command
from benchmarks.servers import gradprobe_server, mlflow_server, tensorboard_server
from benchmarks.timing import Times, once, repeatedly
from benchmarks.training import new_database, new_lease, storing
from gradprobe import statistics
from gradprobe.blocks import StatisticsBlock
from gradprobe.probe import Measured
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import leases
from worker.flush import Flusher
from worker.loop import Chunk

SAMPLED_POINTS = 1000
STATISTIC = "mean_abs"
OURS, OURS_AGAIN = "ours, every read from the database", "ours, as it runs: what was read before is kept"
_BATCH = 1000  # metrics a request, MLflow's most
_FLUSH_STEPS = 256
_MILLISECONDS = "ms, median"
_TIMES = "times faster than MLflow"
_STORING_LIMIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Effort:
    """How much data, and how often it is read."""

    layers: int = 50
    steps: int = 10_000
    repetitions: int = 30
    peer_repetitions: int = 10
    slow_repetitions: int = 2


QUICK = Effort(5, 1500, 3, 2, 1)


@dataclass(slots=True)
class Findings:
    """One tool's times; what it can't do, or what could not be measured, is missing."""

    seconds_to_store: float | None = None
    full: Times | None = None
    sampled: Times | None = None
    unchanged: Times | None = None
    bytes_full: int | None = None
    notes: dict[str, str] = field(default_factory=dict)


def run(quick: bool) -> Result:
    """All three on the same numbers."""
    effort = QUICK if quick else Effort()
    values = np.random.default_rng(0).lognormal(-5.0, 2.0, (effort.layers, effort.steps)).astype(np.float32)
    with TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True) as directory:
        found: dict[str, Findings] = {}
        for name, measure in {"ours": _ours, "MLflow": _mlflow, "TensorBoard": _tensorboard}.items():
            (Path(directory) / name).mkdir()
            try:
                found |= measure(Path(directory) / name, values, effort)
            except PeerMissing as missing:
                found[name] = Findings(notes=dict.fromkeys(("full", "sampled", "stored"), str(missing)))
    title = f"one statistic of {effort.layers} layers × {effort.steps:,} steps, over HTTP"
    parts = {
        f"{title}: all": ("full", [Goal(_TIMES, "≥", 500.0), Goal(_MILLISECONDS, "≤", 60.0, "ms")]),
        f"{title}: {SAMPLED_POINTS:,} points a series": (
            "sampled",
            [Goal(_TIMES, "≥", 150.0), Goal(_MILLISECONDS, "≤", 20.0, "ms")],
        ),
        f"{title}: not modified, 304": ("unchanged", [Goal(_MILLISECONDS, "≤", 3.0, "ms")]),
    }
    tables = [_table(name, part, goals, found) for name, (part, goals) in parts.items()]
    return Result("read", [*tables, _storing(found)])


def _ours(directory: Path, values: npt.NDArray[np.float32], effort: Effort) -> dict[str, Findings]:
    settings = Settings(data_directory=directory)
    network = {"depth": effort.layers, "width": 64}
    spec = Spec.model_validate({"network": network, "training": {"iterations": effort.steps}})
    database = new_database(settings)
    lease = new_lease(database, spec)
    sink = storing(Flusher(database, lease))
    chunks = [_chunk(values, start) for start in range(0, effort.steps, _FLUSH_STEPS)]

    def store() -> None:
        for chunk in chunks:
            sink(chunk)

    seconds = once(store)
    with database.write() as connection:
        leases.finish(connection, lease, Status.SUCCEEDED)
    database.close()
    path = f"/experiments/{lease.experiment_id}/gradients?statistics={STATISTIC}"
    found: dict[str, Findings] = {}
    for name, mebibytes in ((OURS, 0), (OURS_AGAIN, None)):
        with gradprobe_server(settings, mebibytes) as client:
            found[name] = _read_ours(client, path, effort)
    found[OURS].seconds_to_store = seconds
    found[OURS].notes["stored"] = "of seven statistics; the others stored the one"
    return found


def _read_ours(client: httpx.Client, path: str, effort: Effort) -> Findings:
    first = _get(client, path)
    found = Findings(bytes_full=len(first.content))
    found.full = repeatedly(partial(_get, client, path), effort.repetitions)
    headers = {"If-None-Match": first.headers["ETag"]}
    if client.get(path, headers=headers).status_code == httpx.codes.NOT_MODIFIED:
        found.unchanged = repeatedly(partial(client.get, path, headers=headers), effort.repetitions)
    else:
        found.notes["unchanged"] = "answered in full"
    sampled = f"{path}&max_points={SAMPLED_POINTS}"
    if client.get(sampled).status_code == httpx.codes.OK:
        found.sampled = repeatedly(partial(_get, client, sampled), effort.repetitions)
    else:
        found.notes["sampled"] = "the service refuses max_points"
    return found


def _chunk(values: npt.NDArray[np.float32], start: int) -> Chunk:
    """What the loop would hand on: all statistics of the weights' gradients, and the run's own."""
    part = values[:, start : start + _FLUSH_STEPS]
    steps = np.arange(start, start + part.shape[1], dtype=np.int64)
    scale = np.arange(1, len(statistics.names("weight_gradients")) + 1, dtype=np.float32)
    gradients = StatisticsBlock(steps, part[None] * scale[:, None, None])
    metrics = np.repeat(part[None, :1], len(statistics.names("metrics")), axis=0)
    none = StatisticsBlock(np.empty(0, np.int64), np.empty((len(statistics.names("evaluation")), 1, 0), np.float32))
    measured = Measured(steps, {"weight_gradients": gradients}, {}, part[0])
    return Chunk(int(steps[-1]) + 1, measured, StatisticsBlock(steps, metrics), none)


def _mlflow(directory: Path, values: npt.NDArray[np.float32], effort: Effort) -> dict[str, Findings]:
    found = Findings()
    with mlflow_server(directory) as client:
        api = "/api/2.0/mlflow"
        experiment = client.post(f"{api}/experiments/create", json={"name": "benchmark"}).raise_for_status().json()
        body = {"experiment_id": experiment["experiment_id"], "start_time": 0}
        run_id = client.post(f"{api}/runs/create", json=body).raise_for_status().json()["run"]["info"]["run_id"]
        batches = _mlflow_batches(run_id, values)

        def store() -> None:
            for batch in batches:
                client.post(f"{api}/runs/log-batch", json=batch).raise_for_status()

        def read(path: str, run: str, more: dict[str, Any]) -> int:
            # A request a metric: the API has none for several with all their points.
            answers = [
                _get(client, path, {run: run_id, "metric_key": f"layer{layer}", **more})
                for layer in range(1, effort.layers + 1)
            ]
            return sum(len(answer.content) for answer in answers)

        found.seconds_to_store = once(store)
        every = {"max_results": effort.steps}
        full = partial(read, f"{api}/metrics/get-history", "run_id", every)
        found.bytes_full = full()
        found.full = repeatedly(full, effort.slow_repetitions)
        bulk, some = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval", {"max_results": SAMPLED_POINTS}
        found.sampled = repeatedly(partial(read, bulk, "run_ids", some), effort.slow_repetitions)
    return {"MLflow": found}


def _mlflow_batches(run_id: str, values: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
    milliseconds = int(time.time() * 1000)
    points = [
        {"key": f"layer{layer + 1}", "value": float(values[layer, step]), "timestamp": milliseconds, "step": step}
        for step in range(values.shape[1])
        for layer in range(len(values))
    ]
    return [{"run_id": run_id, "metrics": points[i : i + _BATCH]} for i in range(0, len(points), _BATCH)]


def _tensorboard(directory: Path, values: npt.NDArray[np.float32], effort: Effort) -> dict[str, Findings]:
    require("tensorboard")
    summary_writer = require("torch.utils.tensorboard").SummaryWriter
    events, found = directory / "events", Findings()

    def store() -> None:
        with summary_writer(str(events / "run")) as writer:
            for step in range(effort.steps):
                for layer in range(effort.layers):
                    writer.add_scalar(f"layer{layer + 1}", values[layer, step], step)

    def read(client: httpx.Client) -> int:
        names = [f"layer{layer}" for layer in range(1, effort.layers + 1)]
        path = "/data/plugin/scalars/scalars"
        return sum(len(_get(client, path, {"run": "run", "tag": name}).content) for name in names)

    found.seconds_to_store = once(store)
    for points, part in ((effort.steps, "full"), (SAMPLED_POINTS, "sampled")):
        with tensorboard_server(events, points) as client:
            _wait_until_loaded(client, effort, points)
            if part == "full":
                found.bytes_full = read(client)
            setattr(found, part, repeatedly(partial(read, client), effort.peer_repetitions))
    return {"TensorBoard": found}


def _wait_until_loaded(client: httpx.Client, effort: Effort, points: int) -> None:
    """TensorBoard answers at once and reads its files afterwards."""
    deadline = time.monotonic() + _STORING_LIMIT_SECONDS
    last = {"run": "run", "tag": f"layer{effort.layers}"}
    while True:
        answer = client.get("/data/plugin/scalars/scalars", params=last)
        if answer.status_code == httpx.codes.OK:
            series = answer.json()
            if len(series) >= points and series[-1][1] == effort.steps - 1:
                return
        if time.monotonic() > deadline:
            raise RuntimeError("TensorBoard did not load its files")
        time.sleep(0.5)


def _get(client: httpx.Client, path: str, parameters: dict[str, Any] | None = None) -> httpx.Response:
    """The whole answer, not decoded."""
    return client.get(path, params=parameters).raise_for_status()


def _table(title: str, part: str, goals: list[Goal], found: dict[str, Findings]) -> Table:
    base: Times | None = getattr(found["MLflow"], part)
    rows = []
    for name, findings in found.items():
        times: Times | None = getattr(findings, part)
        if times is None and part not in findings.notes:
            continue
        figures: dict[str, Figure] = {}
        if times is not None:
            figures = {_MILLISECONDS: times.wall * 1e3, "ms, least": times.least * 1e3}
            if part != "unchanged":
                figures[_TIMES] = base.wall / times.wall if base else None
            if part == "full":
                figures["MB of answers"] = (findings.bytes_full or 0) / 1e6
        rows.append(Row(name, figures, goals if name == OURS else (), findings.notes.get(part, "")))
    return Table(title, rows)


def _storing(found: dict[str, Findings]) -> Table:
    rows = []
    for name, findings in found.items():
        figures: dict[str, Figure] = {"s": findings.seconds_to_store} if findings.seconds_to_store else {}
        if figures or "stored" in findings.notes:
            rows.append(Row(name.partition(",")[0], figures, note=findings.notes.get("stored", "")))
    return Table("storing what was read above", rows)


if __name__ == "__main__":
    command(run)
