"""The real scale of what the first layer sees, and of what the loss sends back.

Pixels of MNIST are strongly correlated and mostly background: the first layer's variance is that of the images' own
mean square, not 1.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from gradprobe.parts.watched import WatchedInputs
from gradprobe.spec import CLASSES, Dataset
from gradprobe.theory.activations import Floats

_DRAWS: Final = 8192
_SEED: Final = 20_170_601


@dataclass(frozen=True, slots=True)
class Inputs:
    """Means over a training set's pixels: x, x², and each pixel's own variance over the images."""

    mean: float
    second: float
    centered: float


#: In 0…1. A test measures MNIST's and the synthetic ones; Fashion-MNIST's are its published mean (0.2860) and deviation
#: (0.3530), and a variance over the images in MNIST's proportion to that.
_UNIT: Final = {
    "mnist": Inputs(0.130660, 0.112003, 0.067251),
    "fashion_mnist": Inputs(0.286041, 0.206438, 0.0868),
    "synthetic": Inputs(0.135365, 0.057392, 0.038948),
}
#: Drawn with mean 0 and variance 1 to begin with: what clipping to 0…1 does to them is not undone.
_SYNTHETIC_STANDARD: Final = Inputs(0.0, 1.0, 0.995916)


def inputs_of(dataset: Dataset | WatchedInputs) -> Inputs:
    """The moments of a spec's training images, or of a watched loop's first batch, as they reach the first layer."""
    if isinstance(dataset, WatchedInputs):
        return Inputs(dataset.mean, dataset.second, dataset.centered)
    unit = _UNIT[dataset.name]
    if dataset.normalization == "unit":
        return unit
    if dataset.name == "synthetic":
        return _SYNTHETIC_STANDARD
    return Inputs(0.0, 1.0, unit.centered / (unit.second - unit.mean**2))


@dataclass(frozen=True, slots=True)
class LossGradient:
    """At a start with logits of variance q: E‖∂L/∂logits‖² of one sample, and the expected loss in nats."""

    squared_norm: float
    loss: float


@lru_cache(maxsize=1)
def _draws() -> Floats:
    half = np.random.default_rng(_SEED).standard_normal((_DRAWS // 2, CLASSES))
    return np.concatenate([half, -half])


def loss_gradient(q: float) -> LossGradient:
    """Softmax and cross-entropy over ten classes, logits N(0, q), labels independent of them and balanced.

    E‖p − y‖² = E Σp² − 2/10 + 1: 0.9 for equal logits, 1.8 for very large ones. Over a fixed sample of 8,192 draws,
    good to 1 %; exact where q is 0.
    """
    logits = np.sqrt(min(q, 1e12)) * _draws()
    highest = logits.max(axis=1, keepdims=True)
    powers = np.exp(logits - highest)
    total = powers.sum(axis=1, keepdims=True)
    shares = powers / total
    squared = float((shares**2).sum(axis=1).mean()) - 2.0 / CLASSES + 1.0
    # The label's logit has mean 0, so the loss is the mean of log Σ exp.
    loss = float((np.log(total) + highest).mean())
    return LossGradient(squared, loss)
