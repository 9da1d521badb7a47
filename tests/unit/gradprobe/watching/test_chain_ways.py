"""A watched chain in the hands of torch's transformations, tracers and modes: what it gave before."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from tests.unit.gradprobe.watching.loops import batches, chain, watched


def _compiled(model: nn.Module, images: Tensor) -> Tensor:
    torch._dynamo.reset()
    found: Tensor = torch.compile(model, backend="eager")(images)
    return found


def _half(model: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        found: Tensor = model(images)
    return found


def _saved_elsewhere(model: nn.Module, images: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        found: Tensor = model(images)
    return found


def _forward_derivative(model: nn.Module, images: Tensor) -> Tensor:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(images, torch.ones_like(images))
        return forward_ad.unpack_dual(model(dual)).tangent


def _in_a_mode(model: nn.Module, images: Tensor) -> Tensor:
    with torch.device("cpu"):
        found: Tensor = model(images)
    return found


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize(
    "way",
    [
        lambda model, images: torch.func.vmap(model)(images.unsqueeze(1)).squeeze(1),
        lambda model, images: torch.func.functional_call(model, dict(model.named_parameters()), images),
        lambda model, images: torch.func.jvp(model, (images,), (torch.ones_like(images),))[1],
        lambda model, images: checkpoint(model, images, use_reentrant=False),
        lambda model, images: torch.jit.trace(model, images)(images),
        _compiled,
        _half,
        _saved_elsewhere,
        _forward_derivative,
        _in_a_mode,
    ],
)
def test_whoever_runs_it_in_another_way_gets_what_it_gave(way: Callable[[nn.Module, Tensor], Tensor]) -> None:
    images = batches(1)[0][0]
    expected = way(chain(), images)
    model = chain()
    with watched(model):
        model(images)  # its graph tells what it is
        found = way(model, images)
        assert torch.equal(found, expected)
        if expected.requires_grad:
            found.sum().backward()
    twin = chain()
    output = way(twin, images)
    if output.requires_grad:
        output.sum().backward()
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or other.grad is None or torch.equal(one.grad, other.grad)
