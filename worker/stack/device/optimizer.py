"""The optimizer's step of all members, each with its own learning rate, weight decay and clipping.

The formulas of `worker.stack.steps`, with torch's coefficients. Whatever changes from step to step, learning rates and
the corrections of Adam's moments, is on the device beforehand, so that a step can be captured.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.spec import SGD, Clipping, NormClipping, Spec, ValueClipping

#: What a step takes from `coefficients`, a row [M] each.
RATE, SCALE, KEPT = range(3)
_FIRST_DECAY, _SECOND_DECAY, _SMOOTHING, _EPSILON = 0.9, 0.999, 0.99, 1e-8


def coefficients(
    specs: Sequence[Spec], rates: npt.NDArray[np.float64], done: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Of the next A steps [A, 3, M], computed in float64 from rates [A, M], of members that have done so many [M].

    They are what a step's slope is multiplied by, what Adam multiplies the root of its second moment by, and what
    decoupled weight decay leaves of a parameter.
    """
    number = (done + np.arange(1, len(rates) + 1)[:, None]).astype(np.float64)
    decays = np.array([spec.optimizer.weight_decay for spec in specs])
    adaptive = specs[0].optimizer.name in ("adam", "adamw")
    used = rates / (1.0 - _FIRST_DECAY**number) if adaptive else rates
    scales = 1.0 / np.sqrt(1.0 - _SECOND_DECAY**number)
    return np.stack([used, scales, 1.0 - rates * decays], axis=1).astype(np.float32)


class DeviceOptimizer:
    """Of parameters and gradients [M, P] with slots [S, M, P]; one kind of optimizer for all."""

    def __init__(
        self, specs: Sequence[Spec], parameters: Tensor, gradients: Tensor, slots: Tensor, spared: int
    ) -> None:
        self._kind = specs[0].optimizer
        self._parameters, self._gradients, self._slots = parameters, gradients, slots
        self._decayed = parameters.shape[1] - spared
        clippings = [spec.gradient_clipping for spec in specs]
        self._by_norm = any(isinstance(one, NormClipping) for one in clippings)
        self._by_value = any(isinstance(one, ValueClipping) for one in clippings)
        on = parameters.device
        self._decays = torch.tensor([[spec.optimizer.weight_decay] for spec in specs], device=on)
        self._decays_any = any(spec.optimizer.weight_decay for spec in specs)
        self._norms = torch.tensor([[_norm(one)] for one in clippings], dtype=torch.float64, device=on)
        self._values = torch.tensor([[_value(one)] for one in clippings], device=on)

    @property
    def clips(self) -> bool:
        """Whether any member's gradients are clipped."""
        return self._by_norm or self._by_value

    def clip(self) -> None:
        """Bound the gradients of those that are clipped, as `torch.nn.utils.clip_grad_*_` do it."""
        gradients = self._gradients
        if self._by_norm:
            norms = gradients.double().square_().sum(1, keepdim=True).sqrt_()
            # Where the norm is NaN, that is what the gradients become; but not of those that are not clipped.
            shares = (self._norms / (norms + 1e-6)).clamp(max=1.0)
            gradients.mul_(torch.where(self._norms.isinf(), 1.0, shares).float())
        if self._by_value:
            torch.clamp(gradients, -self._values, self._values, out=gradients)

    def step(self, found: Tensor) -> None:
        """One step with this step's `coefficients` [3, M]."""
        rates, scales, kept = found[RATE, :, None], found[SCALE, :, None], found[KEPT, :, None]
        parameters, gradients, kind = self._parameters, self._gradients, self._kind
        if self._decays_any:
            self._decay(kept, decoupled=kind.name == "adamw")
        if isinstance(kind, SGD):
            parameters.sub_(rates * self._slope(kind))
        elif kind.name == "rmsprop":
            (squares,) = self._slots
            squares.mul_(_SMOOTHING).addcmul_(gradients, gradients, value=1.0 - _SMOOTHING)
            parameters.sub_((rates * gradients).div_(squares.sqrt().add_(_EPSILON)))
        else:
            first, second = self._slots
            first.lerp_(gradients, 1.0 - _FIRST_DECAY)
            second.mul_(_SECOND_DECAY).addcmul_(gradients, gradients, value=1.0 - _SECOND_DECAY)
            parameters.sub_((rates * first).div_(second.sqrt().mul_(scales).add_(_EPSILON)))

    def _decay(self, kept: Tensor, decoupled: bool) -> None:
        parameters, gradients = self._parameters[:, : self._decayed], self._gradients[:, : self._decayed]
        if decoupled:  # Loshchilov & Hutter 2019; where nothing is decayed, all is kept
            parameters.mul_(kept)
        else:
            # A member without decay must not get 0 · ∞.
            gradients.add_(torch.where(self._decays != 0.0, self._decays * parameters, 0.0))

    def _slope(self, kind: SGD) -> Tensor:
        if not kind.momentum:
            return self._gradients
        (velocity,) = self._slots
        velocity.mul_(kind.momentum).add_(self._gradients)
        return torch.add(self._gradients, velocity, alpha=kind.momentum) if kind.nesterov else velocity


def _norm(clipping: Clipping | None) -> float:
    return clipping.max_norm if isinstance(clipping, NormClipping) else float("inf")


def _value(clipping: Clipping | None) -> float:
    return clipping.max_value if isinstance(clipping, ValueClipping) else float("inf")
