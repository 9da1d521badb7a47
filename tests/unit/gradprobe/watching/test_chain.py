"""A plain chain runs as one node while it is watched: the same training, the same numbers, and nobody else's loss."""

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import gradprobe
from gradprobe.probe.chain import Chain
from gradprobe.watching import Watching
from tests.unit.gradprobe.watching.loops import STEPS, batches, chain, train, watched

ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.Sigmoid,
    nn.Tanh,
    nn.ReLU,
    nn.LeakyReLU,
    lambda: nn.LeakyReLU(0.3),
    nn.GELU,
    lambda: nn.GELU(approximate="tanh"),
    nn.SiLU,
]


@contextmanager
def counted() -> Iterator[list[int]]:
    """How often a chain has run as one node, as the only element."""
    runs, run = [0], Chain.run

    def counting(self: Chain, *arguments: Any) -> Any:
        runs[0] += 1
        return run(self, *arguments)

    with patch.object(Chain, "run", counting):
        yield runs


def mixed(activations: list[Callable[[], nn.Module] | None], width: int, biased: bool) -> nn.Sequential:
    """A layer before each activation (None: none follows), of 12 inputs, seed 0."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for place, activation in enumerate(activations):
        modules.append(nn.Linear(width if place else 12, width, bias=biased or place % 2 == 0))
        modules += [activation()] if activation is not None else []
    return nn.Sequential(*modules)


@settings(max_examples=30)
@given(
    activations=st.lists(st.sampled_from([None, *ACTIVATIONS]), min_size=1, max_size=5),
    width=st.sampled_from([1, 5, 8]),
    biased=st.booleans(),
    sizes=st.lists(st.sampled_from([1, 3, 16]), min_size=3, max_size=6),
    adam=st.booleans(),
)
def test_the_training_is_the_same_to_the_bit(
    activations: list[Callable[[], nn.Module] | None], width: int, biased: bool, sizes: list[int], adam: bool
) -> None:
    plain, seen = mixed(activations, width, biased), mixed(activations, width, biased)
    data = [(images, labels % width) for size in sizes for images, labels in batches(1, size)]
    kind = torch.optim.Adam if adam else torch.optim.SGD
    expected = train(plain, kind(plain.parameters(), lr=0.1), data)
    optimizer = kind(seen.parameters(), lr=0.1)
    with counted() as runs, gradprobe.watch(seen, optimizer, histograms_every=1) as watching:
        assert train(seen, optimizer, data) == expected
    assert runs[0] == len(data) - 1, "the first step's graph tells what it is"
    assert watching.left_out == ()
    for one, other in zip(plain.parameters(), seen.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("last", [True, False])
def test_the_numbers_are_those_of_the_graph(activation: Callable[[], nn.Module], last: bool) -> None:
    def numbers(hooked: bool) -> Watching:
        model = mixed([activation] * 3 + ([activation] if last else [None]), 5, True)
        if hooked:  # whose presence makes the modules run
            model[0].register_forward_hook(lambda *_: None)
        with counted() as runs, watched(model, histograms_every=1) as (watching, optimizer):
            train(model, optimizer, batches())
        assert runs[0] == (0 if hooked else STEPS - 1)
        return watching

    one, graph = numbers(False), numbers(True)
    for tensor, block in graph._statistics().items():
        if tensor != "metrics":
            np.testing.assert_array_equal(one._statistics()[tensor].values, block.values, err_msg=tensor)
    assert str(one.diagnosis()) == str(graph.diagnosis())


def test_what_is_not_wanted_is_not_measured() -> None:
    model = chain()
    with counted() as runs, watched(model, tensors=("weight_gradients",)) as (watching, optimizer):
        train(model, optimizer, batches())
    assert runs[0] == STEPS - 1
    assert set(watching._statistics()) == {"weight_gradients", "metrics"}


def test_images_are_flattened_by_it() -> None:
    plain, seen = (nn.Sequential(nn.Flatten(), *chain()) for _ in range(2))
    data = batches(shape=(3, 4))
    expected = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), data)
    with counted() as runs, watched(seen) as (_, optimizer):
        assert train(seen, optimizer, data) == expected
    assert runs[0] == STEPS - 1


def test_an_input_that_wants_its_gradient_gets_it() -> None:
    def gradients(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        found = []
        for images, labels in batches():
            images.requires_grad_()
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            assert images.grad is not None
            found.append(images.grad)
        return found

    plain, seen = chain(), chain()
    expected = gradients(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    with counted() as runs, watched(seen) as (_, optimizer):
        found = gradients(seen, optimizer)
    assert runs[0] == STEPS - 1
    assert all(map(torch.equal, found, expected))


def test_a_gradient_penalty_has_its_second_derivative() -> None:
    def penalized(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
        losses = []
        for images, labels in batches():
            images.requires_grad_()
            loss = functional.cross_entropy(model(images), labels)
            (slope,) = torch.autograd.grad(loss, images, create_graph=True)
            loss = loss + slope.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    plain, seen = chain(activation=nn.Tanh), chain(activation=nn.Tanh)
    expected = penalized(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
    with counted() as runs, watched(seen) as (watching, optimizer):
        assert penalized(seen, optimizer) == pytest.approx(expected, rel=1e-5)
    assert runs[0] == 1, "it steps aside from then on"
    assert np.isfinite(watching.gradients("outputs")["0"]["norm"][2:]).all()


def test_second_derivatives_are_those_of_the_modules() -> None:
    model = mixed([nn.Tanh, nn.SiLU, None], 5, False).double().float()
    (images, labels), *_ = batches(3)
    images.requires_grad_()

    def second() -> list[Tensor]:
        loss = functional.cross_entropy(model(images), labels)
        slopes = torch.autograd.grad(loss, [images, *model.parameters()], create_graph=True)
        total = torch.stack([slope.square().sum() for slope in slopes]).sum()
        return list(torch.autograd.grad(total, [images, *model.parameters()]))

    expected = second()
    with counted() as runs, watched(model) as (_, optimizer):
        train(model, optimizer, [(images.detach(), labels)] * 2)
    assert runs[0] == 1
    model.load_state_dict(mixed([nn.Tanh, nn.SiLU, None], 5, False).state_dict())
    with counted() as runs, watched(model) as (_, optimizer):
        model(images)  # its graph tells what it is
        found = second()
    assert runs[0] == 1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_hooks_on_its_modules_are_called() -> None:
    model, called = chain(), []
    with counted() as runs, watched(model) as (_, optimizer):
        train(model, optimizer, batches(3))
        handles = [
            model[2].register_forward_hook(lambda *_: called.append("forward")),
            model[2].register_full_backward_hook(lambda *_: called.append("backward")),
        ]
        train(model, optimizer, batches(2))
        for handle in handles:
            handle.remove()
        train(model, optimizer, batches(3))
    assert called == ["forward", "backward"] * 2
    assert runs[0] == 2 + 3


def test_hooks_on_its_parameters_are_called() -> None:
    model, called = chain(), []
    model[0].weight.register_hook(lambda gradient: called.append(1) or gradient * 0)
    before = model[0].weight.detach().clone()
    with counted() as runs, watched(model) as (watching, optimizer):
        train(model, optimizer, batches(4))
    assert len(called) == 4
    assert runs[0] == 3
    assert torch.equal(model[0].weight, before)
    assert (watching.gradients()["0"]["norm"] == 0).all(), "what the optimizer got"


def test_layers_that_are_put_in_later_run() -> None:
    model = chain()
    with watched(model) as (_, optimizer):
        train(model, optimizer, batches(3))
        model[1] = nn.ReLU()
        images = batches(1)[0][0]
        twin = copy.deepcopy(model)
        assert torch.equal(model(images), twin(images))
        model.append(nn.Sigmoid())
        assert torch.equal(model(images), torch.sigmoid(twin(images)))


def test_a_second_backward_pass_brings_more() -> None:
    def twice(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for images, labels in batches():
            loss = functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
            loss.backward()
            optimizer.step()

    def norms(hooked: bool) -> np.ndarray[Any, Any]:
        model = chain()
        if hooked:
            model[0].register_forward_hook(lambda *_: None)
        with watched(model) as (watching, optimizer):
            twice(model, optimizer)
        return watching.gradients()["0"]["norm"]

    np.testing.assert_array_equal(norms(False), norms(True))


def test_a_batch_that_does_not_fit_is_refused_as_the_module_does() -> None:
    model = chain()
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches(3))
        with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
            model(torch.zeros(4, 11))
        train(model, optimizer, batches(3))
        assert watching.active
    assert watching.steps == 6
    assert len(watching.gradients()["0"]["norm"]) == 6


def test_an_error_of_ours_leaves_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, model = chain(), chain()
    expected = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches())

    def broken(*_: Any) -> None:
        raise ValueError("broken")

    with watched(model) as (watching, optimizer):
        found = train(model, optimizer, batches()[:4])
        monkeypatch.setattr(Chain, "run", broken)
        found += train(model, optimizer, batches()[4:])
    assert found == expected
    assert len(watching.gradients()["0"]["norm"]) == STEPS


def test_two_who_watch_one_module_both_see_it() -> None:
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with counted() as runs, gradprobe.watch(model, optimizer) as one:
        train(model, optimizer, batches(3))
        with gradprobe.watch(model, optimizer) as other:
            train(model, optimizer, batches(3))
    assert runs[0] == 2
    assert len(one.gradients()["0"]["norm"]) == 6
    assert len(other.gradients()["0"]["norm"]) == 3


def test_its_own_forward_comes_back() -> None:
    model = chain()
    with watched(model) as (_, optimizer):
        train(model, optimizer, batches(3))
        assert "forward" in vars(model)
        copied = copy.deepcopy(model)
        saved = io.BytesIO()
        torch.save(model, saved)
    assert "forward" not in vars(model)
    images = batches(1)[0][0]
    restored = torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    for twin in (copied, restored, copy.deepcopy(copied)):
        assert torch.equal(twin(images), model(images))
        with torch.no_grad():
            twin[0].weight.zero_()
        assert not torch.equal(twin(images), model(images))
    with counted() as runs, watched(copied) as (_, optimizer):
        train(copied, optimizer, batches(3))
    assert runs[0] == 2


def _own_forward(model: nn.Sequential) -> nn.Module:
    vars(model[0])["forward"] = lambda images: functional.linear(images, model[0].weight)
    return model


class _Doubled(nn.Linear):
    def forward(self, given: Tensor) -> Tensor:
        return 2 * super().forward(given)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(12, 5), nn.Dropout(), nn.Linear(5, 5)),
        nn.Sequential(nn.ReLU(), nn.Linear(12, 5)),
        nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.ReLU()),
        nn.Sequential(_Doubled(12, 5)),
        nn.Sequential(nn.Flatten(0), nn.Linear(12, 5)),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(12, 5))),
        nn.Sequential(),
        nn.Linear(12, 5),
        _own_forward(nn.Sequential(nn.Linear(12, 5))),
        nn.Sequential(nn.Linear(12, 5)).double(),
    ],
)
def test_what_is_no_plain_chain_is_none(model: nn.Module) -> None:
    assert Chain.of(model) is None


def test_one_layer_used_twice_has_no_delta_of_its_own() -> None:
    shared = nn.Linear(12, 12)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(12, 5))
    twin = copy.deepcopy(model)
    expected = train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), batches())
    with counted() as runs, watched(model) as (watching, optimizer):
        assert train(model, optimizer, batches()) == expected
    assert runs[0] == 0
    assert watching.spec.network.layer_names == ["4"]


def test_memory_of_a_step_ends_with_it() -> None:
    model = chain()
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches(3))
        for images, labels in batches(4):
            loss = functional.cross_entropy(model(images), labels)
            node = loss.grad_fn.next_functions[0][0].next_functions[0][0]  # type: ignore[union-attr]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with pytest.raises(RuntimeError, match="after they have already been freed"):
                _ = node.saved_tensors  # type: ignore[union-attr]
            assert watching._watcher is not None
            assert watching._watcher._pass is None
