"""A user's loop, as plain as they come; the tests watch it."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

import gradprobe
from gradprobe.watching import Watching

STEPS = 12
Batch = tuple[Tensor, Tensor]


def chain(
    depth: int = 4, width: int = 8, activation: Callable[[], nn.Module] = nn.Sigmoid, inputs: int = 12
) -> nn.Module:
    """Dense layers with an activation between them, torch's own initialization, seed 0."""
    torch.manual_seed(0)
    sizes = [12, *[width] * (depth - 1)]
    modules: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        modules += [nn.Linear(before, after), activation()]
    return nn.Sequential(*modules, nn.Linear(sizes[-1], 5))


def batches(number: int = STEPS, size: int = 16, shape: tuple[int, ...] = (12,)) -> list[Batch]:
    """The same every time."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, 5, (size,), generator=generator))
        for _ in range(number)
    ]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: list[Batch]) -> list[float]:
    """The loop itself; the losses."""
    losses = []
    for images, labels in data:
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@contextmanager
def watched(model: nn.Module, **options: object) -> Iterator[tuple[Watching, torch.optim.Optimizer]]:
    """A model with a plain optimizer, watched."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradprobe.watch(model, optimizer, **options) as watching:  # type: ignore[arg-type]
        yield watching, optimizer
