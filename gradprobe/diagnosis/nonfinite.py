"""The first cause of NaN and infinity: which step, forwards or backwards, which layer, and what was there before."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gradprobe.diagnosis import signal
from gradprobe.diagnosis.findings import Cause, Finding, Phase
from gradprobe.diagnosis.measurements import Flags, Floats, Measurements
from gradprobe.diagnosis.thresholds import Thresholds
from gradprobe.statistics import Tensor
from gradprobe.subject import WatchedSpec

_TOLD: Final[tuple[tuple[Tensor, str], ...]] = (
    ("weights", "max_abs"),
    ("output_gradients", "max_abs"),
    ("weights", "update_ratio"),
)
_COUNTED: Final[tuple[Tensor, ...]] = ("weights", "output_gradients", "weight_gradients")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where it began: the step's column and number, the pass, and the first layer in the order of execution."""

    column: int
    step: int
    where: str
    layer: str | None


def judge(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the whole run; in float16 single skipped steps are the loss scaler's ordinary work."""
    bad = _bad_steps(measured)
    if not bad.any():
        return
    if measured.spec.training.precision == "float16" and bad.mean() < 0.05 and not bad[-1]:
        return
    origin = _origin(measured, int(np.flatnonzero(bad)[0]))
    steps = measured.steps()
    last = int(steps[np.flatnonzero(bad)[-1]])
    cause = _cause(measured, thresholds, origin)
    phase: Phase = "at_initialization" if origin.step == 0 else "in_training"
    place = f" in {origin.layer}" if origin.layer else ""
    evidence = {"where": origin.where, "layer": origin.layer, "steps": int(bad.sum()), **_before(measured, origin)}
    yield Finding(
        "non_finite", phase, "critical", cause, origin.step, last, bool(bad[-1]), int(bad.sum()),
        f"NaN or infinity from step {origin.step} on, first in the {origin.where}{place}.",
        "overflow" if cause == "weight_scale" else "",
        (origin.layer,) if origin.layer else (), {}, evidence,
    )  # fmt: skip


def _bad_steps(measured: Measurements) -> Flags:
    """Whether anything of a recorded step is not finite, bool [S]."""
    bad: Flags = np.zeros(len(measured.steps()), dtype=bool)
    if len(measured.loss):
        bad[:] = ~np.isfinite(measured.loss)
    for tensor in _COUNTED:
        counts = measured.series(tensor, "nonfinite_count")
        if counts is not None and counts.shape[1] == len(bad):
            bad[(counts > 0).any(axis=0)] = True
    means = measured.series("activations", "mean")
    if means is not None and means.shape[1] == len(bad):
        finite = np.isfinite(means[_seen(measured, means)]).all(axis=0)
        bad[np.logical_not(finite)] = True
    return bad


def _seen(measured: Measurements, means: Floats) -> Flags:
    """The layers whose activations were measured, bool [L]: of a watched module some can't be, and are always NaN."""
    if not isinstance(measured.spec, WatchedSpec):
        return np.ones(len(means), dtype=bool)
    return np.asarray(~np.isnan(means).all(axis=1))


def _origin(measured: Measurements, column: int) -> Origin:
    step, names = int(measured.steps()[column]), measured.layer_names
    weights = measured.series("weights", "nonfinite_count")
    if weights is not None and (weights[:, column] > 0).any():
        return Origin(column, step, "weights, by the step before", names[int(np.argmax(weights[:, column] > 0))])
    means, stds = measured.series("activations", "mean"), measured.series("activations", "std")
    if means is not None and stds is not None:
        wrong = _seen(measured, means) & ~(np.isfinite(means[:, column]) & np.isfinite(stds[:, column]))
        if wrong.any():
            return Origin(column, step, "forward pass", names[int(np.argmax(wrong))])
    if len(measured.loss) and not np.isfinite(measured.loss[column]):
        return Origin(column, step, "forward pass", names[-1])
    deltas = measured.series("output_gradients", "nonfinite_count")
    if deltas is not None and (deltas[:, column] > 0).any():
        # The backward pass begins at the output: the last layer concerned comes first.
        return Origin(column, step, "backward pass", names[int(np.flatnonzero(deltas[:, column] > 0)[-1])])
    gradients = measured.series("weight_gradients", "nonfinite_count")
    if gradients is not None and (gradients[:, column] > 0).any():
        return Origin(column, step, "backward pass", names[int(np.flatnonzero(gradients[:, column] > 0)[-1])])
    return Origin(column, step, "forward pass", None)


def _before(measured: Measurements, origin: Origin) -> dict[str, Any]:
    """The last finite values: of the recorded step before, or of the same step where it is the first."""
    column = max(0, origin.column - 1)
    told: dict[str, Any] = {"last_finite_step": int(measured.steps()[column]) if origin.column else None}
    for name in ("loss", "gradient_norm"):
        metric = measured.metric(name)
        told[f"last_{name}"] = float(metric[column]) if len(metric) > column else None
    for tensor, statistic in _TOLD:
        series = measured.series(tensor, statistic)
        if series is not None:
            told[f"largest_{tensor}_{statistic}"] = float(np.nanmax(series[:, column], initial=0.0))
    return told


def _cause(measured: Measurements, thresholds: Thresholds, origin: Origin) -> Cause:
    if origin.step == 0:
        return "weight_scale"
    ratios = measured.series("weights", "update_ratio")
    # The path of the ten steps before it, and of its own as far as it was finite.
    late = np.nansum(ratios[:, max(0, origin.column - 10) : origin.column + 1], axis=1) if ratios is not None else None
    grew = late is not None and float(late.max()) > thresholds.rewritten
    strained = signal.strained(measured, thresholds, exploding=True)
    if strained is not None:
        return strained[0]
    return "learning_rate_too_high" if grew or ratios is None else "unknown"
