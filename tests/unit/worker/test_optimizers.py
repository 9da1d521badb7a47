"""Each optimizer against torch's plain implementation of the same, one tensor at a time."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import nn, optim

from gradprobe.spec import Spec
from worker import optimizers

Make = Callable[[Iterable[nn.Parameter]], optim.Optimizer]
PLAIN: dict[str, Any] = {"foreach": False, "fused": False}
CASES: list[tuple[dict[str, Any], Make]] = [
    ({"name": "sgd"}, lambda p: optim.SGD(p, lr=0.05, **PLAIN)),
    ({"name": "sgd", "weight_decay": 0.1}, lambda p: optim.SGD(p, lr=0.05, weight_decay=0.1, **PLAIN)),
    ({"name": "sgd", "momentum": 0.9}, lambda p: optim.SGD(p, lr=0.05, momentum=0.9, **PLAIN)),
    (
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, **PLAIN),
    ),
    ({"name": "adam"}, lambda p: optim.Adam(p, lr=0.05, **PLAIN)),
    ({"name": "adam", "weight_decay": 0.1}, lambda p: optim.Adam(p, lr=0.05, weight_decay=0.1, **PLAIN)),
    ({"name": "adamw", "weight_decay": 0.0}, lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.0, **PLAIN)),
    ({"name": "adamw", "weight_decay": 0.1}, lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.1, **PLAIN)),
    ({"name": "rmsprop"}, lambda p: optim.RMSprop(p, lr=0.05, foreach=False)),
    ({"name": "rmsprop", "weight_decay": 0.1}, lambda p: optim.RMSprop(p, lr=0.05, weight_decay=0.1, foreach=False)),
]


def parameters(make: Make, steps: int = 12) -> list[torch.Tensor]:
    """After some steps from the same start along the same gradients."""
    generator = torch.Generator().manual_seed(0)
    trained = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 4), (6,), (1,))]
    optimizer = make(trained)
    for _ in range(steps):
        for parameter in trained:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return [parameter.detach() for parameter in trained]


def built(document: dict[str, Any]) -> Make:
    spec = Spec.model_validate({"optimizer": {"learning_rate": 0.05, **document}})
    return lambda given: optimizers.build(spec.optimizer, given)


@pytest.mark.parametrize(("document", "plain"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else "")
def test_it_steps_like_torchs_plain_one(document: dict[str, Any], plain: Make) -> None:
    for actual, expected in zip(parameters(built(document)), parameters(plain), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


class _WithRate:
    """An optimizer that is stepped as a captured step does it."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self._step = optimizers.Stepping(optimizer, torch.tensor(0.05))

    def step(self) -> None:
        self._step.prepare()
        self._step()


@pytest.mark.parametrize(("document", "plain"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else "")
def test_so_it_does_with_its_rate_in_a_tensor(document: dict[str, Any], plain: Make) -> None:
    def make(given: Iterable[nn.Parameter]) -> Any:
        return _WithRate(built(document)(given))

    for actual, expected in zip(parameters(make), parameters(plain), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_what_is_spared_is_trained_without_weight_decay(name: str) -> None:
    """PReLU's slopes: decay would make them zero, and PReLU a ReLU."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(3, generator=generator)

    def trained(decay: float, spare: bool) -> torch.Tensor:
        weight, slope = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        spec = Spec.model_validate({"optimizer": {"name": name, "learning_rate": 0.01, "weight_decay": decay}})
        optimizer = optimizers.build(spec.optimizer, [weight, slope], [slope] if spare else [])
        for _ in range(5):
            weight.grad, slope.grad = gradient.clone(), gradient.clone()
            optimizer.step()
        return torch.stack([weight, slope]).detach()

    alone, decayed, spared = trained(0.0, False), trained(0.5, False), trained(0.5, True)
    assert torch.equal(spared, torch.stack([decayed[0], alone[1]]))
    assert not torch.allclose(decayed[1], alone[1], rtol=1e-4)


def test_the_cases_are_different_optimizers() -> None:
    """adamw without decay is adam; every other pair must part, or the comparison above could not fail."""
    ends = [parameters(plain)[0] for _, plain in CASES]
    same = [
        (a, b) for a in range(len(ends)) for b in range(a) if torch.allclose(ends[a], ends[b], rtol=1e-3, atol=1e-4)
    ]
    assert same == [(6, 4)]
