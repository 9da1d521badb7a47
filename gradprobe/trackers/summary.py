"""What of an experiment a tracker is told: parameters, final numbers, a thinned series, the verdict in words, files."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np

from gradprobe.client import Client, ProblemError
from gradprobe.client.export import Export
from gradprobe.errors import ExperimentNotEnded
from gradprobe.resources import DiagnosisDocument, Experiment

#: Of a series: a tracker's charts show no more, and each point is a row of its database.
MOST_STEPS: Final = 1000
#: Of layers whose numbers are told one by one.
_MOST_LAYERS: Final = 100
_SERIES: Final = ("loss", "accuracy", "gradient_norm")


@dataclass(frozen=True, slots=True)
class Summary:
    """One ended experiment.

    Attributes:
        parameters: the spec, flat: `network.depth`.
        numbers: final metrics by name, all finite; δ of each layer at the first and the last recorded step.
        series: (step, metrics by name), at most `MOST_STEPS` of them, finite values alone.
        told: the verdict in words, with what was found and what to try.
        files: the report and the picture; none where the server has no libraries for them.
    """

    experiment: Experiment
    parameters: dict[str, Any]
    numbers: dict[str, float]
    series: list[tuple[int, dict[str, float]]]
    told: str
    files: tuple[Export, ...]

    @property
    def title(self) -> str:
        """How the run is called."""
        return self.experiment.name or self.experiment.id

    @property
    def tags(self) -> dict[str, str]:
        """The experiment's own, and ours."""
        ours = {
            "experiment_id": self.experiment.id,
            "verdict": self.experiment.verdict,
            "status": self.experiment.status,
        }
        return self.experiment.tags | {f"gradprobe.{name}": str(value) for name, value in ours.items() if value}

    @property
    def began(self) -> datetime:
        """When it started, or was made where it never did."""
        return self.experiment.started_at or self.experiment.created_at

    @property
    def ended(self) -> datetime:
        """When it ended."""
        return self.experiment.finished_at or self.began


def summarize(client: Client, experiment_id: str) -> Summary:
    """Read it all from the server.

    Raises:
        ExperimentNotEnded: it still waits or trains.
    """
    experiment = client.get(experiment_id)
    if not experiment.status.ended:
        raise ExperimentNotEnded(f"{experiment_id} is {experiment.status}; log it once it has ended.")
    diagnosis = client.diagnosis(experiment_id)
    return Summary(
        experiment,
        dict(_flat(experiment.spec)),
        _numbers(client, experiment, diagnosis),
        _series(client, experiment_id),
        _told(diagnosis),
        _files(client, experiment_id),
    )


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and f"{prefix}{name}" not in ("name", "notes"):
            yield f"{prefix}{name}", value


def _numbers(client: Client, experiment: Experiment, diagnosis: DiagnosisDocument) -> dict[str, float]:
    found: dict[str, Any] = {"findings": len(diagnosis.findings)}
    if experiment.result is not None:
        found |= experiment.result.model_dump()
    if "output_gradients" in experiment.spec["recording"]["tensors"]:
        deltas = client.gradients(experiment.id, of="outputs", statistics=["mean_abs"])
        for layer in deltas.layers[:_MOST_LAYERS]:
            values = layer["mean_abs"]
            if len(values):
                found |= {f"delta_first/{layer.name}": values[0], f"delta_last/{layer.name}": values[-1]}
    return _finite(found)


def _series(client: Client, experiment_id: str) -> list[tuple[int, dict[str, float]]]:
    metrics = client.metrics(experiment_id)
    number = len(metrics.steps)
    chosen = np.unique(np.linspace(0, number - 1, min(number, MOST_STEPS)).astype(np.int64))
    columns = {name: metrics[name] for name in _SERIES}
    return [
        (int(metrics.steps[index]), _finite({name: values[index] for name, values in columns.items()}))
        for index in chosen
    ]


def _finite(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}


def _told(diagnosis: DiagnosisDocument) -> str:
    lines = [diagnosis.summary]
    for finding in diagnosis.findings:
        lines += ["", f"{finding.severity}: {finding.rule}, {finding.cause}", finding.explanation]
        lines += [f"- try {remedy.id}: {remedy.reason}" for remedy in finding.remedies]
    return "\n".join(lines) + "\n"


def _files(client: Client, experiment_id: str) -> tuple[Export, ...]:
    try:
        return client.export(experiment_id, "html"), client.export(experiment_id, "png")
    except ProblemError as error:
        if error.code != "EXPORT_UNAVAILABLE":
            raise
        return ()
