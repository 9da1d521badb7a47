"""What the rules compare with: numbers of e-folds, deviations or shares, none an absolute size of a gradient.

A loss of ln 10 is that of a guess among ten classes; e-folds are of squares, as everywhere in theory.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Final

from gradprobe.theory.meanfield import TRAINABLE_LENGTHS


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Give others to judge the same measurements again; `docs/diagnosis.md` says where each comes from.

    Attributes:
        depth_limit: e-folds of ‖δ‖² between a layer and the output layer beyond which gradients vanish or explode:
            six correlation lengths (Schoenholz et al. 2017).
        recovered: share of `depth_limit` at which a finding in training ends (hysteresis).
        band: deviations of the null band, √(5 Σ 1/n), that chance is granted.
        lost: share of dead or saturated units that costs a layer an e-fold of δ²: 1 − 1/e; and what a training has
            learned when its loss is an e-fold below a guess's.
        moved: path length Σ‖ΔW‖/‖W‖ of every layer below which nothing can have been learned.
        rewritten: the same over the first ten steps, above which a layer is a new one before it has learned.
        learned: share of the guess's loss, ln 10, below which a training counts as stalled.
        rise: factor over the loss at the start from which a training diverges.
        swing: share of what was learned that a loss gives back, again and again, when it oscillates.
        overfitted: rise of the test loss over its least, as a share.
        patience: recorded steps below which no verdict on training is given.
    """

    depth_limit: float = TRAINABLE_LENGTHS
    recovered: float = 2.0 / 3.0
    band: float = 3.0
    lost: float = 1.0 - math.exp(-1.0)
    moved: float = 0.1
    rewritten: float = 1.0
    learned: float = 0.05
    rise: float = 1.5
    swing: float = 0.5
    overfitted: float = 0.2
    patience: float = 100.0

    def changed(self) -> dict[str, float]:
        """Those that are not the default."""
        return {name: value for name, value in self.values().items() if value != getattr(DEFAULT, name)}

    def values(self) -> dict[str, Any]:
        """All of them by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


DEFAULT: Final = Thresholds()
