"""Gradients kept within bounds, in place, between the backward pass and the optimizer's step."""

from collections.abc import Sequence

from torch import nn

from gradprobe.spec import Clipping, NormClipping


def clip(clipping: Clipping, parameters: Sequence[nn.Parameter]) -> None:
    """By the global norm over all parameters, or element by element."""
    if isinstance(clipping, NormClipping):
        nn.utils.clip_grad_norm_(parameters, clipping.max_norm, foreach=True)
    else:
        nn.utils.clip_grad_value_(parameters, clipping.max_value, foreach=True)
