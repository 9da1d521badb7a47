"""What a watched loop gives: numbers that are the definitions', a verdict, and the same training."""

import copy
import io
import math
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import gradprobe
from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import NothingMeasured
from gradprobe.probe.taking import Taking
from gradprobe.watching.history import History
from tests.unit.gradprobe.watching.loops import STEPS, batches, chain, train, watched


def test_statistics_are_those_of_the_tensors() -> None:
    model, data = chain(activation=nn.ReLU), batches(3)
    seen: list[dict[str, torch.Tensor]] = []
    with watched(model) as (watching, optimizer):
        for images, labels in data:
            optimizer.zero_grad()
            before = model[2].weight.detach().clone()
            z = functional.linear(torch.relu(model[0](images)), model[2].weight, model[2].bias)
            z.retain_grad()
            h = torch.relu(z)
            loss_twin = functional.cross_entropy(model[6](torch.relu(model[4](h))), labels)
            loss_twin.backward()
            twin = {"delta": z.grad.clone() * len(images), "gradient": model[2].weight.grad.clone(), "h": h.detach()}
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            twin["before"], twin["after"] = before, model[2].weight.detach().clone()
            seen.append(twin)
    for step, twin in enumerate(seen):
        assert watching.gradients("outputs")["2"]["norm"][step] == pytest.approx(float(twin["delta"].norm()), rel=1e-5)
        gradients = watching.gradients()["2"]
        assert gradients["mean_abs"][step] == pytest.approx(float(twin["gradient"].abs().mean()), rel=1e-5)
        assert watching.activations()["2"]["mean"][step] == pytest.approx(float(twin["h"].mean()), rel=1e-5)
        assert watching.activations()["2"]["saturated_fraction"][step] == pytest.approx(
            float((twin["h"] == 0).float().mean())
        )
        ratio = float((twin["after"] - twin["before"]).norm() / twin["before"].norm())
        assert watching.weights()["2"]["update_ratio"][step] == pytest.approx(ratio, rel=1e-4)
        assert watching.weights()["2"]["norm"][step] == pytest.approx(float(twin["before"].norm()), rel=1e-5)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_the_training_is_the_same_to_the_bit(optimizer: type[torch.optim.Optimizer]) -> None:
    plain, seen = chain(), chain()
    plain.insert(2, nn.Dropout(0.2))
    seen.insert(2, nn.Dropout(0.2))
    torch.manual_seed(3)
    expected = train(plain, optimizer(plain.parameters(), lr=0.1), batches())
    chosen = optimizer(seen.parameters(), lr=0.1)
    torch.manual_seed(3)
    with gradprobe.watch(seen, chosen, histograms_every=1):
        assert train(seen, chosen, batches()) == expected
    for one, other in zip(plain.parameters(), seen.parameters(), strict=True):
        assert torch.equal(one, other)


def test_vanishing_is_found_and_said_in_words() -> None:
    model = chain(depth=8, width=10)
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches())
    found = watching.diagnosis()
    assert found.verdict == "vanishing"
    assert found.findings[0].phase == "at_initialization"
    assert "as theory predicts" in str(found)
    assert "try relu: ReLU" in str(found)


def test_a_healthy_loop_is_healthy() -> None:
    model = chain(activation=nn.ReLU, width=64)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches())
    assert watching.diagnosis().at_initialization == "healthy"


def test_functions_are_seen_as_modules_are() -> None:
    class Functional(nn.Module):
        def __init__(self, layers: nn.Module) -> None:
            super().__init__()
            self.first, self.second = layers[0], layers[2]  # type: ignore[index]
            self.last = layers[4]  # type: ignore[index]

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(torch.sigmoid(functional.linear(torch.sigmoid(self.first(images)), self.second.weight)))

    model = Functional(chain(depth=3))
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches())
    assert watching.spec.network.layer_names == ["first", "second", "last"]
    assert watching.spec.network.activation_names == ["sigmoid", "sigmoid", "identity"]
    assert watching.spec.network.unknown is None


