"""What is predicted of whole specs: phases, limits, gains, profiles, and where theory says that it can't say."""

import json
import math
from typing import Any

import pytest

from gradprobe.spec import Spec
from gradprobe.theory import Prediction, meanfield, predict
from gradprobe.theory.activations import named
from gradprobe.theory.inputs import loss_gradient


def predicted(**network: Any) -> Prediction:
    return predict(Spec.model_validate({"network": network}))


@pytest.mark.parametrize(
    ("network", "phase", "chi", "limit"),
    [
        ({}, "ordered", 0.055721, 2.08),
        ({"activation": "relu", "initialization": "he_normal"}, "critical", 1.0, math.inf),
        ({"activation": "relu", "width": 100}, "ordered", 0.5, 8.66),
        ({"activation": "relu", "initialization": "torch_default", "width": 1000}, "ordered", 0.16667, 3.35),
        ({"activation": "leaky_relu", "initialization": {"gain": 2.0}}, "chaotic", 4 * 0.50005, 8.65),
        ({"activation": "tanh", "initialization": {"name": "lecun_normal", "gain": 5 / 3}}, "chaotic", 1.20983, 72.7),
        ({"activation": "relu", "normalization": "batch"}, "chaotic", 1.466942, 15.66),
        ({"activation": "relu", "normalization": "layer"}, "critical", 1.0, math.inf),
        ({"activation": "sigmoid", "normalization": "rms"}, "ordered", 0.1528, 3.19),
    ],
)
def test_phase_and_depth_limit(network: dict[str, Any], phase: str, chi: float, limit: float) -> None:
    found = predicted(**network)
    assert found.phase == phase
    assert found.chi == pytest.approx(chi, rel=2e-3)
    assert found.depth_limit == pytest.approx(limit, rel=1e-2)


@pytest.mark.parametrize(
    ("activation", "bias", "gain"),
    [("relu", 0.0, math.sqrt(2)), ("tanh", 0.0, 1.0), ("tanh", math.sqrt(0.05), math.sqrt(1.76095))],
)
def test_the_gain_that_would_be_critical(activation: str, bias: float, gain: float) -> None:
    start = {"name": "lecun_normal", "bias": {"name": "normal", "std": bias}}
    found = predicted(activation=activation, initialization=start, width=50)
    assert found.critical_gain == pytest.approx(gain, rel=1e-5)


def test_the_critical_gain_makes_a_network_critical() -> None:
    for activation in ("sigmoid", "tanh", "selu", "hardtanh"):
        start = {"name": "lecun_normal", "bias": {"name": "normal", "std": 0.3}}
        gain = predicted(activation=activation, initialization=start, width=50).critical_gain
        assert gain is not None
        critical = predicted(activation=activation, initialization={**start, "gain": gain}, width=50)
        assert critical.chi == pytest.approx(1.0, abs=1e-5), activation
        assert critical.phase == "critical"


def test_unequal_widths_keep_the_norm_with_hes_weights() -> None:
    found = predicted(depth=5, width=300, activation="relu", initialization="he_normal")
    assert [layer.chi for layer in found.layers] == pytest.approx([1.0] * 5, rel=1e-9)
    assert [layer.log_delta_ratio for layer in found.layers] == pytest.approx([0.0] * 5, abs=1e-9)


def test_the_first_layer_sees_the_datas_own_scale() -> None:
    start = {"depth": 3, "width": 10, "activation": "relu", "initialization": "he_normal"}
    unit = predict(Spec.model_validate({"network": start}))
    standard = predict(Spec.model_validate({"network": start, "dataset": {"normalization": "standard"}}))
    assert unit.layers[0].q == pytest.approx(2 * 0.112003, rel=1e-6)
    assert standard.layers[0].q == pytest.approx(2.0, rel=1e-6)


def test_the_loss_sends_back_what_a_balanced_start_has() -> None:
    assert loss_gradient(0.0).squared_norm == pytest.approx(0.9, abs=1e-12)
    assert math.sqrt(loss_gradient(0.0).squared_norm) == pytest.approx(0.948683, abs=1e-6)
    assert loss_gradient(0.0).loss == pytest.approx(math.log(10), abs=1e-12)
    assert loss_gradient(1e8).squared_norm == pytest.approx(1.8, abs=0.01)


def test_weights_of_zero_send_nothing_back() -> None:
    found = predicted(activation="relu", initialization="zeros")
    assert [layer.log_delta_ratio for layer in found.layers[:-1]] == [-math.inf] * 5
    assert found.document()["layers"][0]["log_delta_ratio"] is None


def test_the_null_band_grows_with_depth_and_shrinks_with_width() -> None:
    """Width 30 and ten hidden layers: one deviation is a factor of 4 in the squared norm, with nothing wrong."""
    found = predicted(depth=12, width=30, activation="relu", initialization="he_normal")
    assert found.layers[1].null_band == pytest.approx(math.sqrt(5 * 10 / 30), rel=1e-9)
    assert math.exp(found.layers[1].null_band) == pytest.approx(3.6, abs=0.1)
    assert found.layers[-1].null_band == 0.0


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "conv", "activation": "relu"},
        {"kind": "resnet", "activation": "tanh", "normalization": "batch"},
        {"residual": True, "normalization": "layer"},
        {"dropout": 0.3, "activation": "relu"},
        {"depth": 1},
        {"depth": 2},
        {"initialization": {"name": "uniform", "bound": 1e5}, "activation": "softplus", "depth": 60},
        {"activation": "prelu", "initialization": {"name": "normal", "std": 1e5}, "depth": 200},
        {"activation": "hardtanh", "initialization": {"name": "xavier_normal", "bias": 50.0}},
        {"activation": "relu", "initialization": {"name": "he_normal", "bias": -100.0}},
        {"initialization": "zeros", "normalization": "rms"},
    ],
)
def test_every_spec_has_a_prediction_in_plain_json(network: dict[str, Any]) -> None:
    found = predicted(**network)
    assert len(found.layers) == Spec.model_validate({"network": network}).network.depth
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["phase"] in ("ordered", "critical", "chaotic")
    if network.get("kind") or network.get("dropout") or network.get("depth") == 1:
        assert found.notes


def test_a_network_grows_through_batch_normalization_at_the_rate_of_theory() -> None:
    found = predicted(depth=8, width=50, activation="relu", normalization="batch")
    rates = [layer.chi for layer in found.layers[1:6]]
    assert rates == pytest.approx([meanfield.batch_normalized_rate(named("relu"))] * 5, rel=1e-3)
