"""A member of a stack is what it would be by itself: to float tolerance a run alone, bit for bit a stack of one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from gradprobe.spec import Spec
from gradprobe.stacking import stack_key
from gradprobe.statistics import names
from tests.numerics.replay import Recorded, record
from tests.unit.worker.stack.company import DATA, DATASET, in_parts, lanes_of, together
from tests.unit.worker.test_checkpoint import ITERATIONS, SPECS, assert_same, spec_of
from worker import batches
from worker.batches import Order
from worker.network import builders
from worker.stack.layout import Layout
from worker.stack.stack import Stack

STACKED = [name for name in SPECS if stack_key(spec_of(SPECS[name])) is not None]
ACTIVATIONS = [
    "sigmoid",
    "relu",
    "leaky_relu",
    "prelu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "hardtanh",
    "identity",
]
SHAPES: dict[str, dict[str, Any]] = {
    **{name: SPECS[name] for name in STACKED},
    **{name: {"network": {"depth": 3, "width": 8, "activation": name}} for name in ACTIVATIONS},
    "exploding": {**SPECS["plain sgd"], "network": {"depth": 4, "width": 8, "activation": "relu"}},
    "one layer": {"network": {"depth": 1}},
    "wide": {"network": {"depth": 3, "width": 40, "activation": "relu"}},
    "rms normalization": {"network": {"depth": 4, "width": 8, "activation": "tanh", "normalization": "rms"}},
    "residual": {"network": {"depth": 5, "width": 8, "activation": "relu", "residual": True}},
    "standard": {"dataset": {"name": "mnist", "normalization": "standard"}},
}
#: What clipping leaves of first gradients is compared by its statistics.
UNCLIPPED = [name for name in SHAPES if "gradient_clipping" not in SHAPES[name]]
#: Relative to the largest value of a statistic and layer: how far rounding carries a run of `ITERATIONS` steps.
TOLERANCE = 2e-4


def members(name: str, count: int = 3) -> dict[str, Spec]:
    """Specs of one shape that differ in seed and learning rate."""
    document = spec_of(SHAPES[name]).model_dump(mode="json")
    found = {}
    for index in range(count):
        document["training"]["seed"] = 5 + index
        document["optimizer"]["learning_rate"] *= 1 + index / 10
        found[str(index)] = Spec.model_validate(document)
    return found


def test_what_is_compared_here_can_be_stacked() -> None:
    assert {"adam", "rmsprop", "momentum", "clipping by norm", "batch normalization"} <= set(STACKED)
    assert {stack_key(spec) for spec in members("adam").values()} == {stack_key(spec_of(SHAPES["adam"]))}


@pytest.mark.parametrize("name", UNCLIPPED)
def test_first_gradients_are_those_of_a_run_by_itself(name: str) -> None:
    specs = members(name)
    stack = Stack(lanes_of(specs), DATA, 64)
    stack.step()
    assert_gradients(stack.gradients, specs)


def assert_gradients(gradients: torch.Tensor, specs: dict[str, Spec]) -> None:
    """[M, P], of the first step: each member's are those of a run by itself."""
    for row, spec in zip(gradients, specs.values(), strict=True):
        layout = Layout(spec.network)
        expected = alone(spec, layout)
        for part in layout.parts:
            ours, theirs = row[part.start : part.end], expected[part.start : part.end]
            # Of a bias, scale or slope the gradient is a sum that may cancel, up to nothing but rounding.
            size = theirs if part.name.startswith("weight") else expected
            tolerance = 1e-6 if spec.network.normalization == "none" else 2e-6
            assert float((ours - theirs).norm()) <= tolerance * float(size.norm()), part.name


def alone(spec: Spec, layout: Layout) -> torch.Tensor:
    """The first step's gradients as autograd gives them for one network, in float64's order of magnitude."""
    module = builders.build(spec.network, batches.initialization_generator(spec.training.seed))
    chosen = Order(len(DATA), spec.training.seed).take(spec.training.batch_size)
    loss = functional.cross_entropy(module(DATASET.train_images[chosen]), DATASET.train_labels[chosen])
    loss.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    found = layout.row_of(module)
    if spec.optimizer.weight_decay and spec.optimizer.name != "adamw":
        raise AssertionError("decay would be in the gradients")
    return found


