"""Each remedy of the classic list does to the statistics what the literature says it does."""

from typing import Any

import numpy as np
import pytest

from gradprobe.spec import Spec
from gradprobe.statistics import names
from tests.numerics.replay import Recorded, record, small_dataset

DEEP = {"depth": 20, "width": 100}
CLASSIC = {"depth": 6, "width": 10, "activation": "sigmoid"}


def run(network: dict[str, Any], iterations: int = 1, **document: Any) -> Recorded:
    training = {"iterations": iterations, "device": "cpu", **document.pop("training", {})}
    return record(Spec.model_validate({"network": network, "training": training, **document}), small_dataset())


def series(recorded: Recorded, tensor: Any, statistic: str, step: int = 0) -> list[float]:
    """One statistic of every layer, input side first."""
    values: list[float] = recorded.statistics(tensor).values[names(tensor).index(statistic), :, step].tolist()
    return values


def deltas(recorded: Recorded) -> list[float]:
    """‖δ‖ of every layer at the first step."""
    return series(recorded, "output_gradients", "norm")


def arrives(recorded: Recorded) -> float:
    """How much of the last layer's ‖δ‖ arrives at the first layer."""
    first, *_, last = deltas(recorded)
    return first / last


def test_he_keeps_what_xavier_halves_at_every_relu() -> None:
    """He et al. 2015: with ReLU, Xavier's variance is half of what keeps E‖δ‖² from layer to layer."""
    he, xavier = (run(DEEP | {"activation": "relu", "initialization": name}) for name in ("he_normal", "xavier_normal"))
    assert 0.5 < arrives(he) < 2.0
    # Of the 19 steps back all but the first are between square layers.
    assert arrives(xavier) == pytest.approx(2.0 ** (-18 / 2), rel=0.5)
    widest = max(a / b for a in deltas(he) for b in deltas(he))
    assert widest < 2.0


def test_xavier_keeps_tanh_in_range_and_small_weights_do_not() -> None:
    kept = run(DEEP | {"activation": "tanh", "initialization": "xavier_normal"})
    small = run(DEEP | {"activation": "tanh", "initialization": {"name": "normal", "std": 0.01}})
    assert 0.3 < arrives(kept) < 3.0
    # Each square layer passes on std · √width = 0.1.
    assert arrives(small) == pytest.approx(0.1**19, rel=0.5)
    large = run(DEEP | {"activation": "tanh", "initialization": {"name": "normal", "std": 1.0}})
    assert series(large, "activations", "saturated_fraction")[5] > 0.5
    assert series(kept, "activations", "saturated_fraction")[5] < 0.01


def test_orthogonal_weights_of_a_linear_net_keep_every_length() -> None:
    """Saxe et al. 2014: dynamical isometry."""
    hidden = deltas(run(DEEP | {"activation": "identity", "initialization": "orthogonal"}))[:-1]
    assert hidden == pytest.approx([hidden[0]] * 19, rel=1e-5)


def test_selu_normalizes_itself() -> None:
    """Klambauer et al. 2017: with LeCun's variance activations move towards a standard deviation of 1."""
    spread = series(run(DEEP | {"activation": "selu", "initialization": "lecun_normal"}), "activations", "std")[:-1]
    assert spread[0] < 0.5
    assert all(0.85 < std < 1.15 for std in spread[12:])


def test_sigmoid_loses_three_quarters_at_every_layer() -> None:
    assert arrives(run(CLASSIC)) < 4.0**-4


@pytest.mark.parametrize("normalization", ["batch", "layer", "rms"])
def test_normalization_lifts_what_arrives(normalization: str) -> None:
    bare, normalized = run(CLASSIC), run(CLASSIC | {"normalization": normalization})
    assert arrives(normalized) > 5 * arrives(bare)
    if normalization == "batch":
        assert 0.3 < arrives(normalized) < 3.0


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu", "softplus"])
def test_activations_with_a_slope_near_one_feed_the_first_layer(activation: str) -> None:
    assert arrives(run(CLASSIC | {"activation": activation, "initialization": "he_normal"})) > 0.1


@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
def test_activations_around_zero_feed_the_first_layer(activation: str) -> None:
    assert arrives(run(CLASSIC | {"activation": activation})) > 0.1


