"""Writes a summary as a run. The same experiment logged twice is one run: both tools find it by the experiment's id."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gradprobe.client import Client
from gradprobe.client.optional import require
from gradprobe.state import Status
from gradprobe.trackers.summary import Summary, summarize

PROJECT: Final = "gradprobe"
_TEXT: Final = "diagnosis.txt"
#: MLflow's own bounds, of one request and of one parameter's text.
_METRICS_AT_ONCE: Final = 1000
_PARAMETERS_AT_ONCE: Final = 100
_LONGEST_PARAMETER: Final = 6000
_ENDED: Final = {Status.SUCCEEDED: "FINISHED", Status.FAILED: "FAILED", Status.CANCELLED: "KILLED"}


@dataclass(frozen=True, slots=True)
class Logged:
    """The run that was written: its id, and where it is."""

    run_id: str
    where: str


def log_to_mlflow(
    client: Client, experiment_id: str, project: str = PROJECT, tracking_uri: str | None = None
) -> Logged:
    """Write an ended experiment as a run of MLflow.

    Args:
        client: of the server that has it.
        experiment_id: the experiment.
        project: MLflow's experiment, made where there is none of this name.
        tracking_uri: MLflow's server or store; by default what MLflow itself is set to (`MLFLOW_TRACKING_URI`).

    Raises:
        MissingLibrary: MLflow is not installed.
        ExperimentNotEnded: it still waits or trains.
    """
    mlflow = require("mlflow", "mlflow")
    summary = summarize(client, experiment_id)
    store = mlflow.MlflowClient(tracking_uri)
    run_id = _run_of(store, summary, project)
    for batch in _batches(list(summary.parameters.items()), _PARAMETERS_AT_ONCE):
        parameters = [mlflow.entities.Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in batch]
        store.log_batch(run_id, params=parameters)
    ended = _milliseconds(summary.ended)
    # Of one experiment always the same times, so that a point that is there already is the same point.
    points = [(name, value, 0) for name, value in summary.numbers.items()]
    points += [(name, value, step) for step, values in summary.series for name, value in values.items()]
    for batch in _batches(points, _METRICS_AT_ONCE):
        metrics = [mlflow.entities.Metric(name, value, ended, step) for name, value, step in batch]
        store.log_batch(run_id, metrics=metrics)
    store.log_text(run_id, summary.told, _TEXT)
    with TemporaryDirectory() as directory:
        for file in summary.files:
            store.log_artifact(run_id, str(file.save(directory)))
    store.set_terminated(run_id, _ENDED[summary.experiment.status], ended)
    return Logged(run_id, str(store.tracking_uri))


def _run_of(store: Any, summary: Summary, project: str) -> str:
    found = store.get_experiment_by_name(project)
    place = found.experiment_id if found is not None else store.create_experiment(project)
    known = store.search_runs([place], f"tags.`gradprobe.experiment_id` = '{summary.experiment.id}'", max_results=1)
    if not known:
        return str(store.create_run(place, _milliseconds(summary.began), summary.tags, summary.title).info.run_id)
    run_id = str(known[0].info.run_id)
    for name, value in summary.tags.items():
        store.set_tag(run_id, name, value)
    return run_id


def log_to_wandb(client: Client, experiment_id: str, project: str = PROJECT) -> Logged:
    """Write an ended experiment as a run of Weights & Biases, whose id is the experiment's.

    Where it goes is what wandb itself is set to: `WANDB_MODE=offline` writes to a directory, `WANDB_DIR` says which.

    Args:
        client: of the server that has it.
        experiment_id: the experiment.
        project: wandb's project.

    Raises:
        MissingLibrary: wandb is not installed.
        ExperimentNotEnded: it still waits or trains.
    """
    wandb = require("wandb", "wandb")
    summary = summarize(client, experiment_id)
    run = wandb.init(
        project=project,
        id=summary.experiment.id,
        resume="allow",
        name=summary.title,
        notes=summary.told,
        tags=[f"{name}:{value}"[:64] for name, value in summary.tags.items()],
        config=summary.parameters,
        settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
    )
    for step, values in summary.series:
        run.log(values, step=step)
    run.summary.update(summary.numbers | {"verdict": summary.experiment.verdict})
    # What lies there when the run ends belongs to it; `save` would leave links to files of ours.
    directory = Path(run.dir)
    (directory / _TEXT).write_text(summary.told, encoding="utf-8")
    for file in summary.files:
        file.save(directory)
    where = str(run.url or directory.parent)
    run.finish(exit_code=0 if summary.experiment.status == Status.SUCCEEDED else 1)
    return Logged(str(run.id), where)


def _batches(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
