"""The cause: each layer's measured ln χ, split into what carries it.

Exactly, for every layer l below the output layer N, at any step:

    ln‖δ_l‖² − ln‖δ_{l+1}‖² = weight_scale + activation_derivative + normalization + skip_connection + width

with, W the next layer's weights and n its outputs,

- weight_scale = ln(‖W‖² / n) − ln u: the weights' scale σ_w² against u, the usual initialization's for this activation
  (2 for ReLU, 1 for tanh: `theory.weights.usual_weight`),
- activation_derivative = ln E[φ′²] + ln u: 0 for an activation at the point its usual initialization is made for,
- normalization = −ln σ_z²: what a normalization multiplies squared gradients with,
- skip_connection = ln(E[(∂L/∂h)²] ÷ the share of it that came through W), as theory has it; 0 without one,
- width = the rest: what chance does in a layer of finite width, and what the others leave out.

E[φ′²] is measured where the stored statistics determine it (ReLU and its like: from the saturated share), else it is
quadrature at the measured variance of z.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gradprobe.diagnosis.findings import Cause
from gradprobe.diagnosis.measurements import Floats, Measurements
from gradprobe.spec import LeakyReLU
from gradprobe.theory import band
from gradprobe.theory.activations import function_of
from gradprobe.theory.gaussian import moments
from gradprobe.theory.weights import usual_weight

PARTS: Final[tuple[Cause, ...]] = (
    "weight_scale",
    "activation_derivative",
    "normalization",
    "skip_connection",
    "width",
)
_SATURATION_DECIDES: Final = 0.05  # slopes below it count as saturated, see `statistics.SATURATION`
#: A quarter: the square of the slope that halves a signal wherever it is; sigmoid's largest is 1/16.
_FLAT: Final = 0.25
_LIKELY: Final = 0.01


@dataclass(frozen=True, slots=True)
class Attribution:
    """Parts by layer, [N − 1] each, e-folds of ‖δ‖²; their sum is the measured ln χ."""

    step: int
    log_chi: Floats
    parts: dict[Cause, Floats]
    normalized: bool

    def totals(self, first: int = 0) -> dict[Cause, float]:
        """Sums over the layers from `first` to the output layer; infinite parts count as ±100."""
        sums = {name: float(np.nan_to_num(part[first:], nan=0.0, posinf=1e2, neginf=-1e2).sum()) for name, part in
                self.parts.items()}  # fmt: skip
        if self.normalized:
            # Behind a normalization the weights' scale cancels: the two are one cause.
            sums["normalization"] += sums["weight_scale"]
            sums["weight_scale"] = 0.0
        return sums

    def dominant(self, first: int, vanishing: bool) -> Cause:
        """The part that makes gradients vanish, or explode, most from the output layer down to layer `first`."""
        sums = self.totals(first)
        return min(sums, key=lambda name: sums[name]) if vanishing else max(sums, key=lambda name: sums[name])

    def document(self, names: list[str]) -> dict[str, Any]:
        """As plain JSON."""
        layers = [
            {"name": name, "log_chi": self.log_chi[index], **{part: self.parts[part][index] for part in PARTS}}
            for index, name in enumerate(names[:-1])
        ]
        return {"step": self.step, "unit": "e-folds of ‖δ‖² a layer", "layers": layers, "totals": self.totals()}


def attribute(measured: Measurements, column: int = 0) -> Attribution | None:
    """Of one recorded step; None where δ or the weights were not recorded, or where there is one layer only."""
    deltas, scales = measured.log_delta, measured.weight_scale
    if (
        measured.unknown
        or deltas is None
        or scales is None
        or len(deltas) < 2
        or column >= min(deltas.shape[1], scales.shape[1])
    ):
        return None
    log_delta = deltas[:, column]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_chi = log_delta[:-1] - log_delta[1:]
        usual = math.log(usual_weight(measured.spec.network.activation))
        weight = np.log(scales[1:, column]) - usual
        normalization = _normalization(measured, column)
        derivative = np.log(_slope_second(measured, column, normalization)) + usual
        skipped = _skipped(measured)
        width = log_chi - weight - normalization - derivative - skipped
    parts: dict[Cause, Floats] = {
        "weight_scale": weight,
        "activation_derivative": derivative,
        "normalization": normalization,
        "skip_connection": skipped,
        "width": width,
    }
    steps = measured.steps("output_gradients")
    return Attribution(int(steps[column]), log_chi, parts, measured.spec.network.normalization != "none")


def _normalization(measured: Measurements, column: int) -> Floats:
    """−ln σ_z² of each hidden layer, 0 without a normalization."""
    network, count = measured.spec.network, measured.spec.network.depth - 1
    entry = measured.entry_second
    if network.normalization == "none" or measured.weight_scale is None or entry is None:
        return np.zeros(count)
    variance = measured.weight_scale[:-1, column] * entry[:-1, column]
    if network.normalization == "batch":
        # Of what enters, the part that differs between samples, as theory has it at the start.
        variance = variance * np.array([_varying_share(measured, index) for index in range(count)])
    return -np.log(variance + 1e-5)


def _skipped(measured: Measurements) -> Floats:
    """Of E[(∂L/∂h)²] what a skip connection adds to what comes through the next layer's weights, as a logarithm."""
    network, passage = measured.spec.network, measured.passage
    found = np.zeros(network.depth - 1)
    if network.kind != "mlp" or not network.residual:
        return found
    for index, here in enumerate(passage.forward[:-1]):
        passed = here.slope_second * here.scale
        # Where no unit passes anything on, nothing can be told of what a skip connection added before it.
        gradient = passage.delta_second[index] / passed if passed > 0 else 0.0
        units = passage.layers[index + 1].weight_shape[0]
        through = passage.forward[index + 1].drawn.weight * units * passage.delta_second[index + 1]
        if gradient > 0 and through > 0:
            found[index] = math.log(gradient / through)
    return found


