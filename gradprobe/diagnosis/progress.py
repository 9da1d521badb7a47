"""How far the loss has come: against a guess among ten classes, and against its own past."""

import math
from typing import Final

import numpy as np

from gradprobe.diagnosis.measurements import Floats, Measurements, window_means, windows
from gradprobe.spec import CLASSES

GUESS: Final = math.log(CLASSES)


def smoothed_loss(measured: Measurements) -> Floats:
    """The training loss over the run's windows, [K]; infinite where it was not finite."""
    loss = measured.loss
    if not len(loss):
        return np.empty(0)
    return window_means(np.where(np.isfinite(loss), loss, np.inf), windows(len(loss)))


def learned_share(measured: Measurements) -> float:
    """1 − loss ÷ ln 10 over the last tenth of the run: 1 is all, 0 a guess, negative is worse than a guess."""
    loss = smoothed_loss(measured)
    if not len(loss):
        return 0.0
    return float(1.0 - loss[-max(1, len(loss) // 10) :].mean() / GUESS)


def best_share(measured: Measurements) -> float:
    """The same of the best window."""
    loss = smoothed_loss(measured)
    return float(1.0 - loss.min() / GUESS) if len(loss) else 0.0
