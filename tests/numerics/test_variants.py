"""Every kind of network, normalization and precision: what the probe recorded against a twin in float64."""

import itertools
from typing import Any

import numpy as np
import pytest

from gradprobe.spec import Spec
from gradprobe.statistics import names
from tests.numerics.reference import differences, distribution
from tests.numerics.replay import Recorded, record, small_dataset
from tests.numerics.retrain import Iteration, Wide, retrain
from tests.numerics.variants import Result, twin

STEPS = 3
KINDS = ("mlp", "conv", "resnet")
NORMALIZATIONS = ("none", "batch", "layer", "rms")
#: How far a statistic may be off, relative to its size: some ten roundings in a row, each of half a unit in the last
#: place (6e-8, 5e-4, 4e-3), which normalizing a few nearly equal units enlarges. The largest seen are half of these.
TOLERANCES = {"float32": 2e-5, "float16": 5e-2, "bfloat16": 0.2}


def spec_of(kind: str = "mlp", precision: str = "float32", **document: Any) -> Spec:
    network = {"kind": kind, "depth": 6, "width": 6, "activation": "tanh"} | document.pop("network", {})
    return Spec.model_validate(
        {
            "network": {"initialization": {"name": "lecun_normal", "bias": {"name": "normal", "std": 0.3}}, **network},
            "optimizer": {"learning_rate": 0.01},
            "training": {"iterations": STEPS, "batch_size": 6, "seed": 3, "device": "cpu", "precision": precision},
            "recording": {"histograms_every": 1},
            **document,
        }
    )


def compare(spec: Spec) -> None:
    dataset = small_dataset()
    recorded, steps = record(spec, dataset), retrain(spec, dataset)
    losses = recorded.metrics.values[names("metrics").index("loss"), 0].tolist()
    assert losses == [np.float32(step.loss) for step in steps], "observing changed what was observed"
    tolerance = TOLERANCES[spec.training.precision]
    compared = 0
    for number, step in enumerate(steps):
        compared += compare_step(spec, recorded, number, step, tolerance)
    assert compared


def compare_step(spec: Spec, recorded: Recorded, number: int, step: Iteration, tolerance: float) -> bool:
    result = twin(spec.network, step)
    metrics = dict(zip(names("metrics"), recorded.metrics.values[:, 0, number].tolist(), strict=True))
    assert metrics["loss"] == pytest.approx(result.loss, rel=tolerance)
    assert metrics["learning_rate"] == pytest.approx(step.learning_rate, rel=1e-6)
    compare_activations(recorded, number, result, tolerance)
    if not np.isfinite(metrics["gradient_norm"]):
        assert spec.training.precision == "float16", "only a loss that is scaled overflows"
        return False
    assert metrics["gradient_norm"] == pytest.approx(result.gradient_norm, rel=tolerance)
    tensors = {"weight_gradients": result.weight_gradients, "output_gradients": result.deltas}
    if spec.gradient_clipping is not None:
        tensors["clipped_weight_gradients"] = result.clipped(spec.gradient_clipping)
    for tensor, arrays in tensors.items():
        for layer, elements in enumerate(arrays):
            assert not off(recorded, tensor, layer, number, elements, tolerance), f"{tensor}, layer {layer + 1}"
    return True


def compare_activations(recorded: Recorded, number: int, result: Result, tolerance: float) -> None:
    for layer, values in enumerate(result.activations):
        actual, size = recorded.of_layer("activations", layer, number), np.sqrt((values * values).mean())
        assert actual["mean"] == pytest.approx(values.mean(), abs=tolerance * size)
        assert actual["std"] == pytest.approx(values.std(), abs=tolerance * size)


def off(
    recorded: Recorded, tensor: Any, layer: int, number: int, elements: Wide, tolerance: float
) -> dict[str, tuple[float, float]]:
    """The statistics that are too far off. Zeros are no matter of tolerance: a half type underflows to them."""
    actual, expected = recorded.of_layer(tensor, layer, number), distribution(elements.ravel().tolist())
    return differences(actual, expected | {"zero_fraction": actual["zero_fraction"]}, tolerance)


@pytest.mark.parametrize(
    ("kind", "normalization", "precision"), list(itertools.product(KINDS, NORMALIZATIONS, TOLERANCES))
)
def test_every_kind_normalization_and_precision(kind: str, normalization: str, precision: str) -> None:
    compare(spec_of(kind, precision, network={"normalization": normalization}))


@pytest.mark.parametrize(("kind", "normalization"), list(itertools.product(("mlp", "conv"), NORMALIZATIONS)))
def test_skip_connections(kind: str, normalization: str) -> None:
    compare(spec_of(kind, network={"normalization": normalization, "residual": True}))


@pytest.mark.parametrize("kind", KINDS)
def test_dropout(kind: str) -> None:
    compare(spec_of(kind, network={"dropout": 0.3, "residual": kind != "resnet", "normalization": "layer"}))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_trained_slope_beside_a_normalization(normalization: str) -> None:
    compare(spec_of(network={"activation": "prelu", "normalization": normalization, "residual": True}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "clipping", [{"kind": "norm", "max_norm": 0.05}, {"kind": "value", "max_value": 0.002}], ids=["norm", "value"]
)
def test_before_and_after_clipping(kind: str, precision: str, clipping: dict[str, Any]) -> None:
    compare(spec_of(kind, precision, gradient_clipping=clipping))


@pytest.mark.parametrize(
    "schedule", ["cosine", {"name": "step", "every": 2}, {"name": "linear_warmup", "iterations": 3}]
)
def test_schedules(schedule: Any) -> None:
    compare(spec_of(optimizer={"name": "sgd", "learning_rate": 0.5, "schedule": schedule}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_unit_of_a_convolution_is_a_channel(kind: str) -> None:
    """Zero over the whole batch, and at every position."""
    initialization = {"name": "he_normal", "bias": {"name": "normal", "std": 3.0}}
    network = {"activation": "relu", "initialization": initialization, "width": 12}
    spec, dataset = spec_of(kind, network=network), small_dataset()
    recorded, step = record(spec, dataset), retrain(spec, dataset)[0]
    some = 0
    for layer, values in enumerate(twin(spec.network, step).activations[:-1]):
        zero = values == 0
        dead = zero.all(axis=(0, *range(2, values.ndim)))
        actual = recorded.of_layer("activations", layer, 0)
        assert actual["dead_fraction"] == pytest.approx(dead.mean(), abs=1e-7)
        assert actual["saturated_fraction"] == pytest.approx(zero.mean(), abs=1e-7)
        some += 0 < dead.mean() < 1
    assert some > 1


@pytest.mark.parametrize("depth", [4, 8, 10])
def test_blocks_of_a_resnet_and_where_images_are_halved(depth: int) -> None:
    for kind in ("resnet", "conv"):
        compare(spec_of(kind, network={"depth": depth, "width": 4, "activation": "silu"}))
