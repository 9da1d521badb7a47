"""How far the loss has come: against a guess among all classes, and against its own past."""

import numpy as np

from gradprobe.diagnosis.measurements import Floats, Measurements, window_means, windows


def smoothed_loss(measured: Measurements) -> Floats:
    """The training loss over the run's windows, [K]; infinite where it was not finite."""
    loss = measured.loss
    if not len(loss):
        return np.empty(0)
    return window_means(np.where(np.isfinite(loss), loss, np.inf), windows(len(loss)))


def reference_loss(measured: Measurements) -> float:
    """What learning is measured from: a guess's loss, or, where the loss is of another kind, its own at the start.

    NaN where there is no loss, or one that may be negative: then nothing can be said, and every comparison is false.
    """
    if measured.guess is not None:
        return measured.guess
    loss = smoothed_loss(measured)
    return float(loss[0]) if len(loss) and loss[0] > 0 else float("nan")


def learned_share(measured: Measurements) -> float:
    """1 − loss ÷ ln classes over the last tenth of the run: 1 is all, 0 a guess, negative is worse than a guess."""
    loss = smoothed_loss(measured)
    if not len(loss):
        return 0.0 if measured.guess is not None else float("nan")
    return float(1.0 - loss[-max(1, len(loss) // 10) :].mean() / reference_loss(measured))


def best_share(measured: Measurements) -> float:
    """The same of the best window."""
    loss = smoothed_loss(measured)
    if not len(loss):
        return 0.0 if measured.guess is not None else float("nan")
    return float(1.0 - loss.min() / reference_loss(measured))