@pytest.mark.parametrize("activation", ["leaky_relu", "prelu", "elu", "gelu"])
def test_no_unit_is_dead_where_the_left_side_has_a_slope(activation: str) -> None:
    """A bias of −2 switches every ReLU off: no output, no gradient, for any image of the batch."""
    network = CLASSIC | {"initialization": {"name": "he_normal", "bias": -2.0}}
    dead, alive = run(network | {"activation": "relu"}), run(network | {"activation": activation})
    assert series(dead, "activations", "dead_fraction") == [1.0] * 5 + [0.0]
    assert series(dead, "output_gradients", "zero_fraction") == [1.0] * 5 + [0.0]
    assert series(alive, "activations", "dead_fraction") == [0.0] * 6
    assert series(alive, "output_gradients", "zero_fraction") == [0.0] * 6


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_skip_connections_carry_gradients_over_fifty_layers(activation: str) -> None:
    network = {
        "depth": 50,
        "width": 20,
        "activation": activation,
        "initialization": {"name": "xavier_normal", "gain": 0.5},
    }
    plain, residual = run(network), run(network | {"residual": True})
    assert arrives(plain) < 1e-12
    assert min(deltas(residual)) > 0.01 * deltas(residual)[-1]
    assert arrives(residual) > 0.1


def test_a_resnet_carries_gradients_where_a_plain_stack_does_not() -> None:
    network = {"depth": 20, "width": 4, "activation": "relu", "initialization": "xavier_uniform"}
    training = {"batch_size": 8}
    plain = run(network | {"kind": "conv"}, training=training)
    residual = run(network | {"kind": "resnet"}, training=training)
    skipped = run(network | {"kind": "conv", "residual": True}, training=training)
    assert arrives(residual) > 10 * arrives(plain)
    assert arrives(skipped) > 10 * arrives(plain)


EXPLODING = {
    "depth": 6,
    "width": 30,
    "activation": "relu",
    "initialization": {"name": "normal", "std": 2.0},
}


def test_norm_clipping_bounds_the_whole_and_keeps_the_direction() -> None:
    bare, clipped = run(EXPLODING), run(EXPLODING, gradient_clipping={"kind": "norm", "max_norm": 0.5})
    before, after = (series(clipped, tensor, "norm") for tensor in ("weight_gradients", "clipped_weight_gradients"))
    assert before == series(bare, "weight_gradients", "norm")
    assert min(before) > 1000
    # The biases' gradients have their share of the norm.
    assert 0.45 < np.linalg.norm(after) <= 0.5 * (1 + 1e-6)
    assert [b / a for b, a in zip(before, after, strict=True)] == pytest.approx([before[0] / after[0]] * 6, rel=1e-5)
    norm = clipped.metrics.values[names("metrics").index("gradient_norm"), 0, 0]
    assert norm == bare.metrics.values[names("metrics").index("gradient_norm"), 0, 0] > 1000


def test_norm_clipping_leaves_small_gradients_alone() -> None:
    clipped = run(CLASSIC, gradient_clipping={"kind": "norm", "max_norm": 1000.0})
    for statistic in names("weight_gradients"):
        before = series(clipped, "weight_gradients", statistic)
        assert series(clipped, "clipped_weight_gradients", statistic) == before


def test_value_clipping_bounds_every_element() -> None:
    clipped = run(EXPLODING, gradient_clipping={"kind": "value", "max_value": 0.25})
    assert min(series(clipped, "weight_gradients", "max_abs")) > 100
    assert series(clipped, "clipped_weight_gradients", "max_abs") == [0.25] * 6


def test_without_clipping_nothing_is_recorded_after_it() -> None:
    assert all("clipped_weight_gradients" not in chunk.measured.statistics for chunk in run(CLASSIC).chunks)


def test_clipping_bounds_the_step() -> None:
    """Plain SGD moves weights by learning rate × gradient, so the update is bounded with it."""
    for clipping, bounded in ((None, False), ({"kind": "norm", "max_norm": 1.0}, True)):
        optimizer = {"name": "sgd", "learning_rate": 0.1}
        recorded = run(EXPLODING, optimizer=optimizer, gradient_clipping=clipping)
        ratios, sizes = (np.array(series(recorded, "weights", name)) for name in ("update_ratio", "norm"))
        assert (np.linalg.norm(ratios * sizes) <= 0.1 * (1 + 1e-4)) == bounded


def update_ratios(optimizer: Any, iterations: int) -> list[float]:
    recorded = run({"depth": 3, "activation": "tanh"}, iterations, optimizer=optimizer)
    return [series(recorded, "weights", "update_ratio", step)[0] for step in range(iterations)]


def test_adam_moves_starved_layers_too() -> None:
    adam, sgd = (series(run(CLASSIC, optimizer=name), "weights", "update_ratio") for name in ("adam", "sgd"))
    assert sgd[0] < 0.01 * sgd[-1]
    assert adam[0] > adam[-1]


def test_momentum_adds_up_steps_and_nesterov_looks_ahead() -> None:
    plain, heavy, ahead = (
        update_ratios({"name": "sgd", **more}, 15)
        for more in ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True})
    )
    assert heavy[0] == plain[0]
    assert ahead[0] == pytest.approx(1.9 * plain[0], rel=1e-5)
    assert heavy[-1] > 3 * plain[-1]


