"""Each rule fires on what it is for, says since when and until when, and on nothing else."""

import numpy as np
import pytest

from gradprobe.diagnosis import Diagnosis, Finding, Measurements, Thresholds, diagnose
from gradprobe.diagnosis.measurements import spells
from tests.unit.gradprobe.diagnosis.made import GUESS, Made, spec_of

CLASSIC = {"depth": 6, "width": 10, "activation": "sigmoid", "initialization": "xavier_uniform"}


def found(diagnosis: Diagnosis, rule: str) -> Finding:
    assert diagnosis.failed_rules == ()
    return next(finding for finding in diagnosis.findings if finding.rule == rule)


def rules(measured: Measurements, **thresholds: float) -> list[str]:
    diagnosis = diagnose(measured, Thresholds(**thresholds))
    assert diagnosis.failed_rules == ()
    return [finding.rule for finding in diagnosis.findings]


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"activation": "tanh", "initialization": "xavier_normal"},
        {"normalization": "batch", "depth": 12},
        {"normalization": "layer", "activation": "gelu"},
        {"normalization": "rms", "residual": True},
        {"depth": 1},
        {"depth": 2, "activation": "sigmoid"},
        {"depth": 6, "width": 10, "initialization": "xavier_uniform"},
        {"kind": "conv", "depth": 5, "width": 16},
        {"kind": "resnet", "depth": 8, "width": 16, "normalization": "batch"},
    ],
)
def test_what_theory_expects_of_a_healthy_net_is_no_finding(network: dict[str, object]) -> None:
    diagnosis = diagnose(Made(spec_of(network)).measurements)
    assert diagnosis.findings == ()
    assert (diagnosis.verdict, diagnosis.at_initialization, diagnosis.in_training) == ("healthy",) * 3
    assert diagnosis.failed_rules == ()


def test_too_few_steps_are_no_verdict_on_training() -> None:
    diagnosis = diagnose(Made(spec_of(), steps=40).loss(GUESS).measurements)
    assert (diagnosis.verdict, diagnosis.in_training) == ("healthy", "undecided")


def test_nothing_recorded_is_no_verdict_at_all() -> None:
    diagnosis = diagnose(Measurements(spec_of(), {}))
    assert (diagnosis.verdict, diagnosis.at_initialization, diagnosis.in_training) == ("undecided",) * 3
    assert diagnosis.failed_rules == ()


def test_the_classic_sigmoid_net_vanishes_from_the_first_step_by_its_derivative() -> None:
    finding = found(diagnose(Made(spec_of(CLASSIC)).measurements), "vanishing")
    assert (finding.phase, finding.first_step, finding.ongoing) == ("at_initialization", 0, True)
    assert (finding.cause, finding.detail, finding.severity) == ("activation_derivative", "bounded_slope", "critical")
    assert finding.layers == ("layer1", "layer2", "layer3")
    assert finding.evidence["log_delta_ratio"] == pytest.approx(-14.42, abs=0.05)
    assert finding.samples == 500


def test_xavier_on_twenty_relu_layers_is_found_where_weight_gradients_show_nothing() -> None:
    """δ shrinks 600-fold while all layers' weight gradients stay equal: the peers' rules are silent here."""
    made = Made(spec_of({"depth": 20, "width": 128, "initialization": "xavier_normal"}))
    finding = found(diagnose(made.measurements), "vanishing")
    assert (finding.cause, finding.detail) == ("weight_scale", "too_small")
    assert 1 / finding.evidence["factor"] == pytest.approx(2**9, rel=0.1)


def test_chance_in_narrow_layers_is_no_finding_but_the_same_in_wide_ones_is() -> None:
    for width, wanted in ((8, []), (512, ["vanishing"])):
        made = Made(spec_of({"depth": 9, "width": width}))
        made.put("output_gradients", "norm", np.exp(0.5 * -7.0), 0)
        assert rules(made.measurements) == wanted, width


def test_a_vanishing_that_passes_has_an_end() -> None:
    made = Made(spec_of(CLASSIC))
    for layer in range(6):
        made.put("output_gradients", "norm", 1.0, layer, start=250)
    finding = found(diagnose(made.measurements), "vanishing")
    assert not finding.ongoing
    assert finding.last_step == pytest.approx(249, abs=10)


def test_weights_that_are_too_large_explode() -> None:
    made = Made(spec_of({"initialization": {"name": "he_normal", "gain": 3.0}, "depth": 8}))
    finding = found(diagnose(made.measurements), "exploding")
    assert (finding.phase, finding.cause, finding.detail) == ("at_initialization", "weight_scale", "too_large")


def test_batch_normalization_grows_by_theory_and_is_found_only_beyond_it() -> None:
    deep = {"normalization": "batch", "depth": 40}
    assert rules(Made(spec_of(deep)).measurements) == []
    made = Made(spec_of(deep))
    made.put("output_gradients", "norm", made.values["output_gradients"][3, 0] * np.exp(6.0), 0)
    assert rules(made.measurements) == ["exploding"]


