"""Optimizers from a spec: torch's own, in their fused form, which does one call a step instead of one a tensor."""

from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from gradprobe.spec import SGD, AnyOptimizer


def build(spec: AnyOptimizer, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The optimizer, with torch's default for every coefficient that the spec does not name."""
    common: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if isinstance(spec, SGD):
        return optim.SGD(parameters, momentum=spec.momentum, nesterov=spec.nesterov, fused=True, **common)
    if spec.name == "rmsprop":
        return optim.RMSprop(parameters, foreach=True, **common)
    kind = optim.AdamW if spec.name == "adamw" else optim.Adam
    return kind(parameters, fused=True, **common)
