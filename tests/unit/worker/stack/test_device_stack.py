"""The stack for GPUs, here on the CPU: a member is a run by itself, and one of the CPU's stack, to float tolerance."""

import gc
from typing import Any

import numpy as np
import pytest
import torch

from gradprobe.spec import Spec
from gradprobe.stacking import RECORD_MEBIBYTES, bytes_of, stack_key
from gradprobe.statistics import names
from tests.numerics.replay import record
from tests.unit.worker.capturable import Capturable
from tests.unit.worker.stack.company import DATA, DATASET, ON_CPU, in_parts, lanes_of, together
from tests.unit.worker.stack.test_stack import SHAPES, STACKED, UNCLIPPED, assert_close, assert_gradients, members
from tests.unit.worker.test_checkpoint import ITERATIONS, assert_same, spec_of
from worker.checkpoint import Checkpoint, CheckpointUnusable
from worker.loop import Pace
from worker.stack.device.data import on_device
from worker.stack.device.stack import DeviceStack
from worker.stack.lane import fresh, resumed


def changed(spec: Spec, **parts: dict[str, Any]) -> Spec:
    document = spec.model_dump(mode="json")
    for part, values in parts.items():
        document[part] = {**(document[part] or {}), **values}
    return Spec.model_validate(document)


@pytest.mark.parametrize("name", UNCLIPPED)
def test_first_gradients_are_those_of_a_run_by_itself(name: str) -> None:
    specs = members(name)
    stack = DeviceStack(lanes_of(specs), ON_CPU, 64)
    stack.step()
    assert_gradients(stack.gradients, specs)


@pytest.mark.parametrize("name", SHAPES)
def test_its_series_is_that_of_a_run_by_itself_and_of_the_other_stack(name: str) -> None:
    specs = members(name)
    found, other = together(specs, data=ON_CPU), together(specs)
    for identifier, spec in specs.items():
        assert_close(found.recorded(identifier), record(spec, DATASET), spec)
        assert_close(found.recorded(identifier), other.recorded(identifier), spec)


def test_each_member_has_its_own_clipping_and_decay() -> None:
    """In one stack: by norm, by value, none; with decay and without."""
    specs = members("momentum", 4)
    specs["0"] = changed(specs["0"], gradient_clipping={"kind": "norm", "max_norm": 0.1})
    specs["1"] = changed(specs["1"], gradient_clipping={"kind": "value", "max_value": 0.001})
    specs["2"] = changed(specs["2"], optimizer={"weight_decay": 0.05})
    company = together(specs, data=ON_CPU)
    for identifier, spec in specs.items():
        assert_close(company.recorded(identifier), record(spec, DATASET), spec)
        measured = company.chunks[identifier][0].measured.statistics
        assert ("clipped_weight_gradients" in measured) == (identifier in ("0", "1"))


@pytest.mark.parametrize("name", STACKED)
def test_stopped_and_gone_on_with_it_is_what_it_would_have_been(name: str) -> None:
    specs = members(name)
    whole, parts = together(specs, data=ON_CPU), in_parts(specs, [3, 14], data=ON_CPU)
    for identifier, spec in specs.items():
        assert_same(parts[identifier], whole.recorded(identifier), spec)


def test_one_that_explodes_harms_no_other() -> None:
    specs = members("exploding")
    specs["0"] = changed(specs["0"], gradient_clipping={"kind": "norm", "max_norm": 1.0})
    specs["2"] = changed(specs["2"], gradient_clipping={"kind": "value", "max_value": 0.1})
    initialization = {"name": "normal", "std": 1e5}
    exploding = specs | {
        "1": changed(specs["1"], optimizer={"learning_rate": 1e3}, network={"initialization": initialization})
    }
    company, calm = together(exploding, data=ON_CPU), together(specs, data=ON_CPU)
    values = company.recorded("1").statistics("weight_gradients").values
    assert values[names("weight_gradients").index("nonfinite_count")].sum() > 0
    for identifier in ("0", "2"):
        assert_same(company.recorded(identifier), calm.recorded(identifier), specs[identifier])


def test_members_of_other_lengths_and_recordings_leave_one_after_another() -> None:
    specs = members("adam")
    specs["0"] = changed(specs["0"], training={"iterations": 12}, recording={"every": 5, "histograms_every": 3})
    short = {"every": 1, "evaluate_every": 7, "tensors": ["weight_gradients", "output_gradients", "activations"]}
    specs["2"] = changed(specs["2"], training={"iterations": 30}, recording=short)
    company = together(specs, data=ON_CPU)
    assert list(company.outcomes) == ["0", "2", "1"]
    for identifier, spec in specs.items():
        assert_close(company.recorded(identifier), record(spec, DATASET), spec)
    assert "weights" not in company.chunks["2"][0].measured.statistics


