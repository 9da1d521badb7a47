"""A tape: played again it computes what running the step again would, to the bit; what can't be repeated is refused."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.tape import Recorder, Unrepeatable

ENOUGH = 2**30


def played_and_run(step: Callable[[Tensor], Tensor], named: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
    """The step on other numbers than those it was recorded with: from its tape, and as it is."""
    entry = torch.linspace(-1.0, 1.0, 12).view(3, 4)
    with Recorder([entry, *named], ENOUGH) as recorder:
        result = step(entry)
    tape = recorder.tape()
    entry.copy_(torch.linspace(2.0, -3.0, 12).view(3, 4))
    torch.manual_seed(1)
    tape.play()
    torch.manual_seed(1)
    return result.detach(), step(entry).detach()


@pytest.mark.parametrize(
    "step",
    [
        lambda x: (x * 2).relu().sum(0),
        lambda x: x.t().contiguous()[1:].reshape(-1) + 1,
        lambda x: functional.dropout(x, 0.5),
        lambda x: torch.zeros_like(x).add_(x).mul_(3),
        lambda x: x.double().log_softmax(1).to(torch.bfloat16),
        lambda x: torch.cat([x, torch.ones(3, 1)], 1).topk(2).values,
        lambda x: x.max(1).values + torch.arange(3),
    ],
    ids=["plain", "views", "random", "in place", "types", "without a writing form", "several results"],
)
def test_it_computes_what_the_step_computes(step: Callable[[Tensor], Tensor]) -> None:
    played, run = played_and_run(step)
    assert torch.equal(played, run)


def test_it_reads_parameters_as_they_are_now_and_writes_gradients_over_the_old_ones() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, 2))
    parameters, entry = list(network.parameters()), torch.randn(6, 4)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(network(entry).square().mean(), parameters)

    with Recorder([*parameters, *network.buffers(), entry], ENOUGH) as recorder:
        found = gradients()
    tape = recorder.tape()
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn_like(parameter))
    before = [buffer.clone() for buffer in network.buffers()]
    tape.play()
    after = [buffer.clone() for buffer in network.buffers()]
    for buffer, old in zip(network.buffers(), before, strict=True):
        buffer.copy_(old)
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(found, gradients(), strict=True))
    assert all(torch.equal(mine, wanted) for mine, wanted in zip(after, network.buffers(), strict=True))
    assert not torch.equal(after[0], before[0])


def test_what_was_recorded_keeps_no_graph_alive() -> None:
    weight = torch.ones(2, requires_grad=True)
    with Recorder([weight], ENOUGH) as recorder:
        (weight * 2).sum().backward()
    for call in recorder.tape().calls:
        tensors = [*call.args, *call.keywords.values()]  # type: ignore[attr-defined]
        assert not any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x: x * float(x.sum()), "depends on the numbers"),
        (lambda x: x[x > 0], "depends on the numbers"),
        (lambda x: x + OUTSIDE, "from outside the step"),
    ],
)
def test_a_step_that_may_do_something_else_next_time_is_refused(step: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(Unrepeatable, match=reason):
        played_and_run(step)


OUTSIDE = torch.ones(3, 4)


def test_a_step_with_too_much_to_keep_is_refused_and_still_runs() -> None:
    entry = torch.ones(1000)
    with Recorder([entry], 3 * entry.nbytes) as recorder:
        result = ((entry + 1) * 2 - 3).view(10, 100)
        recorder.tape()  # three results are just what may be kept; the view is memory of theirs
        result = result + 1
    assert torch.equal(result, torch.full((10, 100), 2.0))
    with pytest.raises(Unrepeatable, match="MiB"):
        recorder.tape()
