"""Small chains of layers in plain torch, the way a user would write them, and a loop with and without a probe."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.probe import Measured, Probe, Recording, Tap, attach

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
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
BATCH, INPUTS, CLASSES = 6, 5, 3
EVERYTHING = Recording(every=1, histograms_every=1)

Optimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


def adam(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


class Chain(nn.Module):
    """`depth` dense layers with an activation after each but the last, maybe with dropout."""

    def __init__(
        self,
        name: str = "tanh",
        make: Callable[[], nn.Module] | None = None,
        sizes: Sequence[int] = (INPUTS, 7, 4, CLASSES),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.name, self.inputs = name, sizes[0]
        with torch.random.fork_rng():
            torch.manual_seed(11)
            self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activations = nn.ModuleList((make or ACTIVATIONS[name])() for _ in self.layers[1:])
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        for layer, activation in zip(self.layers, self.activations, strict=False):
            hidden = self.dropout(activation(layer(hidden)))
        logits: Tensor = self.layers[-1](hidden)
        return logits

    def taps(self) -> list[Tap]:
        slope = 0.01 if self.name == "leaky_relu" else 0.0
        hidden = [
            Tap(f"layer{number}", layer, activation, self.name, slope)
            for number, (layer, activation) in enumerate(zip(self.layers, self.activations, strict=False), start=1)
        ]
        return [*hidden, Tap(f"layer{len(self.layers)}", self.layers[-1])]


def batch_at(step: int, inputs: int = INPUTS, size: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, inputs, generator=generator), torch.randint(CLASSES, (size,), generator=generator)


class Loop:
    """Trains a chain; with a probe where one is given."""

    def __init__(self, chain: Chain, probe: Probe | None = None, optimizer: Optimizer = adam) -> None:
        self.chain = chain
        self.probes = [] if probe is None else [probe]
        self.optimizer = optimizer(list(chain.parameters()))
        self.losses: list[float] = []
        #: Called inside a step: before its forward pass, and again before its backward pass.
        self.between: Callable[[], object] = lambda: None

    def step(self) -> None:
        number = len(self.losses)
        for probe in self.probes:
            probe.arm(number)
        images, labels = batch_at(number, self.chain.inputs)
        self.between()
        loss = nn.functional.cross_entropy(self.chain(images), labels)
        self.between()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for probe in self.probes:
            probe.collect()
        self.optimizer.step()
        for probe in self.probes:
            probe.collect_update()
        self.losses.append(loss.item())


@contextmanager
def probed(
    chain: Chain, recording: Recording = EVERYTHING, optimizer: Optimizer = adam
) -> Iterator[tuple[Loop, Probe]]:
    with attach(chain.taps(), recording, list(chain.parameters())) as probe:
        yield Loop(chain, probe, optimizer), probe


def measure(chain: Chain, recording: Recording = EVERYTHING, steps: int = 8) -> Measured:
    """Train and drain whenever the ring is full, and once at the end."""
    parts = []
    with probed(chain, recording) as (loop, probe):
        for _ in range(steps):
            loop.step()
            if probe.full:
                parts.append(probe.drain())
        parts.append(probe.drain())
    return join(parts)


def join(parts: Sequence[Measured]) -> Measured:
    """Several drains as one."""
    tensors = {name for part in parts for name in part.statistics}
    counted = {name for part in parts for name in part.counts}
    return Measured(
        np.concatenate([part.steps for part in parts]),
        {name: StatisticsBlock.join([p.statistics[name] for p in parts if name in p.statistics]) for name in tensors},
        {name: CountsBlock.join([p.counts[name] for p in parts if name in p.counts]) for name in counted},
        np.concatenate([part.gradient_norm for part in parts]),
    )


def assert_same(left: Measured, right: Measured) -> None:
    """Bit for bit."""
    assert left.steps.tolist() == right.steps.tolist()
    assert left.gradient_norm.tobytes() == right.gradient_norm.tobytes()
    assert left.statistics.keys() == right.statistics.keys()
    assert left.counts.keys() == right.counts.keys()
    for name, block in left.statistics.items():
        assert block.steps.tolist() == right.statistics[name].steps.tolist()
        np.testing.assert_array_equal(block.values, right.statistics[name].values)
    for name, counts in left.counts.items():
        assert counts.steps.tolist() == right.counts[name].steps.tolist()
        np.testing.assert_array_equal(counts.dense(), right.counts[name].dense())
