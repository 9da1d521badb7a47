"""Each layer's ln χ is the sum of its parts; each cause has remedies, which are patches that the spec accepts."""

import numpy as np
import pytest

from gradprobe.diagnosis import diagnose
from gradprobe.diagnosis.attribution import PARTS, attribute
from gradprobe.diagnosis.remedies import apply, difference
from gradprobe.spec import Spec
from tests.unit.gradprobe.diagnosis.made import Made, spec_of


@pytest.mark.parametrize("normalization", ["none", "batch", "layer", "rms"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu", "leaky_relu"])
def test_the_parts_add_up_to_what_was_measured(activation: str, normalization: str) -> None:
    made = Made(spec_of({"activation": activation, "normalization": normalization, "depth": 6}))
    made.put("activations", "saturated_fraction", 0.4)
    found = attribute(made.measurements)
    assert found is not None
    total = np.sum([found.parts[part] for part in PARTS], axis=0)
    assert total == pytest.approx(found.log_chi, abs=1e-9)


def test_an_unchanged_relu_net_has_no_part_that_stands_out() -> None:
    made = Made(spec_of({"depth": 6})).put("activations", "saturated_fraction", 0.5)
    found = attribute(made.measurements)
    assert found is not None
    for part in PARTS:
        assert found.parts[part] == pytest.approx(np.zeros(5), abs=1e-5), part


def test_xavier_on_relu_is_the_weights_scale_alone() -> None:
    made = Made(spec_of({"depth": 6, "initialization": "xavier_normal"})).put("activations", "saturated_fraction", 0.5)
    found = attribute(made.measurements)
    assert found is not None
    assert found.parts["weight_scale"][:4] == pytest.approx(np.full(4, -np.log(2)), abs=1e-5)
    assert found.parts["activation_derivative"] == pytest.approx(np.zeros(5), abs=1e-5)


def test_one_layer_has_nothing_to_attribute() -> None:
    assert attribute(Made(spec_of({"depth": 1})).measurements) is None


@pytest.mark.parametrize(
    ("network", "parts", "first"),
    [
        ({"activation": "sigmoid", "initialization": "xavier_uniform", "depth": 6}, {}, "relu"),
        ({"initialization": "torch_default", "depth": 12}, {}, "initialization"),
        ({"initialization": {"name": "he_normal", "gain": 3.0}, "depth": 12}, {}, "initialization"),
        ({"initialization": {"name": "normal", "std": 0.01}, "depth": 12}, {}, "initialization"),
    ],
)
def test_the_remedy_follows_from_the_cause(network: dict[str, object], parts: dict[str, object], first: str) -> None:
    spec = spec_of(network, **parts)
    finding = diagnose(Made(spec).measurements).findings[0]
    assert finding.remedies[0].id == first
    for remedy in finding.remedies:
        changed = Spec.model_validate(apply(spec.model_dump(mode="json"), remedy.patch))
        assert changed != spec, remedy.id
        assert remedy.reason
    # The first is enough by theory: within the limit from the output layer down to the first.
    assert abs(finding.remedies[0].expected["log_delta_ratio"]) < 6.0


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_a_learning_rate_is_mended_in_the_right_direction(optimizer: str) -> None:
    for rate, ratio, sign in ((1e-7, 1e-6, 1), (5.0, 0.5, -1)):
        spec = spec_of(optimizer={"name": optimizer, "learning_rate": rate})
        finding = diagnose(Made(spec).put("weights", "update_ratio", ratio).loss(2.31).measurements).findings[0]
        assert finding.remedies[0].id == "learning_rate"
        assert np.sign(finding.remedies[0].patch["optimizer"]["learning_rate"] - rate) == sign


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"d": 3}}),
        ({"name": "leaky_relu", "negative_slope": 0.2}, {"name": "relu"}),
        ({"a": [1, 2]}, {"a": [1]}),
        ({}, {"a": {"b": {}}}),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_a_difference_applied_gives_the_document(before: dict[str, object], after: dict[str, object]) -> None:
    assert apply(before, difference(before, after)) == after


def test_a_merge_patch_as_rfc_7396_has_it() -> None:
    document = {"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["a"], "x": "y"}
    patch = {"title": "Hello!", "phone": "+01", "author": {"familyName": None}, "tags": ["b"]}
    assert apply(document, patch) == {
        "title": "Hello!",
        "author": {"givenName": "John"},
        "tags": ["b"],
        "x": "y",
        "phone": "+01",
    }


def test_what_a_normalized_net_has_by_theory_is_a_cause_only_once_it_stands_still() -> None:
    """Sixty layers of batch normalization: e²² times the gradient, and nothing is learned."""
    made = Made(spec_of({"normalization": "batch", "depth": 60, "width": 32}))
    made.put("activations", "saturated_fraction", 0.5)
    assert diagnose(made.measurements).findings == ()
    diagnosis = diagnose(made.loss(2.31).measurements)
    assert (diagnosis.verdict, diagnosis.cause) == ("stalled", "normalization")
    assert {remedy.id for remedy in diagnosis.findings[0].remedies} >= {"residual", "depth", "no_normalization"}


def test_a_sigmoid_behind_layer_normalization_is_healthy() -> None:
    made = Made(spec_of({"activation": "sigmoid", "normalization": "layer", "depth": 6}))
    assert diagnose(made.measurements).verdict == "healthy"


def test_skip_connections_without_normalization_add_up() -> None:
    made = Made(spec_of({"depth": 20, "residual": True})).put("activations", "saturated_fraction", 0.5)
    finding = diagnose(made.measurements).findings[0]
    assert (finding.rule, finding.cause) == ("exploding", "skip_connection")
    assert "no_residual" in [remedy.id for remedy in finding.remedies]


def test_narrow_layers_are_born_dead_by_chance_and_wide_ones_by_their_bias() -> None:
    for width, bias, cause in ((3, 0.0, "width"), (64, -1.0, "activation_derivative")):
        network = {"depth": 12, "width": width, "initialization": {"name": "he_normal", "bias": bias}}
        made = Made(spec_of(network)).put("activations", "dead_fraction", 1.0, 4)
        finding = diagnose(made.measurements).findings[0]
        assert (finding.rule, finding.cause) == ("dying_units", cause)


def test_a_residual_net_whose_units_pass_nothing_on_is_judged_by_every_rule() -> None:
    spec = spec_of({"depth": 8, "residual": True, "initialization": {"name": "he_normal", "bias": -1000.0}})
    found = diagnose(Made(spec).measurements)
    assert found.failed_rules == ()
    assert found.attribution is not None
