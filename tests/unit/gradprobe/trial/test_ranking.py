"""What each change did, of outcomes made by hand."""

import math

import pytest

from gradprobe.trial.design import PLAIN, Change, Design
from gradprobe.trial.ranking import LEARNED_LOSS, Outcome, rank

RELU = Change("remedy", "relu", {"network": {"activation": {"name": "relu"}, "initialization": {"name": "he_normal"}}})
BATCH = Change("remedy", "batch", {"network": {"normalization": "batch"}})
RANDOM = (Change("control", "control_relu", {}), Change("control", "control_batch", {}))
DESIGN = Design("vanishing", (0, 1, 2), (PLAIN, RELU, BATCH, *RANDOM))
GOOD, BAD = 0.3, 2.2


def outcome(accuracy: float, verdict: str = "healthy", loss: float = GOOD, ratio: float = 1.0) -> Outcome:
    return Outcome(verdict, accuracy, loss, ratio)


def outcomes(**changes: list[Outcome]) -> dict[tuple[str, int], Outcome]:
    found = {
        "plain": [outcome(accuracy, "vanishing", BAD, 0.01) for accuracy in (0.1, 0.2, 0.3)],
        "relu": [outcome(accuracy) for accuracy in (0.9, 0.9, 0.9)],
        "batch": [outcome(accuracy) for accuracy in (0.8, 0.8, 0.8)],
        "control_relu": [outcome(accuracy, "vanishing", BAD) for accuracy in (0.2, 0.2, 0.2)],
        "control_batch": [outcome(accuracy, "vanishing", BAD) for accuracy in (0.4, 0.4, 0.4)],
    }
    found |= changes
    return {(change, seed): one for change, seeds in found.items() for seed, one in enumerate(seeds)}


def test_effects_are_paired_with_the_plain_spec_of_the_same_seed() -> None:
    found = rank(DESIGN, outcomes())
    assert [one.change.id for one in found.changes] == ["relu", "batch", "control_batch", "control_relu"]
    best = found.changes[0]
    accuracy, delta = best.effects["test_accuracy"], best.effects["log_delta_ratio"]
    assert accuracy is not None
    assert accuracy.mean == pytest.approx(0.7)
    assert accuracy.low == pytest.approx(0.7 - 4.30265 * 0.1 / math.sqrt(3))
    assert delta is not None
    assert delta.mean == pytest.approx(math.log(100.0))
    assert best.means["delta_ratio"] == pytest.approx(1.0)
    assert found.plain.means["delta_ratio"] == pytest.approx(0.01)
    assert found.plain.effects == {}


def test_against_control_is_paired_with_the_mean_of_all_random_changes() -> None:
    found = rank(DESIGN, outcomes(control_relu=[outcome(accuracy, "stalled", BAD) for accuracy in (0.0, 0.1, 0.2)]))
    against = found.changes[0].against_control
    assert against is not None
    assert against.mean == pytest.approx(0.9 - 0.25)
    assert found.control["test_accuracy"]["mean"] == pytest.approx(0.25 - 0.2)
    assert (found.control["changes"], found.control["enough"]) == (2, 0)
    assert all(one.against_control is None for one in found.changes if one.change.arm == "control")


def test_the_smallest_change_that_is_enough_is_told_and_not_the_strongest() -> None:
    found = rank(DESIGN, outcomes())
    assert [one.change.id for one in found.changes if one.enough] == ["relu", "batch"]
    assert found.enough == "batch"
    assert found.conclusion.startswith("Batch alone is enough: healthy and learning on all 3 seeds, test accuracy +60")


@pytest.mark.parametrize(
    "third",
    [outcome(0.8, "vanishing"), outcome(0.8, loss=LEARNED_LOSS), outcome(0.8, loss=math.inf)],
    ids=["not healthy", "not learned", "not finite"],
)
def test_one_seed_on_which_it_is_not_mended_is_not_enough(third: Outcome) -> None:
    found = rank(DESIGN, outcomes(batch=[outcome(0.8), outcome(0.8), third]))
    assert found.enough == "relu"


def test_what_has_not_ended_on_every_seed_is_not_enough_yet() -> None:
    missing = outcomes()
    del missing["batch", 2]
    found = rank(DESIGN, missing)
    batch = next(one for one in found.changes if one.change.id == "batch")
    assert (batch.ended, batch.planned, batch.enough, found.enough) == (2, 3, False, "relu")
    effect = batch.effects["test_accuracy"]
    assert effect is not None
    assert effect.pairs == 2


def test_a_control_that_is_enough_is_counted_and_never_recommended() -> None:
    failing = [outcome(0.5, "vanishing", BAD)] * 3
    lucky = [outcome(0.95)] * 3
    found = rank(DESIGN, outcomes(relu=failing, batch=failing, control_relu=lucky))
    assert (found.enough, found.control["enough"]) == (None, 1)
    assert "None is enough by itself" in found.conclusion


def test_a_combination_can_be_enough() -> None:
    both = Change("combination", "relu+batch", {"network": {"activation": {"name": "relu"}, "normalization": "batch"}})
    failing = [outcome(0.5, "vanishing", BAD)] * 3
    design = Design("vanishing", (0, 1, 2), (*DESIGN.changes, both))
    found = rank(design, outcomes(relu=failing, batch=failing, **{"relu+batch": [outcome(0.9)] * 3}))
    assert found.enough == "relu+batch"
    assert found.conclusion.startswith("Relu and batch together are enough")


def test_nothing_has_ended_yet() -> None:
    found = rank(DESIGN, {})
    assert (found.enough, found.conclusion) == (None, "Too little has ended to say.")
    assert found.control["test_accuracy"] is None
    assert found.document()["changes"][0]["effects"]["test_accuracy"] is None
