"""The module that a spec describes is the one that it names, layer by layer."""

import pytest
import torch
from torch import nn

from gradprobe.spec import Network
from worker.batches import initialization_generator
from worker.network import builders

CLASSES = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "identity": nn.Identity,
}


def network(**fields: object) -> Network:
    return Network.model_validate(fields)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_shapes_and_activations(name: str, depth: int) -> None:
    spec = network(depth=depth, width=8, activation=name)
    module = builders.build(spec, initialization_generator(0))
    assert [tuple(layer.weight.shape) for layer in module.layers] == spec.layer_shapes
    assert [type(activation) for activation in module.activations] == [CLASSES[name]] * (depth - 1)
    assert len({id(activation) for activation in module.activations}) == depth - 1
    assert module(torch.zeros(3, 784)).shape == (3, 10)
    assert len(module.slopes) == (depth - 1 if name == "prelu" else 0)
    assert sum(parameter.numel() for parameter in module.parameters()) == spec.parameter_count


def test_the_forward_pass_is_the_layers_one_after_another() -> None:
    module = builders.build(network(depth=3, width=5, activation="gelu"), initialization_generator(1))
    images = torch.randn(4, 784, generator=torch.Generator().manual_seed(0))
    sequence = nn.Sequential(
        module.layers[0], module.activations[0], module.layers[1], module.activations[1], module.layers[2]
    )
    assert torch.equal(module(images), sequence(images))


def test_parameters_of_activations_are_the_specs() -> None:
    leaky = builders.build(
        network(depth=2, activation={"name": "leaky_relu", "negative_slope": 0.3}), initialization_generator(0)
    )
    assert leaky.activations[0](torch.tensor([-1.0])).item() == pytest.approx(-0.3)
    trained = builders.build(
        network(depth=2, activation={"name": "prelu", "initial_slope": 0.7}), initialization_generator(0)
    )
    assert [float(slope.detach()) for slope in trained.activations[0].parameters()] == pytest.approx([0.7])


def test_taps_name_every_layer_and_the_activation_after_it() -> None:
    spec = network(depth=3, activation={"name": "leaky_relu", "negative_slope": 0.2})
    module = builders.build(spec, initialization_generator(0))
    taps = builders.taps(module, spec)
    assert [tap.name for tap in taps] == spec.layer_names
    assert [tap.layer for tap in taps] == module.layers
    assert [tap.activation for tap in taps] == [*module.activations, None]
    assert [tap.activation_name for tap in taps] == ["leaky_relu", "leaky_relu", "identity"]
    assert [tap.negative_slope for tap in taps] == [0.2, 0.2, 0.0]


def test_devices() -> None:
    assert builders.device_of("cpu") == torch.device("cpu")
    assert builders.device_of("cuda").type == "cuda"
    assert builders.device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
