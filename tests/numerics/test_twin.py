"""What a run records, against the same training done by hand: the same float32 elements, and float64 from scratch."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from gradprobe import histogram
from gradprobe.spec import Spec, TensorName
from gradprobe.statistics import HISTOGRAM_TENSORS, names
from tests.numerics.reference import (
    ACTIVATIONS,
    KINKS,
    Pass,
    Wide,
    activation,
    backpropagate,
    differences,
    distribution,
    prelu_gradients,
    slope_by_differences,
)
from tests.numerics.replay import Array, Recorded, Step, record, replay, small_dataset

STEPS = 3
NAMES = [*ACTIVATIONS, "prelu"]
#: depth, width, batch: at each depth every width and every batch once. One layer has neither activation nor width.
SHALLOW = [(1, 10, 1), (1, 10, 2), (1, 10, 30)]
SHAPES = [(2, 1, 30), (2, 7, 1), (2, 10, 2), (6, 1, 2), (6, 7, 30), (6, 10, 1)]
COMBINATIONS = [("sigmoid", *shape) for shape in SHALLOW] + [
    (name, *shape) for name, shape in itertools.product(NAMES, SHAPES)
]

#: The stored float32 of a float64 sum: half a unit in the last place is 6e-8.
ROUNDED = 1e-7
#: float32 forward and backward through six layers against float64: a product of some ten factors, each sum of up to
#: 784 terms off by a few 1e-7, and a softmax whose exponent is off by as much; the largest seen is 7e-6.
FLOAT32_PASS = 5e-5


def spec_of(name: str, depth: int, width: int, batch: int) -> Spec:
    """Wide biases drive units into saturation without the weights that would make gradients explode.

    Narrower ones for tanh and GELU: float32 knows their far slopes, 1 − h² and 1 + erf, to 1e-7 of 1 and not of
    themselves, which is little beside 5 % but not where a layer of one unit has nothing else.
    """
    std = 0.7 if name in ("tanh", "gelu") else 2.5
    return Spec.model_validate(
        {
            "network": {
                "depth": depth,
                "width": width,
                "activation": name,
                "initialization": {"name": "xavier_uniform", "bias": {"name": "normal", "std": std}},
            },
            "optimizer": {"name": "adam", "learning_rate": 0.01},
            "training": {"iterations": STEPS, "batch_size": batch, "seed": 7 * depth + width, "device": "cpu"},
            "recording": {"every": 1, "histograms_every": 1, "evaluate_every": 1},
        }
    )


def wide_pass(step: Step, name: str) -> Pass:
    hidden = len(step.weights) - 1
    slopes = step.slopes or [0.0] * hidden
    functions = [activation(name, slope) for slope in slopes]
    result = backpropagate(step.images, step.labels, step.weights, step.biases, functions)
    if step.slopes:
        trained = prelu_gradients(result, step.weights)
        result.gradient_norm = math.hypot(result.gradient_norm, *trained)
    return result


@pytest.mark.parametrize(("name", "depth", "width", "batch"), COMBINATIONS)
def test_every_statistic_of_every_layer_and_step(name: str, depth: int, width: int, batch: int) -> None:
    spec, dataset = spec_of(name, depth, width, batch), small_dataset()
    recorded, steps = record(spec, dataset), replay(spec, dataset)
    compared = 0
    for number, step in enumerate(steps):
        result = wide_pass(step, name)
        same_elements(recorded, number, step)
        forward(recorded, number, step, result, name)
        if not result.near_a_kink(name):
            backward(recorded, number, result)
            compared += 1
    assert compared


def same_elements(recorded: Recorded, number: int, step: Step) -> None:
    """Sums of identical float32 elements: only the result's own rounding is allowed."""
    elements: dict[TensorName, list[Array]] = {
        "weight_gradients": step.weight_gradients,
        "output_gradients": step.deltas,
        "weights": step.weights,
    }
    for layer in range(len(step.weights)):
        for tensor, arrays in elements.items():
            expected = distribution(arrays[layer].ravel().tolist())
            actual = recorded.of_layer(tensor, layer, number)
            assert not differences(actual, expected, ROUNDED), f"{tensor} of layer {layer + 1} at step {number}"
        before, after = (arrays[layer].astype(np.float64) for arrays in (step.weights, step.weights_after))
        changed, size = (math.fsum(x * x for x in array.ravel().tolist()) for array in (after - before, before))
        assert recorded.of_layer("weights", layer, number)["update_ratio"] == pytest.approx(
            math.sqrt(changed / size), rel=ROUNDED
        )
        for tensor in HISTOGRAM_TENSORS:
            counts = recorded.counts(tensor).dense()[number, layer]
            np.testing.assert_array_equal(counts, histogram.count(elements[tensor][layer]))
    squares = math.fsum(x * x for gradient in step.gradients for x in gradient.ravel().tolist())
    metrics = metrics_at(recorded, number)
    assert metrics["gradient_norm"] == pytest.approx(math.sqrt(squares), rel=ROUNDED)
    assert metrics["loss"] == np.float32(step.loss)


