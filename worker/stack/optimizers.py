"""The optimizer's step of all members, each with its own learning rate, weight decay and clipping."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gradprobe.spec import SGD, NormClipping, Spec
from worker.stack import steps

Rates = npt.NDArray[np.float64]


class Optimizer:
    """Of parameters and gradients [M, P] with slots [S, M, P]; one kind of optimizer for all."""

    def __init__(
        self, specs: Sequence[Spec], parameters: Tensor, gradients: Tensor, slots: Tensor, spared: int
    ) -> None:
        self._kind = specs[0].optimizer
        self._parameters, self._gradients = parameters.numpy(), gradients.numpy()
        self._slots = [slot.numpy() for slot in slots]
        self._spared = spared
        self._decays = np.array([spec.optimizer.weight_decay for spec in specs])
        self._clippings = np.array([_clipping(spec) for spec in specs], np.int64)
        self._limits = np.array([_limit(spec) for spec in specs], np.float64)

    @property
    def clips(self) -> bool:
        """Whether any member's gradients are clipped."""
        return bool(self._clippings.any())

    def clip(self) -> None:
        """Bound the gradients of those that are clipped."""
        steps.clip(self._gradients, self._clippings, self._limits)

    def step(self, rates: Rates, done: npt.NDArray[np.int64]) -> None:
        """One step; rates [M], and done [M] of each member, this one counted."""
        parameters, gradients, kind = self._parameters, self._gradients, self._kind
        if kind.name == "adamw":
            steps.decay_decoupled(parameters, rates, self._decays, self._spared)
        else:
            steps.decay(parameters, gradients, self._decays, self._spared)
        if isinstance(kind, SGD):
            if kind.momentum:
                velocity = self._slots[0]
                steps.descend_with_momentum(parameters, gradients, velocity, rates, kind.momentum, kind.nesterov)
            else:
                steps.descend(parameters, gradients, rates)
        elif kind.name == "rmsprop":
            steps.rmsprop(parameters, gradients, self._slots[0], rates)
        else:
            first, second = self._slots
            steps.adam(parameters, gradients, first, second, rates, done)


def _clipping(spec: Spec) -> int:
    if spec.gradient_clipping is None:
        return steps.UNCLIPPED
    return steps.BY_NORM if isinstance(spec.gradient_clipping, NormClipping) else steps.BY_VALUE


def _limit(spec: Spec) -> float:
    clipping = spec.gradient_clipping
    if clipping is None:
        return 0.0
    return clipping.max_norm if isinstance(clipping, NormClipping) else clipping.max_value