def test_a_criterion_tells_loss_accuracy_and_classes() -> None:
    model, criterion = chain(), nn.CrossEntropyLoss()
    losses = []
    with watched(model, criterion=criterion) as (watching, optimizer):
        for images, labels in batches():
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    metrics = watching.metrics()
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-6)
    assert ((metrics["accuracy"] >= 0) & (metrics["accuracy"] <= 1)).all()
    assert watching.spec.loss.classes == 5
    assert watching.diagnosis().silent == ()


def test_a_loop_may_tell_its_loss_and_without_it_rules_are_silent() -> None:
    model = chain()
    with watched(model) as (watching, optimizer):
        for images, labels in batches():
            loss = functional.cross_entropy(model(images), labels)
            watching.record(loss=loss, accuracy=0.5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert np.isfinite(watching.metrics()["loss"]).all()
    assert watching.diagnosis().silent == ("stalled: what a guess would cost is known of a cross-entropy alone.",)
    quiet = chain()
    with watched(quiet) as (untold, optimizer):
        train(quiet, optimizer, batches())
    assert "did not tell its loss" in untold.diagnosis().silent[0]


def test_the_optimizer_is_found() -> None:
    model = chain()
    with gradprobe.watch(model) as watching:
        train(model, torch.optim.Adam(model.parameters(), lr=0.02), batches())
    assert watching.steps == STEPS
    assert watching.spec.optimizer.name == "Adam"
    assert watching.weights()["0"]["update_ratio"][0] > 0


def test_batches_of_other_sizes() -> None:
    model = chain()
    data = [*batches(3), *batches(2, size=5), *batches(2, size=40)]
    with watched(model, histograms_every=1) as (watching, optimizer):
        train(model, optimizer, data)
    counts = watching._history.counts()["output_gradients"]
    sizes = counts.dense()[:, 0].sum(axis=1) // 8
    assert sizes.tolist() == [16, 16, 16, 5, 5, 40, 40]
    assert watching.left_out == ()


def test_evaluation_in_between_is_not_a_step() -> None:
    model = chain()
    with watched(model) as (watching, optimizer):
        for batch in batches(4):
            train(model, optimizer, [batch])
            model.eval()
            with torch.no_grad():
                model(batch[0][:3])
            model(batch[0][:3])  # with gradients, and no backward pass
            model.train()
    assert watching.steps == 4
    assert len(watching.gradients().steps) == 4
    assert watching.spec.training.batch_size == 16


def test_nothing_is_left_behind() -> None:
    model = chain()
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches(2))
        copied = copy.deepcopy(model)
        saved = io.BytesIO()
        torch.save(model, saved)
        train(copied, torch.optim.SGD(copied.parameters(), lr=0.1), batches(2))
    assert watching.steps == 2
    assert not model._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    train(model, optimizer, batches(2))
    assert watching.steps == 2


def test_an_error_of_ours_is_said_once_and_ends_the_watching_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Taking, "collect", broken)
    plain, model = chain(), chain()
    expected = train(plain, torch.optim.SGD(plain.parameters(), lr=0.1), batches())
    with watched(model) as (watching, optimizer), pytest.warns(RuntimeWarning, match="ZeroDivisionError: ours"):
        assert train(model, optimizer, batches()) == expected
    assert not model._forward_hooks
    assert any("ZeroDivisionError: ours" in text for text in watching.left_out)
    with pytest.raises(NothingMeasured, match="ours"):
        watching.diagnosis()


def test_where_no_server_answers_it_is_said_at_once_and_at_the_end_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    model, said = chain(), rf"No server answers at http://127\.0\.0\.1:{port} .* `gradprobe up`.* url=…"
    with pytest.warns(RuntimeWarning, match=rf"{said}.*; the last {STEPS} steps were not reported"):  # noqa: SIM117
        with watched(model, url=f"http://127.0.0.1:{port}", patience=0.4) as (watching, optimizer):
            train(model, optimizer, batches())
    assert len(caplog.messages) == 1
    assert re.search(rf"{said}.*; what is measured waits for it", caplog.messages[0])
    assert watching.diagnosis().verdict == "vanishing"  # what was measured is still here