def _varying_share(measured: Measurements, index: int) -> float:
    signal = measured.passage.forward[index].entry
    return signal.centered / signal.second if signal.second > 0 else 1.0


def _slope_second(measured: Measurements, column: int, normalization: Floats) -> Floats:
    network = measured.spec.network
    saturated = measured.series("activations", "saturated_fraction")
    if network.activation.name in ("relu", "hardtanh") and saturated is not None:
        return np.maximum(1.0 - saturated[:-1, column], 0.0)
    if isinstance(network.activation, LeakyReLU) and saturated is not None:
        slope = network.activation.negative_slope
        if slope < _SATURATION_DECIDES:
            share = saturated[:-1, column]
            return 1.0 - share + slope * slope * share
    return _slope_by_quadrature(measured, column)


def _slope_by_quadrature(measured: Measurements, column: int) -> Floats:
    network, passage = measured.spec.network, measured.passage
    function, entry, scales = function_of(network.activation), measured.entry_second, measured.weight_scale
    found = np.array([here.slope_second for here in passage.forward[:-1]])
    if network.normalization != "none" or network.kind == "resnet" or entry is None or scales is None:
        return found
    for index, here in enumerate(passage.forward[:-1]):
        variance = float(scales[index, column] * entry[index, column]) + here.drawn.bias_variance
        if 0 <= variance < 1e14:
            found[index] = moments(function, variance, here.z_mean).slope_second
    return found


def detail_of(measured: Measurements, cause: Cause, column: int, lost: float) -> str:
    """The cause, closer: what makes the derivative small, or which way the weights' scale is off."""
    if cause == "activation_derivative":
        dead = measured.series("activations", "dead_fraction")
        saturated = measured.series("activations", "saturated_fraction")
        if dead is not None and dead[:-1, column].max(initial=0.0) >= lost:
            return "dead_units"
        if saturated is not None and saturated[:-1, column].max(initial=0.0) >= lost:
            return "saturation"
        return "bounded_slope" if function_of(measured.spec.network.activation).largest_slope ** 2 < _FLAT else "slope"
    if cause == "weight_scale" and measured.weight_scale is not None:
        scale = float(np.median(measured.weight_scale[1:, column]))
        return "too_small" if scale < usual_weight(measured.spec.network.activation) else "too_large"
    return ""


def born_dead_by_chance(measured: Measurements) -> bool:
    """Whether layers are so narrow that chance alone kills a whole one in more than one network of a hundred.

    A ReLU layer of n units without biases is born dead with a probability of up to 2⁻ⁿ (Lu et al. 2019).
    """
    if measured.unknown:
        return False
    biased = any(here.drawn.bias_mean < 0 for here in measured.passage.forward)
    hidden = [layer.weight_shape[0] for layer in measured.spec.network.layers[:-1]]
    return not biased and 1.0 - math.prod(1.0 - 2.0**-units for units in hidden) > _LIKELY


def null_band(measured: Measurements) -> Floats:
    """One deviation of ln‖δ‖² from seed to seed, by layer, [L]."""
    return np.array([band.deviation(beta) for beta in band.betas(measured.spec.network.layers)])
