"""Initial weights: the variance that theory asks for, from the generator given and no other."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradprobe.spec import AnyInitialization, Network
from worker.batches import initialization_generator
from worker.network import builders
from worker.network.initializers import initialize

INPUTS, OUTPUTS = 500, 300
VARIANCES = {
    "xavier_uniform": 2 / (INPUTS + OUTPUTS),
    "xavier_normal": 2 / (INPUTS + OUTPUTS),
    "he_uniform": 2 / INPUTS,
    "he_normal": 2 / INPUTS,
    "lecun_uniform": 1 / INPUTS,
    "lecun_normal": 1 / INPUTS,
}
SCHEMES: list[dict[str, Any]] = [
    *({"name": name, "gain": 1.7} for name in VARIANCES),
    {"name": "orthogonal"},
    {"name": "normal", "std": 0.3},
    {"name": "uniform", "bound": 0.2},
    {"name": "zeros"},
    {"name": "torch_default"},
]


def scheme(document: dict[str, Any]) -> AnyInitialization:
    return Network.model_validate({"initialization": document}).initialization


def drawn(document: dict[str, Any], seed: int = 0) -> nn.Linear:
    layer = nn.Linear(INPUTS, OUTPUTS)
    initialize(layer, scheme(document), torch.Generator().manual_seed(seed))
    return layer


def assert_variance(elements: Tensor, variance: float, kurtosis: float) -> None:
    """Within five standard errors of the mean and of the variance."""
    wide, count = elements.detach().double(), elements.numel()
    assert abs(float(wide.mean())) < 5 * math.sqrt(variance / count)
    assert abs(float(wide.square().mean()) - variance) < 5 * variance * math.sqrt((kurtosis - 1) / count)


def assert_uniform(elements: Tensor, bound: float) -> None:
    """Over the whole of ±bound and not beyond."""
    assert_variance(elements, bound * bound / 3, 9 / 5)
    assert bound * (1 - 20 / elements.numel()) < float(elements.detach().abs().max()) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("gain", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("name", VARIANCES)
def test_scaled_variances(name: str, gain: float) -> None:
    weight = drawn({"name": name, "gain": gain}).weight
    variance = gain * gain * VARIANCES[name]
    if name.endswith("uniform"):
        assert_uniform(weight, math.sqrt(3 * variance))
    else:
        assert_variance(weight, variance, 3)
        assert float(weight.detach().abs().max()) > 3.5 * math.sqrt(variance)


def test_normal_and_uniform() -> None:
    assert_variance(drawn({"name": "normal", "std": 0.3}).weight, 0.09, 3)
    assert_uniform(drawn({"name": "uniform", "bound": 0.2}).weight, 0.2)


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (40, 40)])
def test_orthogonal_matrices_keep_lengths(shape: tuple[int, int], gain: float) -> None:
    layer = nn.Linear(shape[1], shape[0])
    initialize(layer, scheme({"name": "orthogonal", "gain": gain}), torch.Generator().manual_seed(1))
    weight = layer.weight.detach().double()
    product = weight @ weight.T if shape[0] <= shape[1] else weight.T @ weight
    torch.testing.assert_close(product, gain * gain * torch.eye(len(product)).double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANCES)
def test_a_convolutions_fans_count_its_nine_positions(name: str) -> None:
    layer = nn.Conv2d(40, 60, 3)
    initialize(layer, scheme({"name": name}), torch.Generator().manual_seed(2))
    fan_in, fan_out = 9 * 40, 9 * 60
    variances = {"xavier": 2 / (fan_in + fan_out), "he": 2 / fan_in, "lecun": 1 / fan_in}
    family, distribution = name.split("_")
    assert_variance(layer.weight, variances[family], 9 / 5 if distribution == "uniform" else 3)


def test_a_convolutions_torch_default_is_torchs() -> None:
    torch.manual_seed(0)
    torchs, ours = nn.Conv2d(40, 60, 3), nn.Conv2d(40, 60, 3)
    initialize(ours, scheme({"name": "torch_default"}), torch.Generator().manual_seed(2))
    for mine, theirs in ((ours.weight, torchs.weight), (ours.bias, torchs.bias)):
        assert mine is not None
        assert theirs is not None
        assert_uniform(mine, 1 / math.sqrt(9 * 40))
        assert float(mine.detach().abs().max()) == pytest.approx(float(theirs.detach().abs().max()), rel=0.1)


def test_an_orthogonal_convolution_has_orthonormal_filters() -> None:
    layer = nn.Conv2d(10, 20, 3)
    initialize(layer, scheme({"name": "orthogonal"}), torch.Generator().manual_seed(2))
    filters = layer.weight.detach().double().flatten(1)
    torch.testing.assert_close(filters @ filters.T, torch.eye(20).double(), atol=1e-5, rtol=0)


def test_zeros() -> None:
    assert torch.count_nonzero(drawn({"name": "zeros"}).weight) == 0


def test_torch_default_draws_weights_and_biases_alike() -> None:
    layer = drawn({"name": "torch_default"})
    bound = 1 / math.sqrt(INPUTS)
    assert_uniform(layer.weight, bound)
    assert bound * 0.9 < float(layer.bias.detach().abs().max()) <= bound
    assert float(layer.bias.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.2)


@pytest.mark.parametrize("name", ["xavier_uniform", "he_normal", "orthogonal", "normal", "uniform", "zeros"])
def test_biases(name: str) -> None:
    assert torch.equal(drawn({"name": name}).bias, torch.zeros(OUTPUTS))
    assert torch.equal(drawn({"name": name, "bias": -0.25}).bias, torch.full((OUTPUTS,), -0.25))
    assert_variance(drawn({"name": name, "bias": {"name": "normal", "std": 0.4}}).bias, 0.16, 3)


@pytest.mark.parametrize("document", SCHEMES, ids=lambda document: document["name"])
def test_numbers_come_from_the_generator_alone(document: dict[str, Any]) -> None:
    torch.manual_seed(1)
    first = drawn(document, seed=4)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    layer = nn.utils.skip_init(nn.Linear, INPUTS, OUTPUTS)
    assert isinstance(layer, nn.Linear)
    initialize(layer, scheme(document), torch.Generator().manual_seed(4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.weight, layer.weight)
    assert torch.equal(first.bias, layer.bias)
    assert torch.equal(first.weight, drawn(document, seed=5).weight) == (document["name"] == "zeros")


def weights_of(seed: int) -> list[Tensor]:
    before = torch.get_rng_state()
    network = builders.build(Network(depth=3, width=12), initialization_generator(seed))
    assert torch.equal(before, torch.get_rng_state())
    return [parameter.detach() for parameter in network.parameters()]


def test_a_network_is_its_seeds() -> None:
    first, again, other = weights_of(3), weights_of(3), weights_of(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[::2], other[::2], strict=True))


def test_layers_are_drawn_apart() -> None:
    _, _, second, _, third, *_ = builders.build(Network(depth=4, width=12), initialization_generator(0)).parameters()
    assert second.shape == third.shape
    assert not torch.equal(second, third)


def test_seeds_beyond_63_bits_of_entropy_still_differ() -> None:
    firsts = {float(torch.rand(1, generator=initialization_generator(seed))) for seed in (0, 1, 2**62, 2**63 - 1)}
    assert len(firsts) == 4
