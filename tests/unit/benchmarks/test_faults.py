"""That the labelled suite is what it says; never how well any rule does on it."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from benchmarks.faults.__main__ import Judged, confusion_row
from benchmarks.faults.cases import REPORTED, TUNING, Case, cases
from benchmarks.faults.drawn import drawn
from benchmarks.faults.runs import Runs
from benchmarks.faults.truth import Truth, log_delta_ratio
from benchmarks.results import Goal
from gradprobe.diagnosis import Diagnosis
from gradprobe.diagnosis.findings import Cause
from gradprobe.spec import Spec
from gradprobe.theory import predict


def test_the_suite_is_large_enough_and_labelled_in_the_rules_words() -> None:
    suite = list(cases(REPORTED))
    assert len(suite) >= 200
    assert sum(case.cause is None for case in suite) >= 80
    assert {case.cause for case in suite if case.cause} <= set(get_args(Cause))
    for case in suite:
        assert (case.spec == case.base) == (case.cause is None), case.name


def test_no_experiment_is_both_tuned_on_and_reported() -> None:
    def specs(first_seed: int) -> set[str]:
        return {case.spec.model_dump_json() for case in cases(first_seed)}

    assert not specs(TUNING) & specs(REPORTED)
    assert len(specs(REPORTED)) == len(list(cases(REPORTED)))


def test_drawn_ones_are_the_same_for_the_same_seed() -> None:
    first, again = list(drawn(20, 7)), list(drawn(20, 7))
    assert [case.spec for case in first] == [case.spec for case in again]
    assert len({case.spec.model_dump_json() for case in first}) == 20


@pytest.mark.parametrize(
    "network",
    [
        {"depth": 6, "width": 100, "activation": "sigmoid"},
        {"depth": 5, "width": 100, "activation": "relu", "initialization": "he_normal", "residual": True},
        {"depth": 5, "width": 100, "activation": "tanh", "normalization": "layer"},
    ],
)
def test_the_reference_decays_as_theory_says(network: dict[str, object]) -> None:
    spec = Spec.model_validate({"dataset": "synthetic", "network": network})
    assert log_delta_ratio(spec) == pytest.approx(predict(spec).layers[0].log_delta_ratio, abs=0.7)


def test_weights_of_zero_let_nothing_through() -> None:
    network = {"activation": "relu", "initialization": "zeros"}
    assert log_delta_ratio(Spec.model_validate({"dataset": "synthetic", "network": network})) == -np.inf


def test_a_run_is_trained_once(tmp_path: Path) -> None:
    spec = Spec.model_validate({"dataset": "synthetic", "training": {"iterations": 4, "device": "cpu"}})
    runs = Runs(tmp_path)
    first, again = runs.of(spec), runs.of(spec)
    assert runs.trained == 1
    assert set(first.blocks) == {
        "weight_gradients", "output_gradients", "weights", "activations", "metrics", "evaluation",
    }  # fmt: skip
    for tensor, block in first.blocks.items():
        assert np.array_equal(block.values, again.blocks[tensor].values, equal_nan=True)
    assert first.outcome == again.outcome


def test_what_is_counted() -> None:
    spec = Spec()

    def judged(cause: str | None, verdict: str, told: str | None) -> Judged:
        diagnosis = Diagnosis(verdict, verdict, verdict, told, "", (), None)
        return Judged(Case("", spec, cause, spec), Truth(0.0, True, False, True), diagnosis, {})

    some = [
        judged(None, "healthy", None),
        judged(None, "stalled", "unknown"),
        judged("symmetry", "poor_initialization", "symmetry"),
        judged("symmetry", "vanishing", "width"),
        judged("weight_scale", "healthy", None),
    ]
    figures = confusion_row("ours", some, lambda one: one.ours, [Goal("detected", "≥", 2.0)]).figures
    assert (figures["healthy"], figures["false alarms"], figures["faulty"]) == (2, 1, 3)
    assert (figures["detected"], figures["right cause"]) == (2, 1)
