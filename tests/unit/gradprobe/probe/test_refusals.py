"""What can't be measured without changing it is refused in words, never measured wrongly."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradprobe.errors import UnsupportedModule
from gradprobe.probe import Recording, Tap, attach
from tests.unit.gradprobe.probe.chains import EVERYTHING, Chain, Loop, assert_same, batch_at, measure, probed


def forward_backward(loop: Loop, size: int = 6) -> None:
    images, labels = batch_at(0, size=size)
    nn.functional.cross_entropy(loop.chain(images), labels).backward()


class Twice(Chain):
    """Uses its middle layer twice."""

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.layers[1](torch.relu(self.layers[0](hidden)))
        logits: Tensor = self.layers[2](self.layers[1](hidden))
        return logits


def test_a_layer_used_twice_in_a_step() -> None:
    with (
        probed(Twice(sizes=(5, 4, 4, 3))) as (loop, _),
        pytest.raises(UnsupportedModule, match="layer2 runs more than"),
    ):
        loop.step()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_one_activation_after_two_layers(activation: str) -> None:
    shared = {"relu": nn.ReLU, "gelu": nn.GELU}[activation]()
    chain = Chain(activation, make=lambda: shared)
    with probed(chain) as (loop, _), pytest.raises(UnsupportedModule, match="give each its own"):
        loop.step()


def test_a_frozen_layer() -> None:
    chain = Chain()
    chain.layers[1].requires_grad_(False)
    with pytest.raises(UnsupportedModule, match="layer2 has no trainable weight"), probed(chain):
        pass


def test_a_module_without_weight() -> None:
    with (
        pytest.raises(UnsupportedModule, match="relu has no trainable weight"),
        attach([Tap("relu", nn.ReLU())], EVERYTHING),
    ):
        pass


def test_nothing_to_measure() -> None:
    with pytest.raises(UnsupportedModule, match="no layer"), attach([], EVERYTHING):
        pass


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_that_are_not_float32(dtype: torch.dtype) -> None:
    with pytest.raises(UnsupportedModule, match=str(dtype)), probed(Chain().to(dtype)):
        pass


def test_a_parameter_without_gradient() -> None:
    chain = Chain()
    chain.unused = nn.Parameter(torch.zeros(3))
    with probed(chain) as (loop, _), pytest.raises(UnsupportedModule, match="got no gradient"):
        loop.step()


def test_a_frozen_parameter_beside_the_layers_is_left_out() -> None:
    chain = Chain()
    chain.layers[0].bias.requires_grad_(False)
    measured = measure(chain, steps=2)
    squares = sum(float(p.grad.double().square().sum()) for p in chain.parameters() if p.grad is not None)
    assert measured.gradient_norm[1] == pytest.approx(squares**0.5, rel=1e-6)


@pytest.mark.parametrize("tensors", [("weight_gradients",), ("output_gradients",), ("activations",)])
def test_a_layer_that_takes_no_part(tensors: tuple[str, ...]) -> None:
    chain = Chain()
    recording = Recording(tensors=tensors)  # type: ignore[arg-type]  # each is a TensorName
    spare = nn.Linear(2, 2)
    with attach([*chain.taps(), Tap("spare", spare)], recording) as probe:
        probe.arm(0)
        forward_backward(Loop(chain))
        spare.weight.grad = torch.zeros(2, 2)
        with pytest.raises(UnsupportedModule, match="spare took no part"):
            probe.collect()


def test_a_full_ring() -> None:
    recording = Recording(memory_mebibytes=1)
    with probed(Chain(sizes=(5, 300, 300, 3)), recording) as (loop, probe):
        while not probe.full:
            loop.step()
        with pytest.raises(UnsupportedModule, match="drain it"):
            loop.step()
        assert probe.drain().steps.tolist() == list(range(len(loop.losses)))
        loop.step()


@pytest.mark.parametrize("size", [1, 5, 7])
def test_a_batch_of_another_size(size: int) -> None:
    with probed(Chain()) as (loop, probe):
        loop.step()
        probe.arm(1)
        forward_backward(loop, size)
        with pytest.raises(UnsupportedModule, match=f"Batches of 6 and then of {size}"):
            probe.collect()


def test_a_step_that_was_not_finished_is_not_reduced() -> None:
    with probed(Chain()) as (loop, probe):
        loop.step()
        probe.arm(1)
        probe.collect_update()
        loop.step()
        probe.arm(2)
        measured = probe.drain()
    assert_same(measured, measure(Chain(), steps=2))


IN_PLACE: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "selu": lambda: nn.SELU(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(inplace=True),
}


@pytest.mark.parametrize("activation", IN_PLACE)
def test_an_activation_that_overwrites_its_input_is_measured_alike(activation: str) -> None:
    in_place, ordinary = measure(Chain(activation, IN_PLACE[activation])), measure(Chain(activation))
    for tensor, block in in_place.statistics.items():
        # torch takes the slope of ELU and SELU from their output then, which rounds otherwise.
        np.testing.assert_allclose(block.values, ordinary.statistics[tensor].values, rtol=1e-4, atol=1e-6)
    alone = Loop(Chain(activation, IN_PLACE[activation]))
    with probed(Chain(activation, IN_PLACE[activation])) as (loop, _):
        for _ in range(8):
            loop.step()
            alone.step()
    assert loop.losses == alone.losses


def test_an_activation_that_overwrites_an_input_that_is_needed() -> None:
    chain = Chain("silu", lambda: nn.SiLU(inplace=True))
    with probed(chain) as (loop, _), pytest.raises(UnsupportedModule, match="inplace=False"):
        loop.step()
