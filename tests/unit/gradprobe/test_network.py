"""Kinds of network: the shapes of their layers, how much they are, and the combinations that mean nothing."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from gradprobe.spec import Network, Spec
from gradprobe.store.experiments import layers_of


def refusal(**document: Any) -> tuple[str, str, str]:
    """(type, dotted place, message) of the one fault found."""
    with pytest.raises(ValidationError) as caught:
        Spec.model_validate_json(json.dumps(document))
    [error] = caught.value.errors()
    return error["type"], ".".join(str(part) for part in error["loc"]), error["msg"]


def strides(kind: str, depth: int) -> list[int]:
    return [layer.stride for layer in Network.model_validate({"kind": kind, "depth": depth}).layers]


def test_convolutions_halve_the_image_twice_at_a_third_and_two_thirds_of_their_depth() -> None:
    network = Network(kind="conv", depth=7, width=5)
    assert network.layer_shapes == [(5, 1, 3, 3), *[(5, 5, 3, 3)] * 5, (10, 5)]
    assert [layer.output_shape for layer in network.layers] == [
        (5, 28, 28),
        (5, 28, 28),
        (5, 14, 14),
        (5, 14, 14),
        (5, 7, 7),
        (5, 7, 7),
        (10,),
    ]
    assert strides("conv", 7) == [1, 1, 2, 1, 2, 1, 1]


@pytest.mark.parametrize(("depth", "expected"), [(2, [1]), (3, [1, 2]), (4, [1, 2, 2]), (5, [1, 1, 2, 2])])
def test_short_stacks_halve_as_often_as_they_can(depth: int, expected: list[int]) -> None:
    assert strides("conv", depth) == [*expected, 1]


def test_a_resnet_halves_in_the_first_convolution_of_a_block() -> None:
    assert strides("resnet", 4) == [1, 1, 1, 1]
    assert strides("resnet", 6) == [1, 1, 1, 2, 1, 1]
    assert strides("resnet", 8) == [1, 1, 1, 2, 1, 2, 1, 1]
    assert strides("resnet", 14) == [1, *[1, 1] * 2, *[2, 1, 1, 1], *[2, 1, 1, 1], 1]


def test_layers_as_they_are_stored() -> None:
    spec = Spec.model_validate({"network": {"kind": "resnet", "depth": 8, "width": 3}, "training": {"batch_size": 4}})
    layers = layers_of(spec)
    assert [layer.name for layer in layers] == [f"layer{number}" for number in range(1, 9)]
    assert (layers[0].weight_shape, layers[0].output_shape) == ((3, 1, 3, 3), (4, 3, 28, 28))
    assert (layers[6].weight_shape, layers[6].output_shape) == ((3, 3, 3, 3), (4, 3, 7, 7))
    assert (layers[7].weight_shape, layers[7].output_shape) == ((10, 3), (4, 10))


def test_parameters_and_multiply_adds() -> None:
    assert Network(depth=2, width=3).parameter_count == 784 * 3 + 3 + 3 * 10 + 10
    conv = Network.model_validate({"kind": "conv", "depth": 3, "width": 2, "activation": "prelu"})
    assert conv.parameter_count == (9 * 2 + 2) + (9 * 4 + 2) + (20 + 10) + 2
    assert conv.multiply_adds == 9 * 2 * 28 * 28 + 9 * 4 * 14 * 14 + 20
    assert conv.output_count == 2 * 28 * 28 + 2 * 14 * 14 + 10
    for normalization, scales in (("batch", 2), ("layer", 2), ("rms", 1)):
        normalized = Network.model_validate({"depth": 4, "width": 3, "normalization": normalization})
        assert normalized.parameter_count == Network(depth=4, width=3).parameter_count + 3 * 3 * scales


@pytest.mark.parametrize(
    ("document", "fault", "place", "told"),
    [
        ({"kind": "conv", "depth": 1}, "depth_of_kind", "network.depth", "2 or more"),
        ({"kind": "resnet", "depth": 2}, "depth_of_kind", "network.depth", "use 4"),
        ({"kind": "resnet", "depth": 7}, "depth_of_kind", "network.depth", "use 6"),
        ({"kind": "resnet", "residual": True}, "residual_resnet", "network.residual", "leave residual out"),
        ({"residual": True, "depth": 2}, "nothing_to_skip", "network.residual", "depth of 3"),
        ({"kind": "conv", "residual": True, "depth": 2}, "nothing_to_skip", "network.residual", "depth of 3"),
        ({"normalization": "layer", "width": 1}, "normalizes_one_unit", "network.normalization", "width of 2"),
        ({"kind": "conv", "depth": 1000, "width": 100}, "too_many_parameters", "network", "lower depth or width"),
    ],
)
def test_networks_that_mean_nothing(document: dict[str, Any], fault: str, place: str, told: str) -> None:
    kind, where, message = refusal(network=document)
    assert (kind, where) == (fault, place)
    assert told in message


@pytest.mark.parametrize(
    "document",
    [
        {"residual": True, "depth": 3},
        {"residual": True, "depth": 2, "width": 784},
        {"kind": "conv", "residual": True, "depth": 3},
        {"kind": "resnet"},
        {"normalization": "batch", "dropout": 0.5, "depth": 1},
        {"kind": "conv", "normalization": "layer", "width": 1},
        {"normalization": "rms", "width": 1},
    ],
)
def test_networks_near_the_edge(document: dict[str, Any]) -> None:
    assert Network.model_validate(document).model_dump()["depth"] == document.get("depth", 6)


def test_batch_normalization_of_one_sample_is_refused_where_nothing_else_varies() -> None:
    kind, place, message = refusal(network={"normalization": "batch"}, training={"batch_size": 1})
    assert (kind, place) == ("batch_of_one", "training.batch_size")
    assert "2 or more" in message
    for network in ({"kind": "conv", "normalization": "batch"}, {"depth": 1, "normalization": "batch"}):
        Spec.model_validate({"network": network, "training": {"batch_size": 1}})


def test_outputs_of_one_batch_are_bounded() -> None:
    network = {"kind": "conv", "depth": 30, "width": 64}
    kind, place, message = refusal(network=network, training={"batch_size": 5000})
    assert (kind, place) == ("too_many_outputs", "training.batch_size")
    assert "1,000,000,000" in message
    Spec.model_validate({"network": network, "training": {"batch_size": 500}})
