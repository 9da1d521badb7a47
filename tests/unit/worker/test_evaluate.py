"""Evaluation: the numbers of a direct computation, and nothing else touched."""

import math

import pytest
import torch
from torch import nn

from gradprobe.spec import Network
from worker import evaluate as module
from worker.batches import initialization_generator
from worker.evaluate import evaluate
from worker.network import builders


class Drop(nn.Module):
    """A network that would draw random numbers in training mode."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(10, 784, generator=generator) / 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        dropped: torch.Tensor = self.dropout(images @ self.weight.T)
        return dropped


def samples(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 784, generator=generator), torch.randint(10, (count,), generator=generator)


@pytest.mark.parametrize("count", [1, 4999, 5001, 10_000])
def test_it_equals_a_direct_computation(count: int) -> None:
    network, (images, labels) = Drop(), samples(count)
    logits = (images @ network.weight.detach().T).double()
    losses = torch.logsumexp(logits, 1) - logits[torch.arange(count), labels]
    evaluation = evaluate(network, images, labels)
    assert evaluation.loss == pytest.approx(math.fsum(losses.tolist()) / count, rel=1e-6)
    assert evaluation.accuracy == sum(row.argmax() == label for row, label in zip(logits, labels, strict=True)) / count


def test_pieces_are_weighed_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    network, (images, labels) = Drop(), samples(103)
    whole = evaluate(network, images, labels)
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE", 10)
    pieces = evaluate(network, images, labels)
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-6)
    assert pieces.accuracy == whole.accuracy


@pytest.mark.parametrize("training", [True, False])
def test_mode_gradients_and_random_numbers_are_left_alone(training: bool) -> None:
    network, (images, labels) = Drop(), samples(20)
    network.train(training)
    network.weight.grad = torch.full_like(network.weight, 3.0)
    weight, state = network.weight.detach().clone(), torch.get_rng_state()
    evaluate(network, images, labels)
    assert network.training is training
    assert network.dropout.training is training
    assert torch.is_grad_enabled()
    assert torch.equal(network.weight.grad, torch.full_like(weight, 3.0))
    assert torch.equal(network.weight, weight)
    assert torch.equal(state, torch.get_rng_state())


def test_a_network_that_diverged_has_no_finite_loss() -> None:
    network, (images, labels) = Drop(), samples(20)
    with torch.no_grad():
        network.weight[3, 5] = math.nan
    assert math.isnan(evaluate(network, images, labels).loss)


def test_networks_on_images_are_evaluated_in_smaller_pieces_to_the_same_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = Network.model_validate({"kind": "conv", "depth": 3, "width": 2, "normalization": "batch", "dropout": 0.5})
    network, (images, labels) = builders.build(spec, initialization_generator(0)), samples(501)
    sizes: list[int] = []
    network.layers[0].register_forward_hook(lambda _module, _inputs, output: sizes.append(len(output)))
    pieces = evaluate(network, images, labels)
    assert sizes == [500, 1]
    monkeypatch.setattr(module, "_IMAGES_AT_ONCE_CONVOLVED", 501)
    whole = evaluate(network, images, labels)
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-6)
    assert pieces.accuracy == whole.accuracy
