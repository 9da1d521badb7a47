"""Other tools' rules with their documented thresholds over the same stored data, to see where they agree.

Sources, and what stored statistics can't tell of each tool, are in `docs/diagnosis.md`. Two kindnesses: their gradient
rules see every recorded step, where the tools by default look at few; and a rule that needs what is not stored is left
out rather than guessed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from gradprobe.diagnosis.findings import HEALTHY, UNDECIDED, Diagnosis, Finding
from gradprobe.diagnosis.measurements import Flags, Floats, Measurements
from gradprobe.statistics import Tensor

Preset = Literal["smdebug", "autotrainer", "mindinsight"]

_SAVE_INTERVAL: Final = 500  # of Debugger's losses


@dataclass(frozen=True, slots=True)
class _Hit:
    """Where a condition held: [L, S], or [1, S] for the run as a whole."""

    rule: str
    held: Flags
    evidence: dict[str, Any]
    tensor: Tensor = "weight_gradients"


def judge(measured: Measurements, preset: Preset) -> Diagnosis:
    """What that tool would say, as a diagnosis without causes and remedies."""
    with np.errstate(all="ignore"):
        findings = tuple(_finding(measured, hit) for hit in _PRESETS[preset](measured) if hit.held.any())
    recorded = len(measured.steps()) > 0
    otherwise = HEALTHY if recorded else UNDECIDED
    verdict = findings[0].rule if findings else otherwise
    told = ", ".join(finding.rule for finding in findings) or otherwise
    return Diagnosis(verdict, otherwise, verdict, None, f"{preset}: {told}.", findings, None)


def _finding(measured: Measurements, hit: _Hit) -> Finding:
    steps, names = measured.steps(hit.tensor), measured.layer_names
    columns = np.flatnonzero(hit.held.any(axis=0))
    layers = np.flatnonzero(hit.held.any(axis=1)) if len(hit.held) == len(names) else np.empty(0, np.int64)
    first, last = int(steps[columns[0]]), int(steps[columns[-1]])
    return Finding(
        hit.rule, "in_training", "warning", "unknown", first, last, bool(columns[-1] == len(steps) - 1), len(columns),
        f"{hit.rule.replace('_', ' ').capitalize()} at step {first}, in {len(columns)} recorded steps.",
        "", tuple(names[index] for index in layers), {}, hit.evidence,
    )  # fmt: skip


def _smdebug(measured: Measurements) -> Iterator[_Hit]:
    means, zeros = measured.series("weight_gradients", "mean_abs"), measured.series("weight_gradients", "zero_fraction")
    counts = measured.series("weight_gradients", "nonfinite_count")
    if counts is not None:
        yield _Hit("exploding_tensor", counts > 0, {"nonfinite_count": 1})
    if means is not None:
        yield _Hit("vanishing_gradient", means < 1e-7, {"threshold": 1e-7})
    if zeros is not None:
        yield _Hit("all_zero", zeros >= 1.0, {"threshold": 100.0})
    dead = measured.series("activations", "dead_fraction")
    if dead is not None and measured.spec.network.activation.name == "relu":
        evidence = {"threshold_inactivity": 1.0, "threshold_layer": 50.0}
        yield _Hit("dead_relu", _hidden(dead > 0.5), evidence, "activations")
    yield from _poor_weights(measured)
    ratios = measured.series("weights", "update_ratio")
    if ratios is not None:
        evidence = {"large_threshold": 10.0, "small_threshold": 1e-8}
        yield _Hit("weight_update_ratio", (ratios > 10.0) | (ratios < 1e-8), evidence, "weights")
    yield from _loss_not_decreasing(measured)
    yield from _overfit(measured)


def _poor_weights(measured: Measurements) -> Iterator[_Hit]:
    """Of the activations' outputs instead of their inputs, which are not stored, over the first ten steps."""
    spread = measured.series("activations", "std")
    if spread is None or len(spread) < 3 or measured.spec.network.activation.name != "relu":
        return
    variances = spread[:-1, :10] ** 2
    held = np.zeros((1, spread.shape[1]), dtype=bool)
    held[0, :10] = variances.max(axis=0) > 10.0 * variances.min(axis=0)
    yield _Hit("poor_weight_initialization", held, {"threshold": 10.0}, "activations")


def _loss_not_decreasing(measured: Measurements) -> Iterator[_Hit]:
    """Over ten saved losses; by default one in 500 steps is saved, so shorter runs are not judged."""
    saved = np.flatnonzero(measured.steps() % _SAVE_INTERVAL == 0)
    held = np.zeros((1, len(measured.steps())), dtype=bool)
    for before, now in zip(saved[:-10], saved[10:], strict=True):
        held[0, now] = not measured.loss[now] < 0.999 * measured.loss[before]
    yield _Hit("loss_not_decreasing", held, {"num_steps": 10, "diff_percent": 0.1}, "metrics")


