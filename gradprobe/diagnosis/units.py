"""Units that pass no gradient: dead ones (zero over a whole batch), saturated ones (slope under 5 % of its largest)."""

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from gradprobe.diagnosis.attribution import born_dead_by_chance
from gradprobe.diagnosis.findings import Cause, Finding, Phase, Severity, called
from gradprobe.diagnosis.measurements import Flags, Floats, Integers, Measurements, spells, window_means, windows
from gradprobe.diagnosis.progress import learned_share
from gradprobe.diagnosis.rates import early_path
from gradprobe.diagnosis.thresholds import Thresholds
from gradprobe.theory.weights import usual_weight

#: Activations that are exactly zero where they pass nothing: there half of the elements should be.
_RECTIFIERS: Final = ("relu", "leaky_relu", "prelu", "identity")
_LEARNS: Final = 0.5
_KINDS: Final = {"dying_units": "dead_fraction", "saturation": "saturated_fraction"}


def at_initialization(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the first step."""
    for rule, (shares, limits) in _judged(measured, thresholds).items():
        if measured.steps("activations")[0] == 0 and (shares[:, 0] > limits).any():
            cause, detail = _initial_cause(measured, rule)
            yield _finding(measured, rule, "at_initialization", (shares, limits), (cause, detail))


def in_training(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the windows of the run, where the start was not concerned."""
    for rule, (shares, limits) in _judged(measured, thresholds).items():
        steps = measured.steps("activations")
        if len(steps) < thresholds.patience or (steps[0] == 0 and (shares[:, 0] > limits).any()):
            continue
        # A net that learns with saturated units has lost nothing by them; a dead unit is lost for good.
        if rule == "saturation" and learned_share(measured) >= _LEARNS:
            continue
        if _longest(shares, limits, windows(len(steps))) is not None:
            cause = _trained_cause(measured, thresholds)
            yield _finding(measured, rule, "in_training", (shares, limits), (cause, ""))


def limits_of(measured: Measurements, thresholds: Thresholds) -> Floats:
    """The share of each hidden layer that chance and health allow, [L − 1].

    An e-fold of δ² is lost at 1 − 1/e. And with symmetrical weights and inputs that look alike each ReLU is dead over a
    whole batch with a probability of up to one half, so of n units chance kills n/2 ± √n/2: three of these deviations
    are granted.
    """
    units = np.array([layer.weight_shape[0] for layer in measured.spec.network.layers[:-1]], dtype=np.float64)
    return np.maximum(thresholds.lost, 0.5 + thresholds.band * 0.5 / np.sqrt(units))


def _judged(measured: Measurements, thresholds: Thresholds) -> dict[str, tuple[Floats, Floats]]:
    """By rule, the hidden layers' shares [L − 1, S] and what is allowed of each [L − 1]."""
    found: dict[str, tuple[Floats, Floats]] = {}
    for rule, statistic in _KINDS.items():
        shares = measured.series("activations", statistic)
        if shares is None or len(shares) < 2:
            continue
        if rule == "saturation":
            hidden = measured.spec.network.activation_names[:-1]
            concerned = np.array([name not in _RECTIFIERS for name in hidden])
            if concerned.any():
                found[rule] = shares[:-1], np.where(concerned, thresholds.lost, np.inf)
        else:
            # A share of 1 is no chance, however narrow the layer.
            found[rule] = shares[:-1], np.minimum(limits_of(measured, thresholds), 1.0 - 1e-6)
    return found


def _longest(shares: Floats, limits: Floats, edges: Integers) -> tuple[int, int, bool] | None:
    """(first, last window, ongoing) of the longest spell in which any layer is concerned."""
    means = window_means(shares, edges)
    over: Flags = np.any(means > limits[:, None], axis=0)
    under: Flags = ~np.any(means > 0.9 * limits[:, None], axis=0)
    found = spells(over, under)
    if not found:
        return None
    spell = max(found, key=lambda one: (one.last - one.first, one.ongoing))
    return spell.first, spell.last, spell.ongoing


def _finding(
    measured: Measurements, rule: str, phase: Phase, judged: tuple[Floats, Floats], why: tuple[Cause, str]
) -> Finding:
    shares, limits = judged
    steps, names = measured.steps("activations"), measured.layer_names
    edges = windows(len(steps))
    longest = _longest(shares, limits, edges)
    first, last, ongoing = longest if longest is not None else (0, 0, len(edges) == 2)
    inside = slice(int(edges[first]), int(edges[last + 1]))
    if phase == "at_initialization" and longest is None:
        inside = slice(0, 1)
    means = shares[:, inside].mean(axis=1)
    if phase == "at_initialization":
        means = np.maximum(means, shares[:, 0])
    layers = np.flatnonzero(means > 0.9 * limits)
    begins = 0 if phase == "at_initialization" else int(steps[inside.start])
    worst = int(np.nanargmax(means - limits))
    kind = "dead" if rule == "dying_units" else "saturated"
    evidence = {
        f"{kind}_fraction": means[worst],
        "threshold": limits[worst],
        "layer": names[worst],
    }
    if measured.prediction is not None:
        evidence["predicted_saturated_fraction"] = measured.prediction.layers[worst].saturated_fraction
    severity: Severity = (
        "critical" if np.nanmax(np.where(np.isfinite(limits), means, np.nan)) > 1.0 - math.exp(-2.0) else "warning"
    )
    return Finding(
        rule, phase, severity, why[0], begins, int(steps[inside.stop - 1]), ongoing, inside.stop - inside.start,
        f"{100 * means[worst]:.0f} % of {called(names[worst])} is {kind} from step {begins} on and passes no gradient.",
        why[1] or ("dead_units" if rule == "dying_units" else "saturation"),
        tuple(names[index] for index in layers), {names[index]: float(means[index]) for index in layers}, evidence,
    )  # fmt: skip


def _initial_cause(measured: Measurements, rule: str) -> tuple[Cause, str]:
    """Chance in narrow layers; weights of more than twice the usual scale; else it is the bias."""
    if rule == "dying_units" and born_dead_by_chance(measured):
        return "width", "dead_units"
    scales = measured.weight_scale if measured.unknown is None else None
    usual = usual_weight(measured.spec.network.activation)
    if scales is not None and float(np.median(scales[:, 0])) > 2.0 * usual:
        return "weight_scale", "too_large"
    return "activation_derivative", ""


def _trained_cause(measured: Measurements, thresholds: Thresholds) -> Cause:
    if early_path(measured) > thresholds.rewritten:
        return "learning_rate_too_high"
    return "width" if born_dead_by_chance(measured) else "activation_derivative"