def metrics_at(recorded: Recorded, number: int) -> dict[str, float]:
    return dict(zip(names("metrics"), recorded.metrics.values[:, 0, number].tolist(), strict=True))


def forward(recorded: Recorded, number: int, step: Step, result: Pass, name: str) -> None:
    metrics = metrics_at(recorded, number)
    assert metrics["loss"] == pytest.approx(result.loss, rel=FLOAT32_PASS)
    assert metrics["accuracy"] == pytest.approx(result.accuracy, abs=ROUNDED)
    assert metrics["learning_rate"] == pytest.approx(0.01, rel=ROUNDED)
    assert metrics["seconds_per_iteration"] > 0
    for layer, values in enumerate(result.activations):
        actual = recorded.of_layer("activations", layer, number)
        expected = distribution(values.ravel().tolist())
        scale = FLOAT32_PASS * (expected["mean_abs"] + expected["norm"] / math.sqrt(values.size))
        assert actual["mean"] == pytest.approx(expected["mean"], abs=scale)
        assert actual["std"] == pytest.approx(expected["std"], abs=scale)
        last = layer == len(result.activations) - 1
        slope = step.slopes[layer] if step.slopes and not last else 0.0
        fewest, most = saturated("identity" if last else name, slope, result.outputs[layer])
        assert fewest - ROUNDED <= actual["saturated_fraction"] <= most + ROUNDED
        # GELU below −5.5 is no longer zero in float64, and is in float32.
        dead, faint = (sum(all(abs(x) <= bound for x in unit) for unit in values.T) for bound in (0.0, 1e-6))
        assert dead <= round(actual["dead_fraction"] * values.shape[1], 4) <= faint


def saturated(name: str, slope: float, outputs: Wide) -> tuple[float, float]:
    """The share of z where |φ′| is under 5 % of its largest: without and with those too near to call in float32."""
    if name == "prelu":  # by definition: its slope is trained
        return 0.0, 0.0
    function = activation(name, slope)[0]
    largest = np.abs(slope_by_differences(function, np.linspace(-6.0, 6.0, 12_002))).max()
    relative = np.abs(slope_by_differences(function, outputs)) / largest
    unclear = np.abs(relative - 0.05) < 1e-4
    for kink in KINKS.get(name, ()):
        unclear |= np.abs(outputs - kink) < 2e-6
    below = relative < 0.05
    return float((below & ~unclear).mean()), float((below | unclear).mean())


def backward(recorded: Recorded, number: int, result: Pass) -> None:
    for layer in range(len(result.deltas)):
        gradients: dict[TensorName, Wide] = {
            "weight_gradients": result.weight_gradients[layer],
            "output_gradients": result.deltas[layer],
        }
        for tensor, elements in gradients.items():
            actual, expected = recorded.of_layer(tensor, layer, number), distribution(elements.ravel().tolist())
            fewest, most = zeros(elements)
            assert fewest - ROUNDED <= actual["zero_fraction"] <= most + ROUNDED
            expected["zero_fraction"] = actual["zero_fraction"]
            assert not differences(actual, expected, FLOAT32_PASS), f"{tensor} of layer {layer + 1}"
    assert metrics_at(recorded, number)["gradient_norm"] == pytest.approx(result.gradient_norm, rel=FLOAT32_PASS)


def zeros(elements: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The share that is zero, and with those so small beside the rest that float32 may make them zero."""
    magnitude = np.abs(elements)
    return float((magnitude == 0).mean()), float((magnitude <= 1e-6 * magnitude.max()).mean())


@pytest.mark.parametrize("name", NAMES)
def test_the_twins_slopes_are_the_slopes_of_its_activations(name: str) -> None:
    function, slope = activation(name, 0.25)
    z = np.linspace(-5.0, 5.0, 2_000)  # no kink among them
    np.testing.assert_allclose(slope(z), slope_by_differences(function, z), atol=1e-8)


def test_the_test_set_is_evaluated_before_the_step() -> None:
    spec, dataset = spec_of("tanh", 3, 10, 30), small_dataset()
    recorded, steps = record(spec, dataset), replay(spec, dataset)
    images, labels = dataset.test_images.numpy(), dataset.test_labels.numpy()
    evaluations = recorded.evaluations
    assert evaluations.steps.tolist() == [*range(STEPS), STEPS]
    for number, step in enumerate(steps):
        functions = [activation("tanh")] * 2
        result = backpropagate(images, labels, step.weights, step.biases, functions)
        loss, accuracy = evaluations.values[:, 0, number].tolist()
        assert loss == pytest.approx(result.loss, rel=1e-6)
        assert accuracy == pytest.approx(result.accuracy, abs=ROUNDED)
