"""Mixed precision: forward and backward in a half type where that is safe, float32 weights, losses scaled for float16.

float16 has no numbers below 6e-8, which is where small gradients are. So the loss, and with it every gradient, is
multiplied by a power of two before the backward pass and divided again after it. Where that overflows, the step is
skipped (its gradients, infinite or NaN, are recorded all the same) and the scale halved; after 2,000 steps without,
it is doubled.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, optim

_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
#: What changes of a scaler's state.
_SCALER = {"scale": torch.float64, "_growth_tracker": torch.int64}


class Precision:
    """The forward and backward pass of one run in the spec's precision."""

    def __init__(self, name: Literal["float32", "bfloat16", "float16"], device: torch.device) -> None:
        self._device = device.type
        self._half = _HALVES.get(name)
        self._scales = name == "float16"
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._scales)

    @property
    def skips_steps(self) -> bool:
        """Whether losses are scaled, so that a step whose gradients overflow is skipped."""
        return self._scales

    @property
    def scale(self) -> float:
        """What the next loss is multiplied by."""
        return self._scaler.get_scale() if self._scales else 1.0

    def forward(self) -> AbstractContextManager[object]:
        """Within it, operations run in the half type where that is safe."""
        return nullcontext() if self._half is None else torch.autocast(self._device, self._half)

    def backward(self, loss: Tensor, optimizer: optim.Optimizer) -> None:
        """Gradients of the loss [], unscaled."""
        self._scaler.scale(loss).backward()
        self.unscale(optimizer)

    def begin(self) -> None:
        """Before gradients are unscaled that `backward` has not scaled."""
        self._scaler.scale(torch.zeros((), device=self._device))  # a scaler makes its state when it first scales

    def unscale(self, optimizer: optim.Optimizer) -> None:
        """Undo the scale in the gradients of the optimizer's parameters, in place."""
        if self._scales:
            self._scaler.unscale_(optimizer)

    def step(self, optimizer: optim.Optimizer) -> None:
        """The optimizer's step, unless scaled gradients overflowed."""
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Tensor]:
        """The scale, a float64 [], and the steps since it changed; nothing where losses are not scaled."""
        state = self._scaler.state_dict()
        return {name: torch.tensor(state[name], dtype=kind) for name, kind in _SCALER.items() if state}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        if self.skips_steps:
            self._scaler.load_state_dict(self._scaler.state_dict() | {name: state[name].item() for name in _SCALER})