def test_one_that_leaves_is_stored_to_where_it_was_and_the_others_go_on() -> None:
    specs = members("momentum")
    company = together(specs, data=ON_CPU, leave=lambda steps: {"1"} if steps >= 10 else ())
    assert set(company.outcomes) == {"0", "2"}
    assert company.chunks["1"][-1].iteration == 10
    for identifier in ("0", "2"):
        assert_close(company.recorded(identifier), record(specs[identifier], DATASET), specs[identifier])


@pytest.mark.parametrize("mebibytes", [1, 4])
def test_each_step_is_there_once_however_little_memory_there_is(mebibytes: int) -> None:
    """With one, histograms of three members fill the ring with every step, and it is drained before the next."""
    specs = {name: changed(spec, recording={"histograms_every": 1}) for name, spec in members("adam").items()}
    company = together(specs, Pace(60.0, 60.0, memory_mebibytes=mebibytes), data=ON_CPU)
    for identifier in specs:
        found = company.recorded(identifier)
        assert found.metrics.steps.tolist() == list(range(ITERATIONS))
        assert found.counts("weight_gradients").steps.tolist() == list(range(ITERATIONS))
        assert company.chunks[identifier][-1].iteration == ITERATIONS
    assert len(company.chunks["0"]) > 2


def test_histograms_count_every_element() -> None:
    specs = members("one layer")
    company = together(specs, data=ON_CPU)
    for identifier, spec in specs.items():
        found = company.recorded(identifier)
        weights, batch = 784 * 10, spec.training.batch_size
        assert (found.counts("weight_gradients").dense().sum(2) == weights).all()
        assert (found.counts("output_gradients").dense().sum(2) == batch * 10).all()


def test_times_are_shares_of_what_the_stack_took() -> None:
    specs = members("adam")
    company = together(specs, data=ON_CPU)
    row = names("metrics").index("seconds_per_iteration")
    seconds = np.concatenate([chunk.metrics.values[row, 0] for chunk in company.chunks["0"]])
    assert (seconds > 0).all()
    assert seconds.sum() == pytest.approx(company.outcomes["0"].seconds, rel=0.05)


def test_a_checkpoint_says_where_it_was_saved_and_is_refused_elsewhere() -> None:
    (name, spec), *_ = members("adam").items()
    saved = together({name: spec}, data=ON_CPU, stop_after=7).states()[name]
    assert Checkpoint.read(saved).device == "cpu"
    with pytest.raises(CheckpointUnusable, match="saved on cpu, and this is cuda"):
        resumed(name, spec, len(DATA), Checkpoint.read(saved), "cuda")


def test_what_runs_on_a_gpu_alone_has_a_shape_of_its_own() -> None:
    by_device = {
        device: stack_key(changed(spec_of({}), training={"device": device})) for device in ("auto", "cpu", "cuda")
    }
    assert None not in by_device.values()
    assert by_device["cuda"] != by_device["cpu"] == by_device["auto"]


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_is_waited_for_between_drains(name: str) -> None:
    """What would make a capture fail on a GPU: the host asks for a number that it does not have."""
    stack = DeviceStack(lanes_of(members(name)), ON_CPU, 64)
    stack.step()  # before the first step members are evaluated, which is not captured
    with Capturable() as seen:
        for _ in range(6):  # with statistics, and one of them with histograms
            stack.step()
    assert seen.kernels > 100


@pytest.mark.parametrize("name", ["adamw", "prelu", "batch normalization", "gelu", "clipping by norm"])
def test_no_value_and_no_memory_of_another_device_is_used(name: str) -> None:
    """On the device `meta` nothing has a value, and what lies on another device can't be computed with."""
    data = on_device(DATASET, torch.device("meta"))
    stack = DeviceStack(lanes_of(members(name)), data, 64)
    for _ in range(6):
        stack.step()
    assert stack.gradients.is_meta


@pytest.mark.parametrize(
    "changes",
    [{}, {"network": {"depth": 200, "width": 4}}, {"network": {"width": 100}}, {"training": {"batch_size": 500}}],
    ids=["classic", "deep", "wide", "large batches"],
)
def test_what_it_keeps_is_less_than_what_it_was_said_to_take(changes: dict[str, Any]) -> None:
    """The rest is for what a step makes on its way."""
    spec = Spec.model_validate(changes)
    lanes = [fresh(str(number), spec, len(DATA)) for number in range(3)]
    before = storages()
    stack = DeviceStack(lanes, ON_CPU, RECORD_MEBIBYTES * len(lanes))
    kept = sum(size for place, size in storages().items() if place not in before)
    assert len(stack) == 3
    assert 0.2 * bytes_of(spec, 3, "cuda") < kept < bytes_of(spec, 3, "cuda")


def storages() -> dict[int, int]:
    """Bytes of all memory that tensors hold in this process, by its place."""
    found = {}
    for one in gc.get_objects():
        if type(one) is torch.Tensor and not one.is_meta:
            found[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return found
