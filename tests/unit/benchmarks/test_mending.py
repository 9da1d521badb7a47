"""The benchmark of mending: its sample, one case tried through and through, and what it prints."""

from pathlib import Path

import pytest

from benchmarks.faults.cases import Case
from benchmarks.faults.mending import Tried, attempt, report, sample
from benchmarks.faults.runs import Runs
from gradprobe.spec import Spec


def spec_of(activation: str, iterations: int) -> Spec:
    return Spec.model_validate(
        {
            "dataset": "synthetic",
            "network": {"depth": 6, "width": 10, "activation": activation, "initialization": "he_normal"},
            "training": {"iterations": iterations, "batch_size": 30},
        }
    )


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("GRADPROBE_DATA_DIRECTORY", str(tmp_path))
    return Runs(tmp_path / "runs")


def case(activation: str, iterations: int) -> Case:
    spec = spec_of(activation, iterations)
    return Case(f"made/{activation}", spec, "activation_derivative", spec_of("relu", iterations), activation)


def test_the_sample_is_spread_over_the_faults() -> None:
    chosen = sample(21)
    assert len({one.name for one in chosen}) == 21
    assert len({one.fault for one in chosen}) >= 10
    assert all(one.cause for one in chosen)


@pytest.mark.thorough
def test_one_case_is_tried_with_its_controls(runs: Runs) -> None:
    tried = attempt(case("sigmoid", 4), runs, seeds=1)
    assert tried is not None
    assert tried.remedies == tried.controls >= 3
    assert not tried.mended  # nothing has learned in four iterations
    assert runs.trained >= 1 + tried.remedies + tried.controls


def test_what_it_prints_counts_ours_and_the_random_ones() -> None:
    made = case("sigmoid", 4)
    text = report([Tried(made, 4, 2, False, 4, 1), Tried(made, 3, 0, True, 3, 0), Tried(made, 5, 0, False, 5, 0)])
    assert "mended by what one POST tries: 2 of 3 (1 by a single remedy)" in text
    assert "at least one random change was enough: 1 of 3" in text
    assert "of single remedies enough: 2 of 12" in text
    assert text.count("not mended: made/sigmoid") == 1
