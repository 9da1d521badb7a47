"""Other tools' rules fire at their documented thresholds, and at nothing else."""

import numpy as np
import pytest

from gradprobe.diagnosis import Measurements
from gradprobe.diagnosis.presets import PRESETS, Preset, judge
from tests.unit.gradprobe.diagnosis.made import Made, spec_of


def fired(made: Made, preset: Preset) -> list[str]:
    diagnosis = judge(made.measurements, preset)
    assert diagnosis.verdict == ([*[finding.rule for finding in diagnosis.findings], "healthy"][0])
    return [finding.rule for finding in diagnosis.findings]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_that_crosses_no_threshold_is_healthy(preset: Preset) -> None:
    assert fired(Made(spec_of()), preset) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_recorded_is_undecided(preset: Preset) -> None:
    assert judge(Measurements(spec_of(), {}), preset).verdict == "undecided"


@pytest.mark.parametrize(
    ("statistic", "below", "at", "rule"),
    [("mean_abs", 0.9e-7, 1.1e-7, "vanishing_gradient"), ("zero_fraction", 1.0, 0.999, "all_zero")],
)
def test_debuggers_gradient_rules(statistic: str, below: float, at: float, rule: str) -> None:
    assert fired(Made(spec_of()).put("weight_gradients", statistic, below, 1, start=30), "smdebug") == [rule]
    assert fired(Made(spec_of()).put("weight_gradients", statistic, at, 1), "smdebug") == []


def test_debuggers_other_rules() -> None:
    assert fired(Made(spec_of()).put("activations", "dead_fraction", 0.51, 2), "smdebug") == ["dead_relu"]
    assert fired(Made(spec_of()).put("activations", "dead_fraction", 0.49, 2), "smdebug") == []
    assert fired(Made(spec_of()).put("weights", "update_ratio", 11.0, 0, start=400), "smdebug") == [
        "weight_update_ratio"
    ]
    spread = Made(spec_of()).put("activations", "std", 1.3, 0)  # 10.6 times the others' variance
    assert fired(spread, "smdebug") == ["poor_weight_initialization"]
    flat = Made(spec_of(), steps=6000).loss(1.0)
    assert fired(flat, "smdebug") == ["loss_not_decreasing"]


def test_a_finding_names_layer_and_steps() -> None:
    made = Made(spec_of()).put("weight_gradients", "mean_abs", 1e-9, 1, start=30)
    finding = judge(made.measurements, "smdebug").findings[0]
    assert (finding.layers, finding.first_step, finding.last_step, finding.ongoing) == (("layer2",), 30, 499, True)
    assert finding.samples == 470


def test_autotrainers_rules_need_poor_accuracy() -> None:
    made = Made(spec_of()).put("weight_gradients", "norm", 1e-6, 0)
    assert fired(made, "autotrainer") == []
    made.put("metrics", "accuracy", 0.3 + 0.3 * np.linspace(0, 1, 500))
    assert fired(made, "autotrainer") == ["vanishing"]
    made.put("weight_gradients", "norm", 8.0, 0)
    assert fired(made, "autotrainer") == ["exploding"]


def test_autotrainers_slow_convergence() -> None:
    assert fired(Made(spec_of()).put("metrics", "accuracy", 0.11), "autotrainer") == ["slow_convergence"]


def test_mindinsights_weight_changes() -> None:
    assert fired(Made(spec_of()).put("weights", "update_ratio", 0.11, 3), "mindinsight") == ["weight_change_too_large"]
    assert fired(Made(spec_of()).put("weights", "update_ratio", 0.9e-4, 3), "mindinsight") == [
        "weight_change_too_small"
    ]