def _overfit(measured: Measurements) -> Iterator[_Hit]:
    test, steps = measured.series("evaluation", "test_loss"), measured.steps("evaluation")
    if test is None or not len(measured.loss):
        return
    ends = np.clip(np.searchsorted(measured.steps(), steps), 1, len(measured.loss))
    training = np.array([measured.loss[max(0, end - 50) : end].mean() for end in ends])
    yield _Hit("overfit", ((test[0] - training) / training > 0.1)[None] & (steps > 0), {"ratio": 0.1}, "evaluation")


def _autotrainer(measured: Measurements) -> Iterator[_Hit]:
    norms, counts = measured.series("weight_gradients", "norm"), measured.series("weight_gradients", "nonfinite_count")
    zeros = measured.series("weight_gradients", "zero_fraction")
    if norms is None or counts is None or zeros is None:
        return
    looks = _looks(norms.shape[1])
    # Reported only while accuracy is below Theta, and where it has been so at three looks.
    poor = _accuracy(measured)[None, :] < 0.7
    ratio = norms[:1] / norms[-1:]
    sizes = np.array([np.prod(shape) for shape in measured.spec.network.layer_shapes], dtype=np.float64)
    share = (zeros * sizes[:, None]).sum(axis=0, keepdims=True) / sizes.sum()
    means = measured.series("activations", "mean")
    if means is not None and len(means) > 1:
        abnormal = _hidden(np.abs(means) >= 10.0)
        yield _Hit("abnormal_data", _at(abnormal & poor, looks), {"threshold": 10.0}, "activations")
    not_finite = (counts > 0).any(axis=0, keepdims=True)
    exploded = _at((ratio > 70.0) | not_finite, looks) & poor
    vanished = _at((ratio < 1e-3) & (norms[:1] < 1e-4), looks) & poor
    dying = _at(share >= 0.7, looks) & poor
    for rule, held, evidence in (
        ("vanishing", vanished, {"beta_1": 1e-3, "beta_2": 1e-4}),
        ("exploding", exploded, {"beta_3": 70.0}),
        ("dying_relu", dying, {"gamma": 0.7}),
    ):
        if held.sum() >= 3:
            yield _Hit(rule, held, evidence)
    yield from _slow_or_unstable(measured, looks)


def _slow_or_unstable(measured: Measurements, looks: Flags) -> Iterator[_Hit]:
    """Judged after 30 % of the looks, at which the tool has accuracies by epoch."""
    accuracy = _accuracy(measured)[looks]
    held = np.zeros((1, len(looks)), dtype=bool)
    held[0, -1:] = True
    if len(accuracy) < 4:
        return
    turns = np.diff(np.sign(np.diff(accuracy)))
    extremes = accuracy[1:-1][turns != 0]
    swings = int((np.abs(np.diff(extremes)) >= 0.03).sum()) // 2
    if swings >= 0.2 * len(accuracy):
        yield _Hit("oscillating_loss", held, {"zeta": 0.03, "eta": 0.2}, "metrics")
    if np.diff(accuracy).max() < 0.01 and accuracy.max() < 0.7:
        yield _Hit("slow_convergence", held, {"delta": 0.01, "theta": 0.7}, "metrics")


def _looks(count: int) -> Flags:
    """Twenty looks, evenly over the run: the tool looks at the end of every third epoch."""
    chosen = np.zeros(count, dtype=bool)
    chosen[np.unique(np.linspace(0, count - 1, 21).astype(int)[1:])] = True
    return chosen


def _accuracy(measured: Measurements) -> Floats:
    """The training accuracy, smoothed over a twentieth of the run."""
    accuracy = measured.metric("accuracy")
    width = max(1, len(accuracy) // 20)
    total = np.cumsum(np.concatenate([np.zeros(width), accuracy]))
    counts = np.minimum(np.arange(1, len(accuracy) + 1), width)
    found: Floats = (total[width:] - total[:-width]) / counts
    return found


def _mindinsight(measured: Measurements) -> Iterator[_Hit]:
    counts = measured.series("weight_gradients", "nonfinite_count")
    if counts is not None:
        yield _Hit("gradient_exploding", counts > 0, {"nonfinite_count": 1})
    ratios = measured.series("weights", "update_ratio")
    if ratios is not None:
        yield _Hit("weight_change_too_large", ratios > 0.1, {"abs_mean_update_ratio_gt": 0.1}, "weights")
        yield _Hit("weight_change_too_small", ratios < 1e-4, {"abs_mean_update_ratio_lt": 1e-4}, "weights")
    zeros = measured.series("weight_gradients", "zero_fraction")
    if zeros is not None:
        yield _Hit("tensor_all_zero", zeros >= 1.0, {"zero_percentage_ge": 100.0})


def _hidden(held: Flags) -> Flags:
    """Without the output layer, which has no activation."""
    found = held.copy()
    found[-1] = False
    return found


def _at(held: Flags, columns: Flags) -> Flags:
    """At these columns alone."""
    found: Flags = held & columns[None, :]
    return found


_PRESETS: Final[dict[Preset, Callable[[Measurements], Iterator[_Hit]]]] = {
    "smdebug": _smdebug,
    "autotrainer": _autotrainer,
    "mindinsight": _mindinsight,
}
PRESETS: Final[tuple[Preset, ...]] = tuple(_PRESETS)