def test_a_gradient_that_vanishes_in_training_has_an_onset() -> None:
    made = Made(spec_of({"activation": "tanh", "initialization": "xavier_normal"}))
    made.put("output_gradients", "norm", 1e-4, 0, start=300)
    finding = found(diagnose(made.measurements), "vanishing")
    assert (finding.phase, finding.ongoing, finding.layers) == ("in_training", True, ("layer1",))
    assert finding.first_step == pytest.approx(300, abs=10)


def test_units_that_die_in_training() -> None:
    made = Made(spec_of()).put("activations", "dead_fraction", 0.95, 2, start=200)
    finding = found(diagnose(made.measurements), "dying_units")
    assert (finding.phase, finding.layers) == ("in_training", ("layer3",))
    assert finding.first_step == pytest.approx(200, abs=10)
    early = made.put("weights", "update_ratio", 0.5)
    assert found(diagnose(early.measurements), "dying_units").cause == "learning_rate_too_high"


def test_half_the_units_dead_is_what_chance_does() -> None:
    assert rules(Made(spec_of()).put("activations", "dead_fraction", 0.5).measurements) == []


def test_units_that_start_saturated() -> None:
    network = {"activation": "tanh", "initialization": {"name": "xavier_normal", "bias": 3.0}}
    made = Made(spec_of(network)).put("activations", "saturated_fraction", 0.98)
    finding = found(diagnose(made.measurements), "saturation")
    assert (finding.phase, finding.cause) == ("at_initialization", "activation_derivative")
    assert finding.evidence["predicted_saturated_fraction"] == pytest.approx(0.97, abs=0.04)


def test_a_relu_that_is_zero_half_the_time_is_not_saturated() -> None:
    assert rules(Made(spec_of()).put("activations", "saturated_fraction", 0.9).measurements) == []


def test_the_first_cause_of_infinity_is_told() -> None:
    made = Made(spec_of()).put("weights", "update_ratio", 0.4)
    made.loss(np.where(np.arange(500) < 200, 2.0, np.nan))
    for tensor in ("output_gradients", "weight_gradients"):
        made.put(tensor, "nonfinite_count", 5, start=200)  # type: ignore[arg-type]
    made.put("activations", "mean", np.nan, 3, start=200)
    finding = found(diagnose(made.measurements), "non_finite")
    assert (finding.first_step, finding.layers, finding.cause) == (200, ("layer4",), "learning_rate_too_high")
    assert finding.evidence["where"] == "forward pass"
    assert finding.evidence["last_finite_step"] == 199
    assert finding.evidence["last_loss"] == 2.0


def test_infinity_on_the_way_back_begins_at_the_layer_nearest_the_output() -> None:
    made = Made(spec_of())
    for layer in (0, 1, 2):
        made.put("output_gradients", "nonfinite_count", 3, layer, start=77)
    finding = found(diagnose(made.measurements), "non_finite")
    assert (finding.first_step, finding.layers, finding.evidence["where"]) == (77, ("layer3",), "backward pass")


def test_steps_that_float16s_scaler_skips_are_its_ordinary_work() -> None:
    spec = spec_of(training={"precision": "float16"})
    made = Made(spec)
    made.values["weight_gradients"][6, :, [3, 4, 250]] = 1
    assert rules(made.measurements) == []


def test_constant_weights_are_a_poor_initialization() -> None:
    made = Made(spec_of({"initialization": "zeros"})).put("weights", "std", 0.0)
    made.put("output_gradients", "norm", 0.0)
    made.put("output_gradients", "norm", 1.0, 4)
    diagnosis = diagnose(made.measurements)
    assert diagnosis.verdict == "poor_initialization"
    assert diagnosis.cause == "symmetry"
    head = Made(spec_of()).put("weights", "std", 0.0, 4)  # the output layer's units have an error of their own each
    head.put("weights", "std", 0.1, 4, 1)
    assert diagnose(head.measurements).verdict == "healthy"


def test_a_learning_rate_that_moves_nothing() -> None:
    made = Made(spec_of()).put("weights", "update_ratio", 1e-5).loss(2.4)
    diagnosis = diagnose(made.measurements)
    assert (diagnosis.verdict, diagnosis.cause) == ("learning_rate_too_low", "learning_rate_too_low")
    assert found(diagnosis, "stalled").cause == "learning_rate_too_low"


def test_the_same_path_in_fewer_recorded_steps() -> None:
    """Steps that were not recorded count as those that were."""
    made = Made(spec_of(recording={"every": 100}), every=100).put("weights", "update_ratio", 1e-5).loss(2.4)
    assert "learning_rate_too_low" not in rules(made.measurements)


