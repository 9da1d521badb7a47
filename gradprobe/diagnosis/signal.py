"""Vanishing and exploding: how much of the backward signal reaches each layer, against what theory says of this net.

Judged on δ and never on the weights' gradients: in a ReLU network without biases those are equal in all layers whatever
the initialization, because activations shrink forwards exactly as δ shrinks backwards.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from gradprobe.diagnosis.attribution import attribute, born_dead_by_chance, detail_of, null_band
from gradprobe.diagnosis.findings import Cause, Finding, Phase, Severity, called
from gradprobe.diagnosis.measurements import Flags, Floats, Measurements, spells, window_means, windows
from gradprobe.diagnosis.thresholds import Thresholds
from gradprobe.theory import Prediction, band

_CRITICAL_AT: Final = 2.0  # times the limit: a second trainable depth is lost


@dataclass(frozen=True, slots=True)
class Profile:
    """ln‖δ_l‖² − ln‖δ_N‖² as it bears on learning, [L, S], what theory expects of it, [L], and one deviation, [L].

    Behind a normalization δ is told per deviation of z (σ_z δ), because the scale of z has no effect there. Of images
    the mean over positions before the output layer is undone: it shares δ out among them, and hides nothing.
    """

    measured: Floats
    expected: Floats
    deviation: Floats
    normalized: bool


def profile_of(measured: Measurements) -> Profile | None:
    """None where δ was not recorded, or with a single layer."""
    log_delta = measured.log_delta
    if log_delta is None or len(log_delta) < 2:
        return None
    if measured.unknown:
        return _against_its_start(measured, log_delta)
    shifts = np.array([band.shift(beta) for beta in band.betas(measured.spec.network.layers)])
    expected = np.array([layer.log_delta_ratio for layer in _known(measured).layers]) + shifts
    positions = np.full(len(log_delta), math.log(math.prod(measured.spec.network.layers[-2].output_shape[1:])))
    positions[-1] = 0.0
    log_delta, expected = log_delta + positions[:, None], expected + positions
    deviation, normalized = null_band(measured), measured.spec.network.normalization != "none"
    if not normalized:
        return Profile(log_delta, expected, deviation, normalized)
    initial = np.array([-np.log(here.scale) for here in measured.passage.forward])
    return Profile(log_delta + _scales(measured, initial), expected + initial, deviation, normalized)


def _known(measured: Measurements) -> Prediction:
    if measured.prediction is None:
        raise ValueError("theory does not know this network")
    return measured.prediction


def _against_its_start(measured: Measurements, log_delta: Floats) -> Profile:
    """Of a network that theory does not know: how far each layer's share has moved since the run's first window."""
    start = window_means(log_delta, windows(log_delta.shape[1]))[:, :1]
    return Profile(log_delta - start, np.zeros(len(log_delta)), null_band(measured), normalized=False)


def _scales(measured: Measurements, initial: Floats) -> Floats:
    """ln σ_z² of each layer, [L, S], or [L, 1] as theory has it where the weights were not recorded."""
    scale, entry = measured.weight_scale, measured.entry_second
    if scale is None or entry is None:
        return initial[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.log(scale * entry)
    grown = grown - grown[:, :1] + initial[:, None]
    grown[-1] = 0.0
    return grown


def at_initialization(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the first step: beyond the limit, and either theory expects it or chance can't explain it."""
    profile = profile_of(measured)
    if profile is None or measured.unknown or measured.steps("output_gradients")[0] != 0:
        return
    start, limit = profile.measured[:, 0], thresholds.depth_limit
    chance = limit + thresholds.band * profile.deviation
    # What theory expects of a normalized net does not keep it from learning by itself: its weights' scale adapts.
    lost = start - np.minimum(profile.expected, 0.0) if profile.normalized else start
    gained = start - np.maximum(profile.expected, 0.0) if profile.normalized else start
    plain = not profile.normalized
    vanished = (lost < -limit) & (plain & (profile.expected < -limit) | (lost < -chance))
    exploded = (gained > limit) & (plain & (profile.expected > limit) | (gained > chance))
    for rule, layers in (("vanishing", vanished), ("exploding", exploded)):
        layers[-1] = False
        if layers.any():
            yield _initial(measured, thresholds, profile, rule, layers)


def strained(measured: Measurements, thresholds: Thresholds, exploding: bool = False) -> tuple[Cause, str] | None:
    """What makes δ of layer 1 vanish or explode (or only `exploding`) at the first step, expected or not."""
    profile = profile_of(measured)
    if profile is None or measured.steps("output_gradients")[0] != 0:
        return None
    start = profile.measured[0, 0]
    if abs(start) <= thresholds.depth_limit or (exploding and start < 0):
        return None
    return _cause(measured, thresholds, 0, bool(start < 0), 0)


def _initial(measured: Measurements, thresholds: Thresholds, profile: Profile, rule: str, layers: Flags) -> Finding:
    start = profile.measured[:, 0]
    worst = int(np.argmin(start)) if rule == "vanishing" else int(np.argmax(np.where(layers, start, -np.inf)))
    cause, detail = _cause(measured, thresholds, worst, rule == "vanishing", 0)
    last, ongoing, samples = _until(measured, thresholds, profile, worst, rule)
    names = measured.layer_names
    evidence = {
        "log_delta_ratio": start[worst],
        "predicted": profile.expected[worst],
        "null_band": profile.deviation[worst],
        "deviations_from_prediction": _deviations(start[worst], profile, worst),
        "threshold": -thresholds.depth_limit if rule == "vanishing" else thresholds.depth_limit,
        "layer": names[worst],
        "factor": float(np.exp(0.5 * start[worst])),
    }
    return Finding(
        rule, "at_initialization", _severity(start[worst], thresholds), cause, 0, last, ongoing, samples,
        _sentence(names[worst], start[worst], profile.expected[worst], rule), detail,
        tuple(name for name, found in zip(names, layers, strict=True) if found),
        {name: value for name, value, found in zip(names, start, layers, strict=True) if found}, evidence,
    )  # fmt: skip


