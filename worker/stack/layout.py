"""Where the parameters of one member lie in its row [P]: layer after layer, weights [inputs, outputs], then bias.

Then come normalizations' scales and shifts, and at the end PReLU's slopes, which weight decay spares. Statistics do not
ask in which order a layer's weights are; inputs come first because that is how the first layer's kernel reads them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gradprobe.spec import Network, PReLU
from worker.network.layers import Classifier
from worker.stack.vectors import UNITS

Parts = Mapping[str, Tensor]

_ALIGNED: Final = 16  # float32


@dataclass(frozen=True, slots=True)
class Part:
    """One parameter: its place in the row, and its shape."""

    name: str
    shape: tuple[int, ...]
    start: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.start + math.prod(self.shape)


class Layout:
    """The parts of a network's row, by name: `weight1`, `bias1`, …, `scale1`, `shift1`, …, `slope1`, …"""

    def __init__(self, network: Network) -> None:
        shapes = dict(_shapes(network))
        starts = accumulate((math.prod(shape) for shape in shapes.values()), initial=0)
        self.parts = [Part(name, shape, start) for (name, shape), start in zip(shapes.items(), starts, strict=False)]
        used = self.parts[-1].end
        #: Rows begin where cache lines do: how far a matrix is from there decides how its product is rounded.
        self.size = -(-used // _ALIGNED) * _ALIGNED
        self.layers = network.depth
        #: How many at the end are not decayed.
        self.spared = self.size - used + sum(math.prod(p.shape) for p in self.parts if p.name.startswith("slope"))

    def start(self, number: int) -> int:
        """Where the weights of layer `number`, from 1, begin; its bias follows them."""
        return self.parts[2 * (number - 1)].start

    def units(self, number: int) -> int:
        """How many units that layer has."""
        return self.parts[2 * (number - 1)].shape[-1]

    def table(self, inputs: int) -> npt.NDArray[np.float32]:
        """Room for the kernels to compute any layer, for images of so many pixels."""
        most = max(inputs, *(max(part.shape) for part in self.parts))
        return torch.zeros(
            most, UNITS
        ).numpy()  # torch's memory begins where a cache line does, and so each row lies in one

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Of rows [M, P] each part as [M, …], a bias as [M, 1, U]; the same memory."""
        return {part.name: rows[:, part.start : part.end].unflatten(1, part.shape) for part in self.parts}

    def weights_first(self, row: Tensor) -> list[Tensor]:
        """Of a row [P] the layers' weights, then all other parts; each flat, the same memory."""
        parts = sorted(self.parts, key=lambda part: not part.name.startswith("weight"))
        return [row[part.start : part.end] for part in parts]

    def row_of(self, module: Classifier) -> Tensor:
        """A network's parameters as a row [P]."""
        given = dict(_parameters(module))
        row = torch.zeros(self.size)
        for part in self.parts:
            row[part.start : part.end] = given[part.name].detach().reshape(-1)
        return row


def _shapes(network: Network) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = range(1, network.depth)
    for number, layer in enumerate(network.layers, 1):
        outputs, inputs = layer.weight_shape
        yield f"weight{number}", (inputs, outputs)
        yield f"bias{number}", (1, outputs)
    for number in hidden:
        if network.normalization != "none":
            yield f"scale{number}", (1, network.width)
        if network.normalization in ("batch", "layer"):
            yield f"shift{number}", (1, network.width)
    for number in hidden:
        if isinstance(network.activation, PReLU):
            yield f"slope{number}", (1, 1)


def _parameters(module: Classifier) -> Iterator[tuple[str, Tensor]]:
    for number, layer in enumerate(module.layers, 1):
        yield f"weight{number}", layer.weight.t()
        assert isinstance(layer.bias, Tensor), "every weight layer has a bias"  # noqa: S101 - a fact of `builders`
        yield f"bias{number}", layer.bias
    for number, hidden in enumerate(module.hidden, 1):
        if hidden.normalization is not None:
            for name, kind in (("weight", "scale"), ("bias", "shift")):
                found = getattr(hidden.normalization, name, None)
                if isinstance(found, Tensor):
                    yield f"{kind}{number}", found
        if isinstance(hidden.activation, nn.PReLU):
            yield f"slope{number}", hidden.activation.weight
