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


class Stepping:
    """The optimizer's step with its learning rate in a tensor, so that it can be captured; the state stays its own.

    Args:
        rate: float32 [], on the parameters' device; a step reads it there.
    """

    def __init__(self, optimizer: optim.Optimizer, rate: Tensor) -> None:
        self._optimizer, self._rate = optimizer, rate
        self._prepared = False

    def prepare(self) -> None:
        """Before the first step, and not as part of a capture: make the state that the optimizer has not yet."""
        if self._prepared:
            return
        self._prepared = True
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                state = self._optimizer.state[parameter]
                for name in self._slots(group):
                    state.setdefault(name, torch.zeros_like(parameter, memory_format=torch.preserve_format))
                if "step" in state or not isinstance(self._optimizer, optim.SGD):
                    state["step"] = torch.as_tensor(state.get("step", 0.0), dtype=torch.float32).to(parameter.device)

    def _slots(self, group: dict[str, Any]) -> list[str]:
        if isinstance(self._optimizer, optim.SGD):
            return ["momentum_buffer"] if group["momentum"] else []
        return ["square_avg"] if isinstance(self._optimizer, optim.RMSprop) else ["exp_avg", "exp_avg_sq"]

    @torch.no_grad()
    def __call__(self) -> None:
        """One step, with the gradients that the parameters have."""
        for group in self._optimizer.param_groups:
            parameters = group["params"]
            gradients = [parameter.grad for parameter in parameters]
            states = [self._optimizer.state[parameter] for parameter in parameters]
            slots = [[state[name] for state in states] for name in self._slots(group)]
            if isinstance(self._optimizer, optim.SGD):
                self._descend(group, parameters, gradients, slots)
                continue
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            if isinstance(self._optimizer, optim.RMSprop):
                self._rmsprop(group, parameters, gradients, slots[0])
            else:
                self._adam(group, parameters, gradients, [*slots, [], steps])

    def _descend(self, group: dict[str, Any], parameters: Any, gradients: Any, slots: list[list[Tensor]]) -> None:
        # A first step from a momentum of zero is torch's first step.
        torch._fused_sgd_(
            parameters,
            gradients,
            slots[0] if slots else [],
            lr=self._rate,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=False,
        )

    def _rmsprop(self, group: dict[str, Any], parameters: Any, gradients: Any, squares: list[Tensor]) -> None:
        if group["weight_decay"]:
            gradients = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - group["alpha"])
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_div_(roots, -self._rate)
        torch._foreach_addcdiv_(parameters, gradients, roots)

    def _adam(self, group: dict[str, Any], parameters: Any, gradients: Any, state: Any) -> None:
        beta1, beta2 = group["betas"]
        _adam_kernel(self._optimizer)(
            parameters,
            gradients,
            *state,
            lr=self._rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


def _adam_kernel(optimizer: optim.Optimizer) -> Callable[..., None]:
    return torch._fused_adamw_ if isinstance(optimizer, optim.AdamW) else torch._fused_adam_


class _FusedAdam:
    """Its first step is torch's own, which makes the state."""

    def __init__(self, optimizer: optim.Adam) -> None:
        self._optimizer = optimizer
        self._kernel = _adam_kernel(optimizer)
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
