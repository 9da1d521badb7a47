"""What the loss does: it stands still, rises, swings, or parts from the test set's."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from gradprobe.diagnosis import signal
from gradprobe.diagnosis.findings import Cause, Finding
from gradprobe.diagnosis.measurements import Floats, Measurements, windows
from gradprobe.diagnosis.progress import best_share, learned_share, reference_loss, smoothed_loss
from gradprobe.diagnosis.rates import early_path, paths
from gradprobe.diagnosis.thresholds import Thresholds

_ERRORS: Final = 3.0
_SWINGS: Final = 3
_EVALUATIONS: Final = 4


def stalled(measured: Measurements, thresholds: Thresholds, known: Sequence[Finding]) -> Iterator[Finding]:
    """The loss never gets well below a guess, and is not on its way there; why, as far as the other findings tell."""
    loss, steps, guess = smoothed_loss(measured), measured.steps(), measured.guess
    if (
        guess is None
        or len(steps) < thresholds.patience
        or best_share(measured) >= thresholds.learned
        or _is_on_its_way(measured, thresholds)
    ):
        return
    cause, detail = _why(measured, thresholds, known)
    evidence = {"learned": learned_share(measured), "threshold": thresholds.learned, "loss": loss[-1], "guess": guess}
    yield Finding(
        "stalled", "in_training", "critical", cause, int(steps[0]), int(steps[-1]), True, len(steps),
        f"After {len(steps):,} recorded steps the loss is {loss[-1]:.3g}, no better than a guess ({guess:.3f}).",
        detail, (), {}, evidence,
    )  # fmt: skip


def _is_on_its_way(measured: Measurements, thresholds: Thresholds) -> bool:
    """Whether the last quarter lies below the third by more than chance, and so far that more of it would be learning.

    By more than three standard errors; and as much again in each quarter to come, of the plan or at least as many steps
    as there were, would bring the loss below that of a guess by the share that counts as learned.
    """
    loss, steps = measured.loss, measured.steps()
    third, last = loss[len(loss) // 2 : -len(loss) // 4], loss[-len(loss) // 4 :]
    if not (np.isfinite(third).all() and np.isfinite(last).all()):
        return False
    error = np.sqrt(third.var() / len(third) + last.var() / len(last))
    fall = third.mean() - last.mean()
    planned = measured.spec.training.iterations or 0
    quarters = 4.0 * max(1.0, (planned - steps[-1]) / (steps[-1] + 1))
    return bool(
        fall > _ERRORS * error and last.mean() - quarters * fall < (1.0 - thresholds.learned) * reference_loss(measured)
    )


def _why(measured: Measurements, thresholds: Thresholds, known: Sequence[Finding]) -> tuple[Cause, str]:
    for finding in known:
        if finding.cause != "unknown":
            return finding.cause, finding.rule
    strained = signal.strained(measured, thresholds)
    if strained is not None:
        return strained[0], "depth"
    total = paths(measured)
    if total is not None and total.max() < thresholds.moved:
        return "learning_rate_too_low", ""
    if early_path(measured) > thresholds.rewritten:
        return "learning_rate_too_high", ""
    return "unknown", ""


def diverging(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """The loss ends well above where it began, and above a guess."""
    loss, steps = smoothed_loss(measured), measured.steps()
    if not len(loss) or len(steps) < thresholds.patience or not np.isfinite(measured.loss[0]):
        return
    limit = thresholds.rise * max(float(measured.loss[0]), reference_loss(measured))
    late = float(np.median(loss[-max(1, len(loss) // 5) :]))
    if not late > limit:
        return
    edges = windows(len(steps))
    onset = int(steps[edges[int(np.argmax(loss > limit))]])
    cause: Cause = "learning_rate_too_high" if early_path(measured) > thresholds.rewritten / 10.0 else "unknown"
    evidence = {"loss": late, "loss_at_start": float(measured.loss[0]), "threshold": limit}
    yield Finding(
        "diverging", "in_training", "critical", cause, onset, int(steps[-1]), True, len(steps),
        f"The loss rises from {measured.loss[0]:.3g} to {late:.3g}.", "", (), {}, evidence,
    )  # fmt: skip


def oscillation(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Again and again in the second half the loss gives back a large share of what it had learned."""
    loss, steps = smoothed_loss(measured), measured.steps()
    learned = best_share(measured) >= thresholds.learned
    if not len(loss) or len(steps) < thresholds.patience or not learned or not np.isfinite(loss).all():
        return
    span = max(float(loss[0]), reference_loss(measured)) - float(loss.min())
    swings = _swings(loss[len(loss) // 2 :], thresholds.swing * span)
    if swings < _SWINGS:
        return
    cause: Cause = "learning_rate_too_high" if early_path(measured) > thresholds.rewritten / 10.0 else "unknown"
    begins = int(steps[windows(len(steps))[len(loss) // 2]])
    evidence = {"swings": swings, "threshold": _SWINGS, "swing": thresholds.swing * span}
    yield Finding(
        "oscillation", "in_training", "warning", cause, begins, int(steps[-1]), True, len(steps) // 2,
        f"In the second half the loss rises {swings} times by more than {thresholds.swing * span:.2g}.",
        "", (), {}, evidence,
    )  # fmt: skip


def _swings(loss: Floats, size: float) -> int:
    """How many rises of at least `size` there are, each from the lowest point since the last."""
    count, low, high, rising = 0, float(loss[0]), float(loss[0]), False
    for value in loss.tolist():
        if rising:
            high = max(high, value)
            if high - value >= size:
                rising, low = False, value
        else:
            low = min(low, value)
            if value - low >= size:
                rising, high = True, value
                count += 1
    return count


def overfitting(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """The test loss is well above its least, while the training loss has gone on falling."""
    block = measured.blocks.get("evaluation")
    found = measured.series("evaluation", "test_loss")
    if block is None or found is None or found.shape[1] < _EVALUATIONS:
        return
    test, steps = found[0], block.steps
    if not np.isfinite(test).all():
        return
    best = int(np.argmin(test))
    rise = float(test[-1] / max(test[best], 1e-9) - 1.0)
    loss, recorded = measured.loss, measured.steps()
    width = max(1, len(loss) // 20)
    at_best = float(np.mean(loss[max(0, np.searchsorted(recorded, steps[best]) - width) :][: 2 * width]))
    now = float(np.mean(loss[-width:]))
    # More than one evaluation after the least: a single one may be chance.
    if best >= len(test) - 2 or rise <= thresholds.overfitted or not now < at_best:
        return
    evidence = {"test_loss": test[-1], "least_test_loss": test[best], "rise": rise, "threshold": thresholds.overfitted,
                "training_loss": now}  # fmt: skip
    yield Finding(
        "overfitting", "in_training", "warning", "data", int(steps[best]), int(steps[-1]), True, len(test),
        f"The test loss is {100 * rise:.0f} % above its least, of step {steps[best]}, while the training loss falls.",
        "", (), {}, evidence,
    )  # fmt: skip
