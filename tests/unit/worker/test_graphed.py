"""A run by itself as GPUs have it, here on the CPU: the eager step's numbers, and all that a capture asks of it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gradprobe.probe import Measured, Recording, attach
from gradprobe.spec import Spec
from tests.numerics.replay import CPU, small_dataset
from tests.unit.worker.capturable import Capturable
from tests.unit.worker.test_passes import VARIANTS, spec_of
from worker import batches
from worker.graphed import can_be_captured
from worker.learner import Learner
from worker.network import builders

STEPS = 12
CAPTURED = [name for name in VARIANTS if can_be_captured(spec_of(VARIANTS[name]))]
DATASET = small_dataset()


def longer(name: str) -> Spec:
    document = spec_of(VARIANTS[name]).model_dump(mode="json")
    document["training"]["iterations"] = STEPS
    if document["network"]["normalization"] == "batch":
        # A bias before it has a gradient of nothing but rounding, which Adam would make a step of.
        document["optimizer"] = {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9}
    return Spec.model_validate(document)


def train(
    spec: Spec,
    graphed: bool,
    stop: int = STEPS,
    resume: dict[str, dict[str, Tensor]] | None = None,
    device: torch.device = CPU,
    recording: Recording | None = None,
) -> tuple[list[list[Tensor]], list[Measured], dict[str, dict[str, Tensor]]]:
    """Of every step loss, logits, parameters and gradients; all that was measured; and the state at the end."""
    learner = Learner(spec, device, graphed)
    data = batches.Batches(DATASET, spec.training.batch_size, spec.training.seed, device)
    first = 0
    if resume is not None:
        learner.restore(resume["learner"])
        data.restore(resume["data"])
        first = int(resume["place"]["step"])
    found, measured = [], []
    recording = recording or Recording(2, 3, collector="ring")
    with attach(builders.taps(learner.network, spec.network), recording, learner.parameters, learner.network) as probe:
        for step in range(first, stop):
            learned = learner.learn(step, *data.next(), probe)
            gradients = [parameter.grad for parameter in learner.parameters if parameter.grad is not None]
            assert len(gradients) == len(learner.parameters)
            values = [learned.loss, learned.logits, *learner.parameters, *gradients, *learner.network.buffers()]
            found.append([value.detach().cpu().clone() for value in values])
            if probe.full:
                measured.append(probe.drain())
        measured.append(probe.drain())
    state = {name: tensor.detach().cpu().clone() for name, tensor in learner.state().items()}
    return found, measured, {"learner": state, "data": data.state(), "place": {"step": torch.tensor(stop)}}


def assert_close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("name", CAPTURED)
def test_it_is_the_eager_step(name: str) -> None:
    spec = longer(name)
    (found, measured, _), (expected, wanted, _) = train(spec, True), train(spec, False)
    for mine, theirs in zip(found, expected, strict=True):
        for value, other in zip(mine, theirs, strict=True):
            assert_close(value.double(), other.double())
    (measured_once,), (wanted_once,) = measured, wanted
    assert measured_once.steps.tolist() == wanted_once.steps.tolist() == [0, 2, 4, 6, 8, 10]
    assert measured_once.statistics.keys() == wanted_once.statistics.keys()
    for tensor, block in measured_once.statistics.items():
        assert_close(torch.from_numpy(block.values), torch.from_numpy(wanted_once.statistics[tensor].values))
    for counted, block in measured_once.counts.items():
        assert block.steps.tolist() == [0, 3, 6, 9]
        sums = wanted_once.counts[counted].dense().sum(2)
        assert (block.dense().sum(2) == sums).all()
    assert_close(torch.from_numpy(measured_once.gradient_norm), torch.from_numpy(wanted_once.gradient_norm))


@pytest.mark.parametrize("name", CAPTURED)
def test_stopped_and_gone_on_with_it_is_what_it_would_have_been(name: str) -> None:
    spec = longer(name)
    whole, _, _ = train(spec, True)
    start, _, state = train(spec, True, stop=5)
    rest, _, _ = train(spec, True, resume=state)
    for mine, wanted in zip([*start, *rest], whole, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(mine, wanted, strict=True))


def test_a_step_that_is_not_recorded_leaves_no_row() -> None:
    spec = longer("classic")
    found, (measured,), _ = train(spec, True, recording=Recording(100, 100, collector="ring"))
    assert measured.steps.tolist() == [0]
    expected, _, _ = train(spec, True)
    assert all(torch.equal(left, right) for left, right in zip(found[-1], expected[-1], strict=True))


def test_rows_are_reused_when_the_rings_are_full() -> None:
    spec = longer("classic")
    recording = Recording(1, 1, memory_mebibytes=1, collector="ring")
    wide = spec.model_copy(update={"network": spec.network.model_copy(update={"width": 40})})
    _, measured, _ = train(wide, True, recording=recording)
    assert len(measured) > 1
    assert [step for part in measured for step in part.steps.tolist()] == list(range(STEPS))
    _, wanted, _ = train(wide, False, recording=recording)
    for mine, theirs in zip(measured[:-1], wanted[:-1], strict=True):
        block, other = mine.statistics["weight_gradients"], theirs.statistics["weight_gradients"]
        assert_close(torch.from_numpy(block.values), torch.from_numpy(other.values))


def test_what_is_not_captured() -> None:
    assert set(VARIANTS) - set(CAPTURED) == {"float16", "layer, dropout"}


@pytest.mark.parametrize("name", CAPTURED)
def test_nothing_is_waited_for_between_drains(name: str) -> None:
    """What would make a capture fail on a GPU: the host asks for a number that it does not have."""
    spec = longer(name)
    learner = Learner(spec, CPU, graphed=True)
    data = batches.Batches(DATASET, spec.training.batch_size, spec.training.seed, CPU, ahead=True)
    recording = Recording(2, 3, collector="ring")
    with attach(builders.taps(learner.network, spec.network), recording, learner.parameters, learner.network) as probe:
        learner.learn(0, *data.next(), probe)  # makes what is kept
        with Capturable() as seen:
            for step in range(1, 6):
                learner.learn(step, *data.next(), probe)
    assert seen.kernels > 100


def test_what_waits_is_seen() -> None:
    """The comparison above would notice; float16's loss scaler asks whether gradients overflowed."""
    spec = longer("float16")
    learner = Learner(spec, CPU, graphed=False)
    data = batches.Batches(DATASET, spec.training.batch_size, spec.training.seed, CPU)
    recording = Recording(2, 3, collector="ring")
    with attach(builders.taps(learner.network, spec.network), recording, learner.parameters, learner.network) as probe:
        learner.learn(0, *data.next(), probe)
        with Capturable(), pytest.raises(AssertionError, match="waits for the device"):
            learner.learn(1, *data.next(), probe)
