"""Normalizations of a weight layer's outputs. Scales start at 1, shifts at 0.

Of dense outputs [B, U]: `batch` over B, `layer` and `rms` over U. Of a convolution's [B, C, H, W]: `batch` over B, H
and W, `layer` and `rms` over C, H and W, with one scale and shift a channel.
"""

from typing import Literal

import torch
from torch import Tensor, nn

_EPSILON = 1e-5


class RMSNorm(nn.Module):
    """x / √(mean x² + ε), times a scale a unit or channel (Zhang & Sennrich 2019).

    torch's own knows no channels, and warns where autocast hands it a half type.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        """[B, U] or [B, C, H, W] → float32 of the same shape; in float16 squares would overflow."""
        wide = x.float()
        over = tuple(range(1, wide.dim()))
        normalized = wide * (wide.square().mean(over, keepdim=True) + _EPSILON).rsqrt()
        return normalized * self.weight.view(-1, *[1] * (wide.dim() - 2))


def normalization(name: Literal["batch", "layer", "rms"], units: int, convolution: bool) -> nn.Module:
    """The module for outputs of so many units or channels."""
    match name:
        case "batch":
            return nn.BatchNorm2d(units, _EPSILON) if convolution else nn.BatchNorm1d(units, _EPSILON)
        case "layer":
            return nn.GroupNorm(1, units, _EPSILON) if convolution else nn.LayerNorm(units, _EPSILON)
        case "rms":
            return RMSNorm(units)