def _until(
    measured: Measurements, thresholds: Thresholds, profile: Profile, layer: int, rule: str
) -> tuple[int, bool, int]:
    """The last step at which it still holds, by hysteresis; whether that is the run's end; and steps looked at."""
    steps = measured.steps("output_gradients")
    edges = windows(len(steps))
    means = window_means(profile.measured[layer], edges)
    limit = thresholds.recovered * thresholds.depth_limit
    over = means > -limit if rule == "vanishing" else means < limit
    # At least two windows in a row: one noisy window is no recovery.
    ended = np.flatnonzero(over & np.append(over[1:], True))
    if not len(ended) or len(steps) < 2:
        return int(steps[-1]), True, len(steps)
    return int(steps[max(0, edges[ended[0]] - 1)]), False, len(steps)


def in_training(measured: Measurements, thresholds: Thresholds) -> Iterator[Finding]:
    """Of the windows of the run: beyond the limit and the null band, by rules that found nothing at the start."""
    profile = profile_of(measured)
    if profile is None or len(profile.measured[0]) < thresholds.patience:
        return
    edges = windows(profile.measured.shape[1])
    means = window_means(profile.measured, edges)
    limit, recovered = thresholds.depth_limit, thresholds.recovered * thresholds.depth_limit
    chance = limit + thresholds.band * profile.deviation
    known = {finding.rule for finding in at_initialization(measured, thresholds)}
    above = np.maximum(np.maximum(profile.expected, profile.measured[:, 0]), 0.0)
    below = np.maximum(-profile.expected, 0.0) if profile.normalized else np.zeros(len(chance))
    for rule, beyond, back in (
        ("vanishing", -means - (chance + below)[:, None], -means - recovered - below[:, None]),
        ("exploding", means - (chance + above)[:, None], means - recovered - above[:, None]),
    ):
        if rule not in known:
            yield from _spells(measured, thresholds, rule, (means, beyond, back))


def _spells(
    measured: Measurements, thresholds: Thresholds, rule: str, signals: tuple[Floats, Floats, Floats]
) -> Iterator[Finding]:
    means, beyond, back = signals
    steps, names = measured.steps("output_gradients"), measured.layer_names
    edges = windows(len(steps))
    concerned = beyond[:-1] > 0
    layer = int(np.argmax(np.where(np.isnan(beyond[:-1]), -np.inf, beyond[:-1]).max(axis=1)))
    found = spells(concerned[layer], ~(back[layer] > 0))
    if not found:
        return
    spell = max(found, key=lambda one: one.last - one.first)
    inside = slice(spell.first, spell.last + 1)
    layers = [index for index in range(len(concerned)) if concerned[index, inside].any()]
    extreme = np.nanmin if rule == "vanishing" else np.nanmax
    worst = {names[index]: float(extreme(means[index, inside])) for index in layers}
    cause, detail = _cause(measured, thresholds, layer, rule == "vanishing", int(edges[spell.first]))
    first, last = int(steps[edges[spell.first]]), int(steps[edges[spell.last + 1] - 1])
    evidence = {
        "log_delta_ratio": worst[names[layer]],
        "threshold": float(means[layer, spell.first] - beyond[layer, spell.first])
        if rule == "exploding" else float(means[layer, spell.first] + beyond[layer, spell.first]),
        "layer": names[layer],
    }  # fmt: skip
    phase: Phase = "in_training"
    yield Finding(
        rule, phase, _severity(worst[names[layer]], thresholds), cause, first, last, spell.ongoing, last - first + 1,
        f"From step {first} on {called(names[layer])} gets {_times(worst[names[layer]])} δ than "
        f"{_reference(measured)}.",
        detail,
        tuple(names[index] for index in layers), worst, evidence,
    )  # fmt: skip


def _cause(
    measured: Measurements, thresholds: Thresholds, layer: int, vanishing: bool, column: int
) -> tuple[Cause, str]:
    found = attribute(measured, column)
    if found is None:
        return "unknown", ""
    cause = found.dominant(layer, vanishing)
    detail = detail_of(measured, cause, column, thresholds.lost)
    if detail == "dead_units" and born_dead_by_chance(measured):
        return "width", detail
    return cause, detail


def _reference(measured: Measurements) -> str:
    return "the output layer, against their ratio at the start" if measured.unknown else "the output layer"


def _severity(efolds: float, thresholds: Thresholds) -> Severity:
    return "critical" if not abs(efolds) < _CRITICAL_AT * thresholds.depth_limit else "warning"


def _deviations(value: float, profile: Profile, layer: int) -> float:
    width = profile.deviation[layer]
    return float((value - profile.expected[layer]) / width) if width > 0 else 0.0


def _times(efolds: float) -> str:
    if not np.isfinite(efolds):
        return "no"
    factor = float(np.exp(0.5 * abs(efolds)))
    told = f"{factor:,.0f}" if factor < 1e6 else f"{factor:.1e}"
    return f"{told} times {'less' if efolds < 0 else 'more'}"


def _sentence(name: str, efolds: float, expected: float, rule: str) -> str:
    agrees = "as theory predicts of this network" if (expected < 0) == (rule == "vanishing") and abs(
        efolds - expected
    ) < max(3.0, 0.3 * abs(expected)) else "which theory does not expect of this network"  # fmt: skip
    return f"At the first step {called(name)} gets {_times(efolds)} δ than the output layer, {agrees}."