def test_even_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Bilinear(3, 3, 2)  # nothing in it is a product that we know
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with gradprobe.watch(model, optimizer) as watching:
        loss = model(torch.randn(4, 3), torch.randn(4, 3)).sum()
        loss.backward()
        optimizer.step()
    assert "no layer can be measured" in watching.left_out[0]


def test_before_the_first_step_there_is_nothing() -> None:
    with gradprobe.watch(chain()) as watching, pytest.raises(NothingMeasured, match="no training step"):
        watching.gradients()


def test_what_was_forgotten_is_said() -> None:
    model, data = chain(), batches(3)
    own, other = (torch.optim.SGD(one.parameters(), lr=0.1) for one in (model, chain()))
    with gradprobe.watch(model, other) as watching:
        train(model, own, data)
    with pytest.raises(NothingMeasured, match="the optimizer that was given has made no step"):
        watching.diagnosis()
    with gradprobe.watch(model) as watching:
        functional.cross_entropy(model(data[0][0]), data[0][1]).backward()
    with pytest.raises(NothingMeasured, match="no optimizer of its parameters"):
        watching.gradients()
    with gradprobe.watch(chain(), own) as watching:
        train(model, own, data)
    with pytest.raises(NothingMeasured, match="made 3 steps, but the model did not run"):
        watching.diagnosis()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((nn.Linear,), "must be a torch.nn.Module, not the class Linear"),
        ((chain().parameters(),), "must be a torch.nn.Module, not a generator"),
        ((chain(), nn.CrossEntropyLoss()), "give the loss module by name: criterion="),
        ((chain(), chain().parameters()), "must be a torch.optim.Optimizer, not a generator"),
    ],
)
def test_what_is_given_in_the_wrong_place_is_refused(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        gradprobe.watch(*arguments)


def test_a_loss_that_is_a_function_is_told_by_record() -> None:
    criterion: Any = functional.cross_entropy
    with pytest.raises(TypeError, match=r"not a function; leave it out .* watching\.record"):
        gradprobe.watch(chain(), criterion=criterion)


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    model = chain()
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches(3))
    of: Any = "grads"
    with pytest.raises(ValueError, match="'weights', 'outputs', 'clipped_weights'"):
        watching.gradients(of)
    with pytest.raises(KeyError, match="no statistic 'average'; there are mean_abs, mean"):
        watching.gradients()["0"]["average"]


def test_a_long_run_is_thinned_out() -> None:
    history = History(bytes_wanted=400_000)
    for first in range(0, 20_000, 250):
        steps = np.arange(first, first + 250)
        history.add({"weights": StatisticsBlock(steps, np.ones((8, 3, 250), np.float32))}, {})
    kept = history.statistics()["weights"].steps
    assert history.statistics()["weights"].values.nbytes <= 400_000
    assert kept[:512].tolist() == list(range(512))
    assert set(np.diff(kept[520:]).tolist()) == {history.thinned}
    assert kept[-1] >= 20_000 - history.thinned


def test_nan_is_found() -> None:
    model = chain(activation=nn.ReLU, depth=3)
    with watched(model) as (watching, optimizer):
        train(model, optimizer, batches(3))
        with torch.no_grad():
            model[2].weight[0, 0] = math.nan
        train(model, optimizer, batches(3))
    found = watching.diagnosis().findings[0]
    assert found.rule == "non_finite"
    assert found.first_step == 3
    assert found.layers == ("2",)


def test_the_how_to_runs() -> None:
    page = (Path(__file__).parents[4] / "docs" / "watch.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["watching"].diagnosis().verdict == "vanishing"  # type: ignore[attr-defined]
