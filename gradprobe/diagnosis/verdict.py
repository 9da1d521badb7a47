"""All rules over one run, and what they come to."""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from gradprobe.diagnosis import initialization, nonfinite, rates, signal, training, units
from gradprobe.diagnosis.attribution import attribute
from gradprobe.diagnosis.findings import HEALTHY, UNDECIDED, Diagnosis, Finding
from gradprobe.diagnosis.measurements import Measurements
from gradprobe.diagnosis.remedies import remedies_of
from gradprobe.diagnosis.thresholds import DEFAULT, Thresholds

#: Raised whenever a rule changes what it says of the same measurements.
VERSION: Final = 1

_logger = logging.getLogger(__name__)

Rule = Callable[[Measurements, Thresholds], Iterable[Finding]]
_RULES: Final[dict[str, Rule]] = {
    "non_finite": nonfinite.judge,
    "poor_initialization": initialization.judge,
    "units at initialization": units.at_initialization,
    "signal at initialization": signal.at_initialization,
    "diverging": training.diverging,
    "units in training": units.in_training,
    "learning_rate": rates.judge,
    "signal in training": signal.in_training,
    "oscillation": training.oscillation,
    "overfitting": training.overfitting,
}
#: Weightiest first: what comes earlier in a network's life, and what makes the others follow.
_ORDER: Final = (
    ("non_finite", "at_initialization"),
    ("poor_initialization", "at_initialization"),
    ("dying_units", "at_initialization"),
    ("saturation", "at_initialization"),
    ("vanishing", "at_initialization"),
    ("exploding", "at_initialization"),
    ("non_finite", "in_training"),
    ("diverging", "in_training"),
    ("dying_units", "in_training"),
    ("saturation", "in_training"),
    ("learning_rate_too_high", "in_training"),
    ("learning_rate_too_low", "in_training"),
    ("vanishing", "in_training"),
    ("exploding", "in_training"),
    ("stalled", "in_training"),
    ("oscillation", "in_training"),
    ("overfitting", "in_training"),
)
RULES: Final = tuple(dict.fromkeys(rule for rule, _ in _ORDER))


def diagnose(measured: Measurements, thresholds: Thresholds = DEFAULT) -> Diagnosis:
    """What is wrong with a run. A rule that fails is named in `failed_rules` and keeps none of the others back."""
    findings: list[Finding] = []
    failed: list[str] = []
    # A run of which nothing is finite makes warnings of NumPy's, which say nothing that is not told here.
    with np.errstate(all="ignore"):
        for name, rule in _RULES.items():
            _carry_out(name, partial(rule, measured, thresholds), findings, failed)
        findings.sort(key=_rank)
        known = tuple(findings)
        _carry_out("stalled", partial(training.stalled, measured, thresholds, known), findings, failed)
        findings.sort(key=_rank)
        parts = _quietly("attribution", partial(attribute, measured), failed)
        mended = [_with_remedies(measured, finding, failed) for finding in findings]
    attribution = parts.document(measured.layer_names) if parts is not None else None
    return _concluded(mended, attribution, failed, _unfound(measured, thresholds), silences(measured))


def _carry_out(name: str, rule: Callable[[], Iterable[Finding]], findings: list[Finding], failed: list[str]) -> None:
    found = _quietly(name, lambda: list(rule()), failed)
    findings.extend(found or ())


def _quietly(name: str, action: Callable[[], Any], failed: list[str]) -> Any:
    try:
        return action()
    except Exception:
        _logger.exception("the rule %r failed", name)
        failed.append(name)
        return None


def _with_remedies(measured: Measurements, finding: Finding, failed: list[str]) -> Finding:
    found = _quietly("remedies", partial(remedies_of, measured, finding), failed)
    return finding.with_remedies(found or ())


def _rank(finding: Finding) -> int:
    return _ORDER.index((finding.rule, finding.phase))


