"""Optimizers from a spec: torch's own, in their fused form, which does one call a step instead of one a tensor."""

from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from gradprobe.spec import SGD, AnyOptimizer


def build(
    spec: AnyOptimizer,
    parameters: Iterable[nn.Parameter],
    spared: Iterable[nn.Parameter] = (),
    steps_are_skipped: bool = False,
) -> optim.Optimizer:
    """The optimizer, with torch's default for every coefficient that the spec does not name.

    Those of the parameters that are `spared` are trained without weight decay. `steps_are_skipped` says that a loss
    scaler will skip steps.
    """
    groups = _groups(list(parameters), list(spared))
    common: dict[str, Any] = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if isinstance(spec, SGD):
        # Fused SGD (torch 2.13) starts from a momentum that it never wrote when its first step is skipped.
        form = {"foreach": True} if steps_are_skipped else {"fused": True}
        return optim.SGD(groups, momentum=spec.momentum, nesterov=spec.nesterov, **form, **common)
    if spec.name == "rmsprop":
        return optim.RMSprop(groups, foreach=True, **common)
    kind = optim.AdamW if spec.name == "adamw" else optim.Adam
    return kind(groups, fused=True, **common)


def _groups(parameters: list[nn.Parameter], spared: list[nn.Parameter]) -> list[dict[str, Any]]:
    known = {id(parameter) for parameter in spared}
    decayed = {"params": [parameter for parameter in parameters if id(parameter) not in known]}
    return [decayed, {"params": spared, "weight_decay": 0.0}] if spared else [decayed]