def assert_close(found: Recorded, expected: Recorded, spec: Spec) -> None:
    tensors: list[Any] = [*spec.recording.tensors]
    if spec.gradient_clipping is not None:
        tensors.append("clipped_weight_gradients")
    for tensor in tensors:
        one, other = found.statistics(tensor), expected.statistics(tensor)
        assert one.steps.tolist() == other.steps.tolist()
        for name, ours, theirs in zip(names(tensor), one.values, other.values, strict=True):
            if name.endswith("fraction"):  # a unit more or less
                np.testing.assert_allclose(ours, theirs, atol=0.05, err_msg=f"{tensor}: {name}")
                continue
            # A mean's size is that of what it is the mean of: of a layer's gradients it may be zero but for rounding.
            size = (
                other.values[names(tensor).index("mean_abs")]
                if name == "mean" and "mean_abs" in names(tensor)
                else theirs
            )
            largest = np.abs(size).max(axis=1, keepdims=True)
            assert (np.abs(ours - theirs) <= TOLERANCE * largest + 1e-9).all(), f"{tensor}: {name}"
    for row, tolerance in ((0, 1e-4), (2, 1e-6), (3, 1e-3)):  # loss, learning rate, gradient norm
        np.testing.assert_allclose(found.metrics.values[row], expected.metrics.values[row], rtol=tolerance)
    tolerance = 1e-3 if spec.network.normalization == "batch" else 1e-4  # thirteen samples have a small variance
    np.testing.assert_allclose(found.evaluations.values[0], expected.evaluations.values[0], rtol=tolerance)
    assert found.evaluations.steps.tolist() == expected.evaluations.steps.tolist()
    for tensor in ("weight_gradients", "output_gradients"):
        assert found.counts(tensor).steps.tolist() == expected.counts(tensor).steps.tolist()


@pytest.mark.parametrize("name", SHAPES)
def test_its_series_is_that_of_a_run_by_itself_to_float_tolerance(name: str) -> None:
    specs = members(name)
    company = together(specs)
    for identifier, spec in specs.items():
        assert_close(company.recorded(identifier), record(spec, DATASET), spec)


@pytest.mark.parametrize("name", SHAPES)
def test_company_changes_no_bit(name: str) -> None:
    specs = members(name, 5)
    company = together(specs)
    for identifier in ("1", "4"):
        by_itself = together({identifier: specs[identifier]})
        assert_same(company.recorded(identifier), by_itself.recorded(identifier), specs[identifier])


@pytest.mark.parametrize("name", STACKED)
def test_stopped_and_gone_on_with_alone_or_together_it_is_what_it_would_have_been(name: str) -> None:
    specs = members(name)
    whole = together(specs)
    for split in (False, True):
        parts = in_parts(specs, [3, 14], split)
        for identifier, spec in specs.items():
            assert_same(parts[identifier], whole.recorded(identifier), spec)


def test_one_that_explodes_harms_no_other() -> None:
    specs = members("exploding")
    document = specs["1"].model_dump(mode="json")
    document["optimizer"]["learning_rate"] = 1e3
    document["network"]["initialization"] = {"name": "normal", "std": 1e5}
    exploding = specs | {"1": Spec.model_validate(document)}
    company = together(exploding)
    counted = (
        company.recorded("1").statistics("weight_gradients").values[names("weight_gradients").index("nonfinite_count")]
    )
    assert counted.sum() > 0
    for identifier in ("0", "2"):
        by_itself = together({identifier: specs[identifier]})
        assert_same(company.recorded(identifier), by_itself.recorded(identifier), specs[identifier])


def test_members_of_other_lengths_and_recordings_leave_one_after_another() -> None:
    specs = members("adam")
    for identifier, changes in {
        "0": {"training": {"iterations": 12}, "recording": {"every": 5, "histograms_every": 3}},
        "2": {"training": {"iterations": 30}, "recording": {"every": 1, "evaluate_every": 7}},
    }.items():
        document = specs[identifier].model_dump(mode="json")
        for part, values in changes.items():
            document[part] |= values
        specs[identifier] = Spec.model_validate(document)
    company = together(specs)
    assert list(company.outcomes) == ["0", "2", "1"]
    for identifier, spec in specs.items():
        by_itself = together({identifier: spec})
        assert_same(company.recorded(identifier), by_itself.recorded(identifier), spec)


def test_one_that_leaves_is_stored_to_where_it_was_and_the_others_go_on() -> None:
    specs = members("momentum")
    company = together(specs, leave=lambda steps: {"1"} if steps >= 10 else ())
    assert set(company.outcomes) == {"0", "2"}
    assert company.chunks["1"][-1].iteration == 10
    for identifier in ("0", "2"):
        by_itself = together({identifier: specs[identifier]})
        assert_same(company.recorded(identifier), by_itself.recorded(identifier), specs[identifier])


def test_each_flush_brings_every_step_once() -> None:
    specs = members("adam")
    company = together(specs)
    for identifier in specs:
        assert company.recorded(identifier).metrics.steps.tolist() == list(range(ITERATIONS))
        assert company.chunks[identifier][-1].iteration == ITERATIONS
