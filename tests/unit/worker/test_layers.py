"""What a network on images or with skip connections computes, and that its shapes are those that the spec tells."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradprobe.probe import Recording, attach
from gradprobe.spec import Network, Spec
from gradprobe.store.experiments import layers_of
from tests.numerics.replay import record, small_dataset
from worker.batches import initialization_generator
from worker.network import builders
from worker.network.layers import Classifier
from worker.network.normalizations import RMSNorm, normalization

KINDS = [("mlp", 1), ("mlp", 5), ("conv", 2), ("conv", 7), ("resnet", 4), ("resnet", 8)]
NORMALIZATIONS = ["none", "batch", "layer", "rms"]


def built(**fields: Any) -> Classifier:
    return builders.build(Network.model_validate({"width": 4, **fields}), initialization_generator(0))


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 784, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "depth", "normalization"), [(*kind, n) for kind in KINDS for n in NORMALIZATIONS])
def test_what_is_told_of_layers_is_what_is_measured(kind: str, depth: int, normalization: str) -> None:
    spec = Spec.model_validate(
        {
            "network": {"kind": kind, "depth": depth, "width": 3, "normalization": normalization},
            "training": {"iterations": 1, "batch_size": 4, "device": "cpu"},
            "recording": {"histograms_every": 1},
        }
    )
    module = builders.build(spec.network, initialization_generator(0))
    with attach(builders.taps(module, spec.network), Recording(), observable=module) as probe:
        probe.arm(0)
        module(images(4))
        shapes = [tuple(output.shape) for output in probe._outputs if output is not None]
    layers = layers_of(spec)
    assert [layer.output_shape for layer in layers] == shapes
    assert [layer.weight_shape for layer in layers] == [tuple(layer.weight.shape) for layer in module.layers]
    assert sum(parameter.numel() for parameter in module.parameters()) == spec.network.parameter_count

    recorded = record(spec, small_dataset())
    for tensor, told in (("weight_gradients", "weight_shape"), ("output_gradients", "output_shape")):
        sizes = recorded.counts(tensor).dense().sum(axis=2)[0].tolist()  # type: ignore[arg-type]  # a TensorName
        assert sizes == [torch.Size(getattr(layer, told)).numel() for layer in layers]


def test_a_skip_connection_goes_around_the_whole_hidden_layer() -> None:
    module = built(depth=4, activation="tanh", normalization="layer", residual=True).eval()
    entry = module.hidden[0](images())
    second = module.hidden[1](entry) + entry
    third = module.hidden[2](second) + second
    assert torch.equal(module(images()), module.output(third))


def test_a_first_layer_of_equal_width_is_skipped_too() -> None:
    module = built(depth=2, width=784, residual=True)
    assert torch.equal(module(images()), module.output(module.hidden[0](images()) + images()))


def test_a_convolutions_skip_connection_passes_every_second_pixel_where_it_strides() -> None:
    module = built(kind="conv", depth=3, residual=True)
    entry = module.hidden[0](images().view(-1, 1, 28, 28))
    second = module.hidden[1](entry) + entry[:, :, ::2, ::2]
    assert torch.equal(module(images()), module.output(second.mean((2, 3))))


def test_a_residual_block_adds_before_its_second_activation() -> None:
    module = built(kind="resnet", depth=6, activation="relu", normalization="batch")
    entry = module.hidden[0](images().view(-1, 1, 28, 28))
    for first, second in ((module.hidden[1], module.hidden[2]), (module.hidden[3], module.hidden[4])):
        skipped = entry if first is module.hidden[1] else entry[:, :, ::2, ::2]
        assert second.normalization is not None
        entry = torch.relu(second.normalization(second.layer(first(entry))) + skipped)
    torch.testing.assert_close(module(images()), module.output(entry.mean((2, 3))), rtol=0, atol=0)


def test_dropout_is_after_the_activation_and_only_in_training() -> None:
    module = built(depth=2, width=50, activation="sigmoid", dropout=0.5)
    hidden = module.hidden[0]
    trained = hidden(images())
    kept = trained != 0
    assert 0.3 < float(kept.double().mean()) < 0.7
    torch.testing.assert_close(trained[kept], 2 * torch.sigmoid(hidden.layer(images()))[kept])
    module.eval()
    assert torch.equal(hidden(images()), torch.sigmoid(hidden.layer(images())))


@pytest.mark.parametrize(("name", "convolution"), list(itertools.product(["batch", "layer", "rms"], [False, True])))
def test_normalizations_normalize_over_their_axes(name: Any, convolution: bool) -> None:
    module = normalization(name, 5, convolution)
    entry = 3 + 2 * torch.randn(6, 5, *([4, 4] if convolution else []), generator=torch.Generator().manual_seed(1))
    over = ((0, 2, 3) if name == "batch" else (1, 2, 3)) if convolution else ((0,) if name == "batch" else (1,))
    output = module(entry).detach()
    squares = output.square().mean(over)
    torch.testing.assert_close(squares, torch.ones_like(squares), atol=1e-3, rtol=0)
    centered = bool(output.mean(over).abs().max() < 1e-5)
    assert centered == (name != "rms")
    with torch.no_grad():
        module.weight.copy_(torch.arange(1.0, 6.0))
    scale = torch.arange(1.0, 6.0).view(-1, *[1] * (entry.dim() - 2))
    torch.testing.assert_close(module(entry), output * scale)


def test_rms_equals_torchs_and_keeps_half_types_from_overflowing() -> None:
    entry = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(RMSNorm(5)(entry), nn.RMSNorm(5, eps=1e-5)(entry))
    large = torch.full((1, 5), 60000.0, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(5)(large), torch.ones(1, 5))


@pytest.mark.parametrize("kind", ["conv", "resnet"])
def test_weights_are_the_seeds_and_leave_the_global_generator_alone(kind: str) -> None:
    before = torch.get_rng_state()
    first, again = (built(kind=kind, dropout=0.2, normalization="batch") for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_the_modules_in_the_lists_are_the_networks_own() -> None:
    module = built(kind="resnet", depth=4, activation="prelu", normalization="rms")
    owned = {id(parameter) for parameter in module.parameters()}
    listed = [parameter for part in [*module.layers, *module.activations] for parameter in part.parameters()]
    assert {id(parameter) for parameter in listed} < owned
    assert len(owned) == len(listed) + 3
