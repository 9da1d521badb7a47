"""Theory against real networks: δ's profile in float64 by torch's autograd, over seeds, on real MNIST."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from gradprobe.settings import Settings
from gradprobe.spec import INPUTS, Spec
from gradprobe.theory import predict
from gradprobe.theory.inputs import inputs_of
from tests.numerics.plain import logits_and_outputs
from worker.data import Dataset, load

SEEDS = 8
IMAGES = 128


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    return load("mnist", "unit", Settings())


def spec_of(seed: int = 0, **network: Any) -> Spec:
    return Spec.model_validate({"network": network, "training": {"seed": seed, "device": "cpu"}})


def squared_norms(spec: Spec, dataset: Dataset) -> npt.NDArray[np.float64]:
    """‖δ‖² of one sample, averaged over a batch, by layer, [L]."""
    logits, outputs = logits_and_outputs(spec, dataset.train_images[:IMAGES])
    deltas = torch.autograd.grad(functional.cross_entropy(logits, dataset.train_labels[:IMAGES]), outputs)
    return np.array([float(delta.square().sum()) * IMAGES for delta in deltas])


WITH_BIASES = {"name": "lecun_normal", "gain": 1.5, "bias": {"name": "normal", "std": 0.22}}
NETWORKS: list[dict[str, Any]] = [
    {"activation": "relu", "initialization": "torch_default"},
    {"activation": "relu", "initialization": "lecun_normal"},
    {"activation": "relu", "initialization": "he_normal"},
    {"activation": "tanh", "initialization": WITH_BIASES},
    {"activation": "tanh", "initialization": "torch_default"},
    {"activation": "sigmoid", "initialization": "xavier_uniform"},
    {"activation": "gelu", "initialization": "he_normal"},
    {"activation": "selu", "initialization": "lecun_normal"},
    {"activation": "relu", "initialization": "he_normal", "normalization": "layer"},
    {"activation": "relu", "initialization": "he_normal", "residual": True},
]  # fmt: skip


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: "-".join(map(str, network.values())))
def test_measured_chi_is_within_three_percent(network: dict[str, Any], mnist: Dataset) -> None:
    """Width 300, eight seeds: the mean growth of E‖δ‖² a layer, from one hidden layer to the next."""
    wanted = dict(depth=8, width=300, **network)
    norms = np.mean([squared_norms(spec_of(seed, **wanted), mnist) for seed in range(SEEDS)], axis=0)
    layers = predict(spec_of(**wanted)).layers
    # From layer 2 to layer 7: between hidden layers of one width.
    measured = (norms[1] / norms[6]) ** (1 / 5)
    expected = np.prod([layer.chi for layer in layers[1:6]]) ** (1 / 5)
    assert measured == pytest.approx(expected, rel=0.03)
    profile = np.log(norms / norms[-1])
    assert profile == pytest.approx([layer.log_delta_ratio for layer in layers], abs=0.35)


def test_the_spread_from_seed_to_seed_is_the_null_band(mnist: Dataset) -> None:
    """Narrow ReLU networks of width 16: ln‖δ₁‖² varies by √(5 Σ 1/n) at most, and not by much less."""
    narrow = {"depth": 7, "width": 16, "activation": "relu", "initialization": "he_normal"}
    norms = [squared_norms(spec_of(seed, **narrow), mnist) for seed in range(60)]
    logs = [np.log(one[0] / one[-1]) for one in norms]
    band = predict(spec_of(**narrow)).layers[0].null_band
    assert 0.4 * band < np.std(logs) < 1.15 * band


@pytest.mark.parametrize("normalization", ["unit", "standard"])
def test_the_data_sets_moments_are_those_of_the_data(normalization: str) -> None:
    spec = Spec.model_validate({"dataset": {"name": "mnist", "normalization": normalization}})
    images = load("mnist", normalization, Settings()).train_images
    found = inputs_of(spec.dataset)
    assert images.shape[1] == INPUTS
    assert float(images.mean(dtype=torch.float64)) == pytest.approx(found.mean, abs=1e-5)
    assert float(images.square().mean(dtype=torch.float64)) == pytest.approx(found.second, rel=1e-4)
    assert float(images.var(0, unbiased=False).mean(dtype=torch.float64)) == pytest.approx(found.centered, rel=1e-4)


def test_the_expected_first_loss_is_the_measured_one(mnist: Dataset) -> None:
    for network in (
        {"activation": "relu", "initialization": "he_normal", "depth": 5, "width": 200},
        {"activation": "tanh", "initialization": "xavier_normal", "normalization": "layer", "depth": 5, "width": 200},
    ):
        losses = []
        for seed in range(SEEDS):
            logits, _ = logits_and_outputs(spec_of(seed, **network), mnist.train_images[:IMAGES])
            losses.append(functional.cross_entropy(logits, mnist.train_labels[:IMAGES]).item())
        assert np.mean(losses) == pytest.approx(predict(spec_of(**network)).initial_loss, rel=0.06)
