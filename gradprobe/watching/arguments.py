"""What `watch` is given, and what is often given in its place."""

from typing import Any

from torch import nn


def check(model: Any, optimizer: Any, criterion: Any) -> None:
    """Raise TypeError for what would otherwise fail on a hook of torch's that the caller has never heard of."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, not {_kind(model)}")
    if optimizer is not None and not hasattr(optimizer, "register_step_pre_hook"):
        hint = "; give the loss module by name: criterion=…" if isinstance(optimizer, nn.Module) else ""
        raise TypeError(f"the optimizer must be a torch.optim.Optimizer, not {_kind(optimizer)}{hint}")
    if criterion is not None and not isinstance(criterion, nn.Module):
        hint = "leave it out and tell the loss by watching.record(loss=loss)"
        raise TypeError(f"the criterion must be a torch.nn.Module, not {_kind(criterion)}; {hint}")


def _kind(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
