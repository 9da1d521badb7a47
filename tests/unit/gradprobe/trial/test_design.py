"""Which changes are tried: every remedy once, controls that are no remedies, combinations that fit together."""

import numpy as np
import pytest

from gradprobe.diagnosis import diagnose
from gradprobe.diagnosis.remedies import apply
from gradprobe.spec import Spec
from gradprobe.trial.control import POOLS, controls
from gradprobe.trial.design import PLAIN, Change, Design, combined, leaves, merged, remedies_in, seeds_from, specs
from tests.unit.gradprobe.diagnosis.made import Made

CLASSIC = Spec()
BASE = CLASSIC.model_dump(mode="json")


def remedies() -> list[Change]:
    found = diagnose(Made(CLASSIC).measurements)
    return [Change("remedy", remedy.id, remedy.patch, remedy.reason) for remedy in remedies_in(found)]


def test_the_classic_net_has_its_remedies_once() -> None:
    found = remedies()
    assert [change.id for change in found][:2] == ["relu", "leaky_relu"]
    assert len({str(change.patch) for change in found}) == len({change.id for change in found}) == len(found)


def test_controls_are_of_the_same_fields_and_neither_remedies_nor_the_present_spec() -> None:
    found = remedies()
    for seed in ("exp_a", "exp_b", "exp_c", "exp_d"):
        drawn = controls(CLASSIC, found, seed, lambda spec: True)
        assert [change.id for change in drawn] == [f"control_{change.id}" for change in found]
        made = [Spec.model_validate(apply(BASE, change.patch)) for change in [*found, *drawn]]
        assert CLASSIC not in made
        assert all(one not in made[:index] for index, one in enumerate(made))
        for remedy, control in zip(found, drawn, strict=True):
            assert set(leaves(control.patch)) <= set(POOLS)
            if remedy.id != "residual":  # which has but one other value
                assert set(leaves(control.patch)) <= set(leaves(remedy.patch))


def test_controls_are_the_same_for_the_same_experiment_and_differ_between_two() -> None:
    found = remedies()
    drawn = [controls(CLASSIC, found, seed, lambda spec: True) for seed in ("exp_a", "exp_a", "exp_b")]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_a_control_that_is_not_acceptable_is_drawn_again() -> None:
    depth = Change("remedy", "depth", {"network": {"depth": 2}})
    for seed in range(20):
        (drawn,) = controls(CLASSIC, [depth], str(seed), lambda spec: spec.network.depth < 6)
        assert drawn.patch["network"]["depth"] < 6
    assert controls(CLASSIC, [depth], "0", lambda spec: False) == []


@pytest.mark.parametrize("path", POOLS, ids=".".join)
def test_every_pool_makes_specs(path: tuple[str, ...]) -> None:
    remedy = Change("remedy", "x", {})
    seen = set()
    for seed in range(12):
        value = POOLS[path](np.random.default_rng(seed), CLASSIC)
        patch = value
        for name in reversed(path):
            patch = {name: patch}
        seen.add(str(patch))
        document = {**BASE, "network": {**BASE["network"], "initialization": {}}} if "initialization" in path else BASE
        Spec.model_validate(apply(document, patch))
    assert len(seen) > 1
    assert remedy.size == 0


def test_every_change_is_tried_with_every_seed_and_nothing_else_differs() -> None:
    design = Design("vanishing", seeds_from(2**63 - 2, 3), (PLAIN, *remedies()))
    assert design.seeds == (2**63 - 2, 2**63 - 1, 0)
    assert Design.of_document(design.document()) == design
    made = list(specs(BASE, design.seeds, design.changes))
    assert len(made) == design.size
    assert [place["change"] for _, place in made[: len(design.changes)]] == [change.id for change in design.changes]
    for spec, place in made:
        change = next(one for one in design.changes if one.id == place["change"])
        expected = Spec.model_validate(apply(BASE, change.patch)).model_dump()
        assert spec.model_dump() == expected | {
            "name": spec.name, "training": expected["training"] | {"seed": place["seed"]},
        }  # fmt: skip


def test_the_best_that_touch_nothing_in_common_are_combined() -> None:
    ranked = [
        Change("remedy", "relu", {"network": {"activation": {"name": "relu"}}}),
        Change("remedy", "leaky_relu", {"network": {"activation": {"name": "leaky_relu"}}}),
        Change("remedy", "batch", {"network": {"normalization": "batch"}}),
        Change("remedy", "clipping", {"gradient_clipping": {"kind": "norm"}}),
        Change("remedy", "one_image", {"training": {"batch_size": 1}}),
    ]
    assert [change.id for change in combined(BASE, ranked)] == ["relu+batch", "relu+clipping", "leaky_relu+batch"]
    # Batch normalization of one image is refused.
    assert combined(BASE, [ranked[2], ranked[4]]) == []


def test_merged_patches_still_take_fields_away() -> None:
    one = {"network": {"initialization": {"gain": None, "name": "normal"}}}
    other = {"network": {"normalization": "batch"}, "optimizer": {"schedule": None}}
    both = merged(one, other)
    assert both == {
        "network": {"initialization": {"gain": None, "name": "normal"}, "normalization": "batch"},
        "optimizer": {"schedule": None},
    }
    assert apply(apply(BASE, one), other) == apply(BASE, both)