def _concluded(
    findings: Sequence[Finding],
    attribution: dict[str, Any] | None,
    failed: Sequence[str],
    unfound: dict[str, str],
    silent: tuple[str, ...],
) -> Diagnosis:
    verdicts = {
        phase: next((finding.rule for finding in findings if finding.phase == phase), otherwise)
        for phase, otherwise in unfound.items()
    }
    return Diagnosis(
        findings[0].rule if findings else verdicts["at_initialization"],
        verdicts["at_initialization"],
        verdicts["in_training"],
        findings[0].cause if findings else None,
        summary(findings, verdicts["at_initialization"], verdicts["in_training"]),
        tuple(findings),
        attribution,
        tuple(failed),
        silent,
    )


def silences(measured: Measurements) -> tuple[str, ...]:
    """Which rules had nothing to go by, and why."""
    found = []
    if not len(measured.steps("output_gradients")):
        found.append("vanishing and exploding: they are judged on the output gradients δ, which were not recorded.")
    if measured.unknown:
        found.append(
            f"vanishing and exploding at initialization, and the attribution: theory does not know this network, "
            f"{measured.unknown}. In training each layer is judged against its own start."
        )
    if measured.guess is None and len(measured.loss):
        hint = "; `--classes` says that the loss is one" if measured.imported else ""
        found.append(f"stalled: what a guess would cost is known of a cross-entropy alone{hint}.")
    if measured.guess is None and not len(measured.loss):
        files = "no series in the files has the name of a training loss, such as train/loss"
        loop = "the loop did not tell its loss; `criterion=…` or `record(loss=…)` does"
        reason = files if measured.imported else loop
        found.append(f"stalled, diverging, oscillation, learning rate: {reason}.")
    return tuple(found)


def _unfound(measured: Measurements, thresholds: Thresholds) -> dict[str, str]:
    """What each phase is called where nothing is found."""
    steps = measured.steps()
    if not len(measured.steps("output_gradients")):  # whether gradients reach every layer is read from δ
        return {"at_initialization": UNDECIDED, "in_training": UNDECIDED}
    return {
        "at_initialization": HEALTHY if len(steps) and steps[0] == 0 else UNDECIDED,
        "in_training": HEALTHY if len(steps) >= thresholds.patience else UNDECIDED,
    }


_CAUSES: Final = {
    "weight_scale": "the weights' scale",
    "activation_derivative": "the activation's derivative",
    "normalization": "the normalization",
    "skip_connection": "skip connections whose signals add up",
    "width": "the layers' small width",
    "symmetry": "weights that are all alike",
    "learning_rate_too_high": "a learning rate that is too high",
    "learning_rate_too_low": "a learning rate that is too low",
    "data": "too little data for so many iterations",
    "unknown": "unknown",
}
_DETAILS: Final = {
    "saturation": "units are saturated",
    "dead_units": "units are dead",
    "bounded_slope": "it is small everywhere",
    "too_small": "too small",
    "too_large": "too large",
}


_REMEDIES: Final = {
    "relu": "ReLU with He's initialization",
    "leaky_relu": "leaky ReLU with He's initialization",
    "initialization": "the initialization that is usual for this activation",
    "learning_rate": "another learning rate",
    "depth": "fewer layers",
    "residual": "skip connections",
}


def in_words(remedy: str) -> str:
    """A remedy's id, in words."""
    return _REMEDIES.get(remedy, remedy.replace("_", " "))


def summary(findings: Sequence[Finding], otherwise: str = HEALTHY, in_training: str = HEALTHY) -> str:
    """The verdict in words: one sentence on what, why, and what to change."""
    if not findings and otherwise == UNDECIDED:
        missing = "the first step was not recorded" if in_training == HEALTHY else "too little was recorded"
        return f"Undecided: {missing}."
    if not findings:
        return "Healthy: gradients reach every layer."
    first = findings[0]
    detail = f" ({_DETAILS[first.detail]})" if first.detail in _DETAILS else ""
    since = f"from step {first.first_step}" + ("" if first.ongoing else f" to step {first.last_step}")
    remedy = f" Remedy: {in_words(first.remedies[0].id)}." if first.remedies else ""
    return f"{first.rule.replace('_', ' ').capitalize()} {since}; cause: {_CAUSES[first.cause]}{detail}.{remedy}"
