"""Observing must not change what is observed, and must leave nothing behind."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from gradprobe.probe import attach
from tests.unit.gradprobe.probe.chains import (
    ACTIVATIONS,
    EVERYTHING,
    Chain,
    Loop,
    Optimizer,
    assert_same,
    batch_at,
    measure,
    probed,
)

STEPS = 55
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, foreach=True),
}


def train_with(chain: Chain, optimizer: Optimizer) -> list[float]:
    with probed(chain, optimizer=optimizer) as (loop, probe):
        for number in range(STEPS):
            loop.step()
            if number % 20 == 7:
                probe.drain()
    return loop.losses


def train_without(chain: Chain, optimizer: Optimizer) -> list[float]:
    loop = Loop(chain, optimizer=optimizer)
    for _ in range(STEPS):
        loop.step()
    return loop.losses


def bits(chain: Chain) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in chain.parameters())


@pytest.mark.parametrize(
    ("activation", "optimizer"),
    [*((activation, "adam") for activation in ACTIVATIONS), *(("prelu", optimizer) for optimizer in OPTIMIZERS)],
)
def test_a_probe_changes_no_bit_of_losses_or_parameters(activation: str, optimizer: str) -> None:
    watched, alone = Chain(activation), Chain(activation)
    losses = train_with(watched, OPTIMIZERS[optimizer])
    assert losses == train_without(alone, OPTIMIZERS[optimizer])
    assert losses[0] != losses[-1]
    assert bits(watched) == bits(alone)


def test_random_numbers_are_left_alone() -> None:
    """A network with dropout draws at every step: one number more or less would change each loss that follows."""
    losses = []
    for train in (train_with, train_without):
        torch.manual_seed(3)
        losses.append(train(Chain("relu", dropout=0.3), OPTIMIZERS["adam"]))
    assert losses[0] == losses[1]
    before = torch.get_rng_state(), random.getstate()
    measure(Chain("gelu"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def hooks_of(module: nn.Module) -> Iterator[object]:
    for part in module.modules():
        for name, value in vars(part).items():
            if "hook" in name:
                yield from value if isinstance(value, dict) else [value] if value else []
    for parameter in module.parameters():
        yield from parameter._backward_hooks or ()
        yield from getattr(parameter, "_post_accumulate_grad_hooks", None) or ()


def test_hooks_are_there_inside_the_block_and_gone_after_it() -> None:
    chain = Chain("silu")
    with probed(chain) as (loop, _):
        assert len(list(hooks_of(chain))) == len(chain.layers) + len(chain.activations)
        loop.step()
    assert not list(hooks_of(chain))


def test_hooks_are_gone_when_the_block_raises() -> None:
    chain = Chain()

    def fail() -> None:
        with probed(chain) as (loop, _):
            loop.step()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(hooks_of(chain))


def test_a_probe_that_cannot_be_attached_leaves_no_hook() -> None:
    chain = Chain()
    chain.layers[2].requires_grad_(False)
    with pytest.raises(Exception, match="layer3"), probed(chain):
        pass
    assert not list(hooks_of(chain))


def test_a_users_own_hooks_survive() -> None:
    chain, calls = Chain(), []
    chain.layers[0].register_forward_hook(lambda *_: calls.append(1))
    measure(chain, steps=4)
    assert len(calls) == 4
    assert len(list(hooks_of(chain))) == 1


def test_two_probes_at_once_see_the_same() -> None:
    chain = Chain("elu")
    with probed(chain) as (loop, outer):
        with attach(chain.taps(), EVERYTHING, list(chain.parameters())) as inner:
            loop.probes.append(inner)
            for _ in range(6):
                loop.step()
            both = outer.drain(), inner.drain()
            loop.probes.remove(inner)
        assert_same(*both)
        assert_same(both[0], measure(Chain("elu"), steps=6))
        loop.step()
        assert outer.drain().steps.tolist() == [6]
    assert not list(hooks_of(chain))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_in_between_is_not_measured(mode: Callable[[], torch.no_grad]) -> None:
    chain = Chain("gelu")
    with probed(chain) as (loop, probe):
        for number in range(6):
            with mode():
                chain(batch_at(1000 + number, size=17)[0])
            loop.step()
        measured = probe.drain()
    assert_same(measured, measure(Chain("gelu"), steps=6))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_evaluation_inside_a_step_is_not_measured_either(mode: Callable[[], torch.no_grad]) -> None:
    chain = Chain("silu")

    def evaluate() -> None:
        with mode():
            chain(batch_at(99, size=17)[0])

    with probed(chain) as (loop, probe):
        loop.between = evaluate
        for _ in range(4):
            loop.step()
        measured = probe.drain()
    assert_same(measured, measure(Chain("silu"), steps=4))


def test_what_is_not_armed_costs_no_capture() -> None:
    chain = Chain()
    with probed(chain) as (loop, probe):
        loop.probes.clear()
        for _ in range(3):
            loop.step()
        drained = probe.drain()
    assert drained.steps.tolist() == []
    assert not drained.statistics
    assert not drained.counts