def test_a_learning_rate_that_rewrites_everything() -> None:
    made = Made(spec_of()).put("weights", "update_ratio", 0.3).loss(2.31)
    diagnosis = diagnose(made.measurements)
    assert (diagnosis.verdict, diagnosis.cause) == ("learning_rate_too_high", "learning_rate_too_high")


@pytest.mark.parametrize(("loss", "verdict"), [(1.1, "learning_rate_too_high"), (0.8, "healthy")])
def test_large_steps_that_learn_something_and_less_than_an_e_fold(loss: float, verdict: str) -> None:
    made = Made(spec_of()).put("weights", "update_ratio", 0.3).loss(np.geomspace(2.3, loss, 500))
    diagnosis = diagnose(made.measurements)
    assert diagnosis.verdict == verdict
    if verdict != "healthy":
        assert "no more than 5" in found(diagnosis, verdict).explanation


def test_large_steps_that_learn_are_no_finding() -> None:
    assert rules(Made(spec_of()).put("weights", "update_ratio", 0.3).measurements) == []


def test_a_loss_that_stands_still_for_no_reason_that_is_known() -> None:
    diagnosis = diagnose(Made(spec_of()).loss(2.31).measurements)
    assert (diagnosis.verdict, diagnosis.cause) == ("stalled", "unknown")


def test_a_loss_that_rises() -> None:
    made = Made(spec_of()).put("weights", "update_ratio", 0.05).loss(np.linspace(2.0, 60.0, 500))
    finding = found(diagnose(made.measurements), "diverging")
    assert finding.cause == "learning_rate_too_high"
    assert 0 < finding.first_step < 60


def test_a_loss_that_swings() -> None:
    wave = 1.0 + 0.9 * np.sin(np.arange(500) / 10)
    assert rules(Made(spec_of()).loss(wave).measurements) == ["oscillation"]
    assert rules(Made(spec_of()).loss(wave).measurements, swing=0.95) == []


def test_a_test_loss_that_parts_from_the_training_loss() -> None:
    made, steps = Made(spec_of()), [0, 100, 200, 300, 400]
    assert rules(made.with_evaluations(steps, [2.3, 0.8, 0.9, 1.1, 1.4])) == ["overfitting"]
    assert rules(made.with_evaluations(steps, [2.3, 0.8, 0.7, 0.6, 0.65])) == []


def test_other_thresholds_judge_the_same_measurements_anew() -> None:
    measured = Made(spec_of(CLASSIC)).measurements
    assert rules(measured, depth_limit=20.0) == []
    assert rules(measured, depth_limit=10.0) == ["vanishing"]


def test_a_rule_that_fails_keeps_no_other_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradprobe.diagnosis import verdict  # noqa: PLC0415

    def fail(*_: object) -> list[Finding]:
        raise ValueError("a fault in a rule")

    monkeypatch.setitem(verdict._RULES, "diverging", fail)
    diagnosis = diagnose(Made(spec_of(CLASSIC)).measurements)
    assert diagnosis.verdict == "vanishing"
    assert diagnosis.failed_rules == ("diverging",)


def test_hysteresis() -> None:
    enter = np.array([0, 1, 0, 0, 1, 0, 0, 0, 1, 1], dtype=bool)
    leave = np.array([0, 0, 0, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert [(spell.first, spell.last, spell.ongoing) for spell in spells(enter, leave, least=1)] == [
        (1, 2, False),
        (4, 4, False),
        (8, 9, True),
    ]
    assert [spell.first for spell in spells(enter, leave, least=2)] == [1, 8]


@pytest.mark.parametrize("since", [0, 1, 250])
def test_a_run_of_which_nothing_is_finite_is_judged_all_the_same(since: int) -> None:
    made = Made(spec_of())
    for tensor, values in made.values.items():
        values[..., since:] = np.nan
        if tensor in ("weights", "weight_gradients", "output_gradients"):
            made.put(tensor, "nonfinite_count", 9, start=since)
    diagnosis = diagnose(made.measurements)
    assert diagnosis.verdict == "non_finite"
    assert diagnosis.failed_rules == ()
    assert found(diagnosis, "non_finite").first_step == since


def test_saturation_in_training_counts_where_nothing_is_learned() -> None:
    made = Made(spec_of({"activation": "tanh", "initialization": "xavier_normal"}))
    made.put("activations", "saturated_fraction", 0.9, 0, start=200)
    assert rules(made.measurements) == []
    finding = found(diagnose(made.loss(1.9).measurements), "saturation")
    assert (finding.phase, finding.layers, finding.ongoing) == ("in_training", ("layer1",), True)
    assert finding.first_step == pytest.approx(200, abs=10)


def test_a_loss_that_has_only_begun_to_fall_is_not_stalled() -> None:
    spec = spec_of(training={"iterations": 2500})
    slow = Made(spec, steps=200).loss(np.linspace(2.32, 2.28, 200))
    assert rules(slow.measurements) == []
    assert rules(Made(spec, steps=200).loss(2.3).measurements) == ["stalled"]
