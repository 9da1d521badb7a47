"""Mixed precision: half types in the pass, float32 in the weights, scaled losses and unscaled gradients."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradprobe.spec import Spec
from worker import optimizers
from worker.precision import Precision

CPU = torch.device("cpu")
Name = Literal["float32", "bfloat16", "float16"]


def layer_and_batch() -> tuple[nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(20, 10)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return layer, torch.randn(8, 20, generator=generator), torch.randint(10, (8,), generator=generator)


def gradient(name: Name, factor: float = 1.0) -> tuple[Tensor, torch.dtype, Precision]:
    """∂(factor · loss)/∂W, the type that logits came in, and the precision afterwards."""
    precision, (layer, images, labels) = Precision(name, CPU), layer_and_batch()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, fused=True)
    with precision.forward():
        logits = layer(images)
    precision.backward(factor * functional.cross_entropy(logits.float(), labels), optimizer)
    assert layer.weight.grad is not None
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32
    found = layer.weight.grad.clone()
    precision.step(optimizer)
    return found, logits.dtype, precision


@pytest.mark.parametrize(
    ("name", "dtype", "roundoff", "scale"),
    [
        ("float32", torch.float32, 1e-6, 1.0),
        ("bfloat16", torch.bfloat16, 2**-8, 1.0),
        ("float16", torch.float16, 2**-11, 2.0**16),
    ],
)
def test_gradients_are_unscaled_and_rounded_as_their_type_rounds(
    name: Name, dtype: torch.dtype, roundoff: float, scale: float
) -> None:
    exact, (actual, seen, _) = gradient("float32")[0], gradient(name)
    assert seen == dtype
    assert Precision(name, CPU).scale == scale
    error = float((actual - exact).abs().max() / exact.abs().max())
    assert error < 10 * roundoff
    assert (error == 0) == (name == "float32")


def test_what_float16_can_not_hold_survives_by_being_scaled() -> None:
    """Gradients of some 1e-9: far below float16's smallest number, 6e-8."""
    small = gradient("float16", 1e-8)[0]
    torch.testing.assert_close(small, 1e-8 * gradient("float32")[0], rtol=0.05, atol=1e-12)


def test_an_overflow_is_seen_in_the_gradients_halves_the_scale_and_skips_the_step() -> None:
    found, _, precision = gradient("float16", 1e4)
    assert not found.isfinite().all()
    assert precision.scale == 2.0**15


@pytest.mark.parametrize(
    "document",
    [
        {"name": "sgd"},
        {"name": "sgd", "momentum": 0.9},
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        {"name": "adam"},
        {"name": "adamw"},
        {"name": "rmsprop"},
    ],
    ids=str,
)
def test_a_skipped_step_changes_neither_weights_nor_moments(document: dict[str, Any]) -> None:
    """After steps that were skipped the first that is not is the step of an optimizer that has seen no other."""

    def trained(factors: list[float]) -> list[Tensor]:
        precision, (layer, images, labels) = Precision("float16", CPU), layer_and_batch()
        spec = Spec.model_validate({"optimizer": {"learning_rate": 0.1, **document}})
        optimizer = optimizers.build(spec.optimizer, layer.parameters(), (), precision.skips_steps)
        weights = []
        for factor in factors:
            optimizer.zero_grad()
            with precision.forward():
                logits = layer(images)
            precision.backward(factor * functional.cross_entropy(logits.float(), labels), optimizer)
            precision.step(optimizer)
            weights.append(layer.weight.detach().clone())
        return weights

    start, alone = layer_and_batch()[0].weight, trained([1.0, 1.0])
    skipped = trained([1e4, 1e4, 1.0, 1.0])
    assert torch.equal(skipped[0], start)
    assert torch.equal(skipped[1], start)
    assert not torch.equal(alone[0], start)
    # Another scale rounds otherwise.
    torch.testing.assert_close(torch.stack(skipped[2:]), torch.stack(alone), rtol=1e-2, atol=1e-3)
