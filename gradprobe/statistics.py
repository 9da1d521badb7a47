"""What each statistic is. Code that computes one and its twin in `tests/numerics/` both follow this page.

Axes of a block of statistics: `[statistic, layer, step]`, float32. Elements are those of one layer's tensor at one
step: a weight matrix's gradient, or the batch of output gradients δ, activations and so on.

A layer's z is what its weights and bias put out, before a normalization, a skip connection or an activation; its h is
what its activation puts out, before dropout and before a skip connection around the layer (in a residual block the skip
connection is added before the second activation, and is in h). The units of a convolution are its channels; its δ and h
have an element at every position.

A value that is not finite is data. `nonfinite_count` counts such elements; every other statistic is over the finite
elements alone, so that one NaN hides nothing; where no element is finite, the others are NaN.
"""

from dataclasses import dataclass
from typing import Literal

from gradprobe.spec import TensorName

Tensor = Literal[
    "weight_gradients",
    "clipped_weight_gradients",
    "output_gradients",
    "weights",
    "activations",
    "metrics",
    "evaluation",
]


@dataclass(frozen=True, slots=True)
class Statistic:
    """A definition: x are the n finite elements of the layer's tensor at one step."""

    name: str
    formula: str
    unit: str


MEAN_ABS = Statistic("mean_abs", "Σ|x| / n", "as x")
MEAN = Statistic("mean", "Σx / n", "as x")
STD = Statistic("std", "√(Σ(x − mean)² / n), the population's", "as x")
NORM = Statistic("norm", "√Σx²", "as x")
MAX_ABS = Statistic("max_abs", "max |x|", "as x")
ZERO_FRACTION = Statistic("zero_fraction", "count(x = 0) / n, both signs of zero", "share, 0…1")
NONFINITE_COUNT = Statistic("nonfinite_count", "count of elements that are NaN or ±Inf", "elements")
UPDATE_RATIO = Statistic("update_ratio", "‖W after the step − W‖ / ‖W‖; 0 where both are 0", "ratio")
SATURATED_FRACTION = Statistic(
    "saturated_fraction", "share of x where the activation's slope is under 5 % of its largest, see SATURATION", "share"
)
DEAD_FRACTION = Statistic(
    "dead_fraction",
    "share of units (of a convolution: channels) that are exactly zero over the whole batch and at every position",
    "share of units",
)

LOSS = Statistic("loss", "mean cross-entropy of the batch, before the step", "nats")
ACCURACY = Statistic("accuracy", "share of the batch classified correctly, before the step", "share, 0…1")
LEARNING_RATE = Statistic("learning_rate", "the step's learning rate", "1")
GRADIENT_NORM = Statistic(
    "gradient_norm", "√Σ over all parameters' gradients g², before clipping", "as loss per parameter"
)
SECONDS = Statistic("seconds_per_iteration", "wall time of the iteration; what storing takes is not in it", "s")
TEST_LOSS = Statistic("test_loss", "mean cross-entropy of the test set, before the step", "nats")
TEST_ACCURACY = Statistic("test_accuracy", "share of the test set classified correctly, before the step", "share, 0…1")

DISTRIBUTION = (MEAN_ABS, MEAN, STD, NORM, MAX_ABS, ZERO_FRACTION, NONFINITE_COUNT)

#: What is recorded of each tensor, in the order of a block's first axis.
#: `weight_gradients`: ∂L/∂W, L the batch's mean loss, unscaled, before clipping.
#: `clipped_weight_gradients`: the same after clipping; recorded where clipping is on.
#: `output_gradients`: δ = ∂L/∂z per sample, unscaled, the loss's 1/B undone.
#: `weights`: W before the step. `activations`: h, of the output layer its logits.
#: In float16 a loss whose scale was too large leaves gradients that are infinite or NaN, and its step is skipped; both
#: are recorded as they are: `nonfinite_count` above 0, `update_ratio` 0.
STATISTICS: dict[Tensor, tuple[Statistic, ...]] = {
    "weight_gradients": DISTRIBUTION,
    "clipped_weight_gradients": DISTRIBUTION,
    "output_gradients": DISTRIBUTION,
    "weights": (*DISTRIBUTION, UPDATE_RATIO),
    "activations": (MEAN, STD, SATURATED_FRACTION, DEAD_FRACTION),
    "metrics": (LOSS, ACCURACY, LEARNING_RATE, GRADIENT_NORM, SECONDS),
    "evaluation": (TEST_LOSS, TEST_ACCURACY),
}

#: Tensors with a histogram.
HISTOGRAM_TENSORS: tuple[TensorName, ...] = ("weight_gradients", "output_gradients")

#: When an activation counts as saturated: its slope |φ′| is under 5 % of the largest slope it can have.
SATURATION: dict[str, str] = {
    "sigmoid": "h(1 − h) < 0.0125",
    "tanh": "1 − h² < 0.05",
    "relu": "h = 0",
    "leaky_relu": "h < 0, and only where negative_slope < 0.05",
    "prelu": "never: its slope is trained",
    "elu": "h < −0.95",
    "selu": "h < −0.95 λα, λα = 1.7581",
    "gelu": "|φ′(z)| < 0.05 · 1.1289",
    "silu": "|φ′(z)| < 0.05 · 1.0998",
    "softplus": "1 − exp(−h) < 0.05",
    "hardtanh": "|h| = 1",
    "identity": "never",
}


def names(tensor: Tensor) -> tuple[str, ...]:
    """The names of a tensor's statistics, in a block's order."""
    return tuple(statistic.name for statistic in STATISTICS[tensor])
