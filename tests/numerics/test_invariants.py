"""What must hold for every network of a kind, whatever its weights: checks that need no second implementation."""

import math

import numpy as np
import pytest

from gradprobe.spec import Spec
from gradprobe.statistics import names
from tests.numerics.replay import Recorded, record, replay, small_dataset


def spec_of(activation: str, initialization: dict[str, object], depth: int = 6, iterations: int = 2) -> Spec:
    return Spec.model_validate(
        {
            "network": {"depth": depth, "width": 16, "activation": activation, "initialization": initialization},
            "training": {"iterations": iterations, "seed": 5, "device": "cpu"},
        }
    )


def first_loss(recorded: Recorded) -> float:
    return float(recorded.metrics.values[names("metrics").index("loss"), 0, 0])


def test_all_weights_zero_is_a_guess_among_ten_and_only_the_output_bias_learns() -> None:
    spec, dataset = spec_of("relu", {"name": "zeros"}), small_dataset()
    recorded = record(spec, dataset)
    assert first_loss(recorded) == pytest.approx(math.log(10), rel=1e-6)
    for layer in range(6):
        assert recorded.of_layer("weight_gradients", layer, 0)["norm"] == 0.0
        assert recorded.of_layer("weights", layer, 1)["norm"] == 0.0
    assert recorded.of_layer("output_gradients", 5, 0)["norm"] > 0
    assert np.any(replay(spec, dataset)[1].biases[5] != 0)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
def test_balanced_weights_start_near_a_guess_among_ten(activation: str) -> None:
    recorded = record(spec_of(activation, {"name": "xavier_uniform"}), small_dataset())
    assert first_loss(recorded) == pytest.approx(math.log(10), abs=0.5)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "silu"])
def test_the_output_biases_gradients_cancel(activation: str) -> None:
    """Probabilities and one-hot labels both sum to one, so softmax − one-hot sums to zero."""
    for step in replay(spec_of(activation, {"name": "he_normal"}, iterations=4), small_dataset()):
        gradient = step.gradients[-1]
        assert gradient.shape == (10,)
        assert abs(math.fsum(gradient.tolist())) < 1e-6 * np.abs(gradient).sum()
        assert np.abs(math.fsum(step.deltas[-1].ravel().tolist())) < 1e-6 * np.abs(step.deltas[-1]).sum()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "identity"])
def test_without_biases_every_layer_has_the_same_gradient_along_its_weights(activation: str) -> None:
    """φ(cz) = cφ(z) for c > 0: scaling any one layer scales the logits alike, so ⟨W, ∂L/∂W⟩ is one number."""
    step = replay(spec_of(activation, {"name": "he_normal", "bias": 0.0}, iterations=1), small_dataset())[0]
    products = [
        math.fsum((weight.astype(np.float64) * gradient).ravel().tolist())
        for weight, gradient in zip(step.weights, step.weight_gradients, strict=True)
    ]
    assert products == pytest.approx([products[-1]] * 6, rel=1e-4)
    assert abs(products[-1]) > 1e-3


def test_a_batch_of_one_sample_many_times_has_that_samples_gradients() -> None:
    """δ is per sample: how often a sample is repeated in the batch changes no mean of |δ|."""
    dataset = small_dataset(train_count=1)
    document = spec_of("tanh", {"name": "xavier_normal"}, iterations=1).model_dump(mode="json")
    means = []
    for batch in (1, 8):
        document["training"]["batch_size"] = batch
        recorded = record(Spec.model_validate(document), dataset)
        means.append([recorded.of_layer("output_gradients", layer, 0)["mean_abs"] for layer in range(6)])
    assert means[0] == pytest.approx(means[1], rel=1e-5)
