"""The learning rate, judged by what its steps do to the weights: Σ‖ΔW‖/‖W‖, the path that a layer's weights go.

No size of a step is wrong by itself; what is judged is that steps rewrite a layer before it has learned, or could not
move it by the planned end, and that the loss shows it.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from gradprobe.diagnosis import signal
from gradprobe.diagnosis.findings import Finding
from gradprobe.diagnosis.measurements import Floats, Measurements
from gradprobe.diagnosis.progress import learned_share
from gradprobe.diagnosis.thresholds import Thresholds

_FIRST_STEPS: Final = 10
#: Below this share of what can be learned a training has not done its work, if it does anything.
_HALF: Final = 0.5


def paths(measured: Measurements) -> Floats | None:
    """Each layer's path length over the run, [L]; a recorded step stands for those up to the next one."""
    ratios, steps = measured.series("weights", "update_ratio"), measured.steps("weights")
    if ratios is None:
        return None
    spans = np.diff(steps, append=steps[-1] + measured.spec.recording.every)
    total: Floats = np.nansum(ratios * spans, axis=1)
    return total


def early_path(measured: Measurements) -> float:
    """The longest path of a layer over the first ten recorded steps; 0 where it was not recorded."""
    ratios = measured.series("weights", "update_ratio")
    return 0.0 if ratios is None else float(np.nansum(ratios[:, :_FIRST_STEPS], axis=1).max())


def _signal_arrives(measured: Measurements) -> bool:
    """Whether any δ reaches the first layer: where none does, no learning rate could move its weights."""
    deltas = measured.log_delta
    return deltas is None or bool(np.isfinite(deltas[0]).any())


def judge(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the whole run."""
    total, steps = paths(measured), measured.steps("weights")
    if total is None or len(steps) < thresholds.patience:
        return
    learned = learned_share(measured)
    names = measured.layer_names
    first, last = int(steps[0]), int(steps[-1])
    if total.max() < thresholds.moved and learned < _HALF and _signal_arrives(measured):
        evidence = {"path_length": total.max(), "threshold": thresholds.moved, "learned": learned,
                    "learning_rate": measured.spec.optimizer.learning_rate}  # fmt: skip
        yield Finding(
            "learning_rate_too_low", "in_training", "critical", "learning_rate_too_low", first, last, True, len(steps),
            f"All steps together move no layer's weights by more than {100 * total.max():.2g} % of their norm.",
            "", tuple(names), dict(zip(names, total.tolist(), strict=True)), evidence,
        )  # fmt: skip
    early = early_path(measured)
    if early > thresholds.rewritten and learned < thresholds.lost:
        ratios = measured.series("weights", "update_ratio")
        by_layer = np.nansum(ratios[:, :_FIRST_STEPS], axis=1) if ratios is not None else total
        layers = np.flatnonzero(by_layer > thresholds.rewritten)
        evidence = {"path_length_of_first_steps": early, "threshold": thresholds.rewritten, "learned": learned,
                    "learning_rate": measured.spec.optimizer.learning_rate}  # fmt: skip
        # Gradients that explode backwards make any usual learning rate too high.
        strained = signal.strained(measured, thresholds, exploding=True) or ("learning_rate_too_high", "")
        yield Finding(
            "learning_rate_too_high", "in_training", "critical", strained[0], first, last, True,
            len(steps),
            f"The first ten steps move weights by {early:.2g} times their norm, {_told(learned, thresholds)}.",
            "", tuple(names[index] for index in layers), {names[index]: float(by_layer[index]) for index in layers},
            evidence,
        )  # fmt: skip


def _told(learned: float, thresholds: Thresholds) -> str:
    if learned < thresholds.learned:
        return "and nothing is learned"
    return f"and no more than {100 * learned:.0f} % of what there is has been learned"
