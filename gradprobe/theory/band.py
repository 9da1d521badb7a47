"""How far a seed alone moves a gradient: the null band of finite width.

For ReLU networks with Gaussian weights ln‖δ₁‖² − ln‖δ_L‖² of one sample is close to normal, with variance 5β and mean
−5β/2, β = Σ 1/n over the hidden layers between (Hanin 2018; Hanin & Nica 2020). It is taken as the band of every
activation: others vary less.
"""

import math
from typing import Final

from gradprobe.spec import WeightLayer

FACTOR: Final = 5.0


def betas(layers: list[WeightLayer]) -> list[float]:
    """Of each layer Σ 1/n over the hidden layers from it to the last one; 0 for the output layer.

    A convolution's n is its channels: neighbouring positions share weights and inputs.
    """
    sums, found = 0.0, [0.0]
    for layer in reversed(layers[:-1]):
        sums += 1.0 / layer.weight_shape[0]
        found.append(sums)
    return found[::-1]


def deviation(beta: float) -> float:
    """One standard deviation of ln‖δ‖², in e-folds."""
    return math.sqrt(FACTOR * beta)


def shift(beta: float) -> float:
    """The mean of ln‖δ‖² against the logarithm of its mean: −5β/2."""
    return -FACTOR * beta / 2.0