@pytest.mark.parametrize(
    ("schedule", "ratios"),
    [
        ({"name": "linear_warmup", "iterations": 4}, [0.25, 0.5, 0.75, 1.0, 1.0]),
        ({"name": "step", "every": 2, "factor": 0.1}, [1.0, 1.0, 0.1, 0.1, 0.01]),
        ("cosine", [1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.0]),
    ],
)
def test_schedules_scale_the_steps(schedule: Any, ratios: list[float]) -> None:
    """With a rate so small that the gradients hardly change, each step is as large as the schedule says."""
    rates = {"name": "sgd", "learning_rate": 1e-3}
    constant, scheduled = update_ratios(rates, 5), update_ratios(rates | {"schedule": schedule}, 5)
    # ‖W after − W‖ is a difference of float32 weights: good to about a percent for steps so small.
    assert [a / b for a, b in zip(scheduled, constant, strict=True)] == pytest.approx(ratios, abs=0.03)


def test_weight_decay_shrinks_weights() -> None:
    optimizers = ({"name": name, "weight_decay": decay} for name in ("sgd", "adamw") for decay in (0.0, 10.0))
    norms = [series(run(CLASSIC, 20, optimizer=optimizer), "weights", "norm", 19)[2] for optimizer in optimizers]
    assert norms[1] < 0.9 * norms[0]
    assert norms[3] < 0.9 * norms[2]


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_dropout_hides_its_share_of_units(share: float) -> None:
    """With one sample ∂L/∂W = δ hᵀ: where a unit is dropped, the column of the next layer's weights gets nothing."""
    network = {"depth": 3, "activation": "tanh", "width": 400, "dropout": share}
    zeros = series(run(network, training={"batch_size": 1}), "weight_gradients", "zero_fraction")
    assert zeros[2] == pytest.approx(share, abs=0.08)
    assert (
        series(run(network | {"dropout": 0.0}, training={"batch_size": 1}), "weight_gradients", "zero_fraction")[2] == 0
    )


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_tells_the_same_story(precision: str) -> None:
    """At ten sigmoid layers δ / B at the first is below the smallest number of float16: without scaling, zero."""
    network = CLASSIC | {"depth": 10}
    full, half = run(network), run(network, training={"precision": precision})
    assert series(full, "output_gradients", "mean_abs")[0] / 30 < 2.0**-24
    for tensor in ("weight_gradients", "output_gradients"):
        expected, actual = (series(recorded, tensor, "norm") for recorded in (full, half))
        assert actual == pytest.approx(expected, rel=0.05)
        assert max(series(half, tensor, "zero_fraction")) < 0.01 + max(series(full, tensor, "zero_fraction"))


def test_a_loss_scaled_too_far_is_recorded_and_its_step_skipped() -> None:
    """The first scale is 2¹⁶: gradients of a few units overflow float16, and the scale comes down until they fit."""
    network = EXPLODING | {"initialization": {"name": "normal", "std": 0.5}}
    recorded = run(network, 12, training={"precision": "float16"}, optimizer={"name": "sgd", "learning_rate": 1e-3})
    overflows = [max(series(recorded, "weight_gradients", "nonfinite_count", step)) > 0 for step in range(12)]
    moves = [max(series(recorded, "weights", "update_ratio", step)) > 0 for step in range(12)]
    assert moves == [not overflow for overflow in overflows]
    first = overflows.index(False)
    assert 0 < first < 10
    norm = recorded.metrics.values[names("metrics").index("gradient_norm"), 0]
    assert not np.isfinite(norm[:first]).any()
    full = run(network).metrics.values[names("metrics").index("gradient_norm"), 0, 0]
    assert norm[first] == pytest.approx(full, rel=0.5), "still the first weights, another batch"


def test_depth_1000_trains() -> None:
    network = {
        "depth": 1000,
        "width": 10,
        "activation": "tanh",
        "residual": True,
        "initialization": {"name": "xavier_normal", "gain": 0.03},
    }
    recorded = run(network, 6, optimizer={"learning_rate": 1e-4}, training={"batch_size": 30})
    plain = run(network | {"residual": False})
    for tensor in ("weight_gradients", "output_gradients", "weights", "activations"):
        values = recorded.statistics(tensor).values
        assert values.shape == (len(names(tensor)), 1000, 6)
        assert np.isfinite(values).all()
    assert min(deltas(recorded)) > 0.01 * deltas(recorded)[-1]
    assert arrives(plain) == 0.0
    evaluations = recorded.outcome.train.loss, recorded.evaluations.values[0, 0, 0]
    assert evaluations[0] < evaluations[1]
