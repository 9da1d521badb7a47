"""Clipping against its definition in float64; that the loop applies it is seen in `tests/numerics/test_remedies.py`."""

import math

import pytest
import torch
from torch import Tensor, nn

from gradprobe.spec import NormClipping, ValueClipping
from worker.clipping import clip


def parameters(scale: float) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.zeros(shape)) for shape in ((4, 3), (3,), (1,))]
    for parameter in made:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return made


def gradients(of: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in of if parameter.grad is not None]).double()


@pytest.mark.parametrize("maximum", [0.1, 3.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_by_norm(scale: float, maximum: float) -> None:
    clipped, before = parameters(scale), gradients(parameters(scale))
    clip(NormClipping(max_norm=maximum), clipped)
    norm = math.sqrt(float(before.square().sum()))
    torch.testing.assert_close(gradients(clipped), before * min(1.0, maximum / norm), rtol=1e-4, atol=0)


@pytest.mark.parametrize("maximum", [0.1, 3.0])
def test_by_value(maximum: float) -> None:
    clipped, before = parameters(2.0), gradients(parameters(2.0))
    clip(ValueClipping(max_value=maximum), clipped)
    assert torch.equal(gradients(clipped), before.clamp(-maximum, maximum).float().double())
