"""The optimizer's step of all members, each with its own learning rate, weight decay and clipping.

The formulas of `worker.stack.steps`, with torch's coefficients. Whatever changes from step to step, learning rates and
counts of steps, is on the device beforehand, so that a step can be captured. What a step of so many parameters takes is
how often it goes through their memory: Adam's is torch's fused kernel, which knows one learning rate and no more.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.spec import SGD, Clipping, NormClipping, Spec, ValueClipping

#: What a step takes from `coefficients`, a row [M] each.
RATE, KEPT = range(2)
_FIRST_DECAY, _SECOND_DECAY, _SMOOTHING, _EPSILON = 0.9, 0.999, 0.99, 1e-8


def coefficients(specs: Sequence[Spec], rates: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Of the next A steps [A, 2, M], computed in float64 from rates [A, M].

    They are the rates, and what decoupled weight decay leaves of a parameter.
    """
    decays = np.array([spec.optimizer.weight_decay for spec in specs])
    return np.stack([rates, 1.0 - rates * decays], axis=1).astype(np.float32)


class DeviceOptimizer:
    """Of parameters and gradients [M, P] with slots [S, M, P]; one kind of optimizer for all.

    Members have `done` so many steps before.
    """

    def __init__(
        self,
        specs: Sequence[Spec],
        parameters: Tensor,
        gradients: Tensor,
        slots: Tensor,
        spared: int,
        done: Sequence[int],
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
        adaptive = self._kind.name in ("adam", "adamw")
        self._moved = torch.zeros_like(parameters) if adaptive else torch.empty(0)
        self._counts = torch.tensor(done, dtype=torch.float32, device=on)
        tensors = [self._moved, gradients, *slots] if adaptive else []
        alike = len(set(done)) == 1
        # As few tensors as there are counts of steps: one, mostly.
        self._adam = [[one] if alike else list(one.unbind()) for one in tensors]
        self._steps = [self._counts[0]] if alike else list(self._counts.unbind())

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
        """One step with this step's `coefficients` [2, M]."""
        rates, kept = found[RATE, :, None], found[KEPT, :, None]
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
            parameters.addcmul_(rates, self._move())

    def _move(self) -> Tensor:
        """Where Adam moves all parameters with a rate of 1, from nowhere: [M, P]."""
        self._counts.add_(1)
        self._moved.zero_()
        moved, gradients, first, second = self._adam
        torch._fused_adam_(
            moved,
            gradients,
            first,
            second,
            [],
            self._steps,
            lr=1.0,
            beta1=_FIRST_DECAY,
            beta2=_SECOND_DECAY,
            weight_decay=0.0,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )
        return self._moved

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
