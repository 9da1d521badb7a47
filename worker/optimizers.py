"""Optimizers from a spec: torch's own, in their fused form, which does one call a step instead of one a tensor."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

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


def stepping(optimizer: optim.Optimizer) -> Callable[[], None]:
    """The optimizer's step, as often as it is called, without what torch does around the one kernel that matters.

    The same kernel with the same arguments on the same state, which stays the optimizer's. Of a fused Adam or AdamW;
    of any other, its own step.
    """
    if isinstance(optimizer, optim.Adam) and all(group["fused"] for group in optimizer.param_groups):
        return _FusedAdam(optimizer)
    return optimizer.step


class _FusedAdam:
    """Its first step is torch's own, which makes the state."""

    def __init__(self, optimizer: optim.Adam) -> None:
        self._optimizer = optimizer
        decoupled = isinstance(optimizer, optim.AdamW)
        self._kernel: Callable[..., None] = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self._groups: list[tuple[dict[str, Any], list[list[Tensor]]]] = []
        self._steps = torch.empty(0)

    def __call__(self) -> None:
        if not self._groups:
            self._optimizer.step()
            self._adopt()
            return
        with torch.inference_mode():
            self._steps += 1
            for group, (parameters, first, second, steps) in self._groups:
                beta1, beta2 = group["betas"]
                self._kernel(
                    parameters,
                    [parameter.grad for parameter in parameters],
                    first,
                    second,
                    [],
                    steps,
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                )

    def _adopt(self) -> None:
        # The parameters' step counts become one tensor's elements, so that counting is one call.
        state, groups = self._optimizer.state, self._optimizer.param_groups
        everyone = [parameter for group in groups for parameter in group["params"]]
        self._steps = torch.stack([state[parameter]["step"] for parameter in everyone])
        for parameter, step in zip(everyone, self._steps, strict=True):
            state[parameter]["step"] = step
        for group in groups:
            parameters = group["params"]
            columns = [[state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step")]
            self._groups.append((group, [parameters, *columns]))
