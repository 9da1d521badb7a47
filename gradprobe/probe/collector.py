"""What a collector takes in and gives back. Two exist: `native` for the CPU, `ring` for any device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gradprobe.blocks import CountsBlock, StatisticsBlock, Steps
from gradprobe.statistics import Tensor as TensorName


@dataclass(frozen=True, slots=True)
class Moment:
    """A step, and what is wanted of it."""

    step: int
    statistics: bool
    counts: bool


@dataclass(slots=True)
class Captured:
    """One step's tensors, one a layer, where autograd left them.

    `gradients` are of all parameters, the layers' weights first. δ is `deltas` times `delta_scale`: the batch's size,
    divided by the loss's scale where there is one. `outputs` are h = φ(z), `inputs` are what the activation got.
    `trusted`: the module's own hook points gave them, so that nothing but the optimizer changes weights.
    `lasting`: the same tensors come in every step, filled anew. `readable`: outputs and inputs are float32 and
    contiguous. Gradients are `gradients` times `gradient_scale`, which
    is not 1 where they still carry a loss scale.
    """

    gradients: list[Tensor]
    deltas: list[Tensor]
    outputs: list[Tensor]
    inputs: list[Tensor]
    delta_scale: float
    trusted: bool = False
    lasting: bool = False
    readable: bool = False
    gradient_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What was captured between two drains. `gradient_norm` float32 [S] belongs to the statistics' `steps` [S]."""

    steps: Steps
    statistics: dict[TensorName, StatisticsBlock]
    counts: dict[TensorName, CountsBlock]
    gradient_norm: npt.NDArray[np.float32]


NOTHING = Measured(np.empty(0, np.int64), {}, {}, np.empty(0, np.float32))


class Collector(Protocol):
    """Takes a step's tensors after the backward pass, and the weights after the optimizer's step."""

    @property
    def full(self) -> bool:
        """Whether it must be drained before the next step."""
        ...

    def fit(self, captured: Captured) -> None:
        """Take tensors of other sizes from now on.

        Raises:
            UnsupportedModule: for a collector that can't.
        """
        ...

    def withdraw(self) -> None:
        """Take the last step back, which will be collected anew."""
        ...

    def distrust(self) -> None:
        """Somebody other than the optimizer has changed the weights since its step."""
        ...

    def collect(self, moment: Moment, captured: Captured, weights: Sequence[Tensor]) -> None:
        """Take one step's tensors; `weights` are those that gave these gradients."""
        ...

    def collect_clipped(self, gradients: Sequence[Tensor]) -> None:
        """Take the weights' gradients of the same step as clipping left them."""
        ...

    def collect_update(self, weights: Sequence[Tensor]) -> None:
        """Take the weights after the optimizer's step."""
        ...

    def drain(self) -> Measured:
        """Everything since the last drain, on the host."""
        ...
