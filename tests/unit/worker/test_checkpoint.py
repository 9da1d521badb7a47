"""Stopped anywhere and gone on with from its checkpoint, a run is bit for bit what it would have been."""

import itertools
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradprobe.errors import WorkerStopping
from gradprobe.spec import Spec
from gradprobe.statistics import names
from tests.numerics.replay import Recorded, small_dataset
from worker import checkpoint
from worker.checkpoint import Calendar, Checkpoint, CheckpointUnusable
from worker.loop import Chunk, Pace, train

ITERATIONS = 40
CPU = torch.device("cpu")
DATASET = small_dataset()
NETWORK = {"depth": 4, "width": 8, "activation": "tanh"}
IMAGES = {"depth": 4, "width": 4, "activation": "relu"}

#: What each adds to the state that an iteration depends on.
SPECS: dict[str, dict[str, Any]] = {
    "plain sgd": {"optimizer": {"name": "sgd", "learning_rate": 0.1}},
    "momentum": {"optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True}},
    "adam": {"optimizer": {"name": "adam", "learning_rate": 0.01}},
    "adamw": {"optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1}},
    "rmsprop": {"optimizer": {"name": "rmsprop", "learning_rate": 0.003}},
    "cosine": {"optimizer": {"name": "adam", "learning_rate": 0.01, "schedule": {"name": "cosine"}}},
    "steps": {
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "schedule": {"name": "step", "every": 7, "factor": 0.5}}
    },
    "warm-up": {
        "optimizer": {"name": "adam", "learning_rate": 0.01, "schedule": {"name": "linear_warmup", "iterations": 20}}
    },
    "dropout": {"network": {**NETWORK, "dropout": 0.3}},
    "batch normalization": {"network": {**NETWORK, "normalization": "batch"}},
    "layer normalization": {"network": {**NETWORK, "normalization": "layer", "residual": True}},
    "prelu": {"network": {**NETWORK, "activation": "prelu"}},
    "clipping by norm": {"gradient_clipping": {"kind": "norm", "max_norm": 0.1}},
    "clipping by value": {"gradient_clipping": {"kind": "value", "max_value": 0.001}},
    "float16": {"training": {"precision": "float16"}},
    "float16 with momentum": {
        "training": {"precision": "float16"},
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    },
    "bfloat16": {"training": {"precision": "bfloat16"}},
    "conv": {"network": {**IMAGES, "kind": "conv", "normalization": "batch", "dropout": 0.2}},
    "resnet": {"network": {**IMAGES, "kind": "resnet", "normalization": "batch"}},
    "seldom recorded": {"recording": {"every": 3, "histograms_every": 7, "evaluate_every": 5}},
    "all at once": {
        "network": {**NETWORK, "activation": "prelu", "normalization": "batch", "dropout": 0.2},
        "gradient_clipping": {"kind": "norm", "max_norm": 0.5},
        "optimizer": {
            "name": "sgd", "learning_rate": 0.05, "momentum": 0.9,
            "schedule": {"name": "cosine", "final_factor": 0.1},
        },
        "training": {"precision": "float16"},
    },
}  # fmt: skip


def spec_of(changes: dict[str, Any], iterations: int = ITERATIONS) -> Spec:
    document: dict[str, Any] = {
        "network": NETWORK,
        "training": {"iterations": iterations, "batch_size": 13, "device": "cpu", "seed": 5},
        "recording": {"histograms_every": 5, "evaluate_every": 10},
    }
    for part, values in changes.items():
        merged = {**document[part], **values} if part in ("training", "recording") else values
        document[part] = merged
    return Spec.model_validate(document)


def run(spec: Spec, stop_after: int | None = None, resume: bytes | None = None) -> Recorded:
    """To the end, or to the iteration where the worker is asked to stop."""
    chunks: list[Chunk] = []
    looks = itertools.count(Checkpoint.read(resume).position.step if resume else 0)

    def keep_going() -> None:
        if next(looks) == stop_after:
            raise WorkerStopping

    pace = Pace(0.01, 0.01, resume=Checkpoint.read(resume) if resume else None)
    outcome: Any = None
    try:
        outcome = train(spec, DATASET, CPU, chunks.append, pace, keep_going)
    except WorkerStopping:
        assert stop_after is not None
    return Recorded(outcome, chunks)


def stopped_and_gone_on_with(spec: Spec, stops: list[int]) -> Recorded:
    chunks: list[Chunk] = []
    state: bytes | None = None
    for stop in [*stops, None]:
        part = run(spec, stop, state)
        chunks += part.chunks
        state = part.chunks[-1].state
        assert (state is None) == (stop is None)
    return Recorded(part.outcome, chunks)


def assert_same(found: Recorded, expected: Recorded, spec: Spec) -> None:
    tensors: list[Any] = [*spec.recording.tensors]
    if spec.gradient_clipping is not None:
        tensors.append("clipped_weight_gradients")
    for tensor in tensors:
        one, other = found.statistics(tensor), expected.statistics(tensor)
        assert one.steps.tolist() == other.steps.tolist()
        for name, ours, theirs in zip(names(tensor), one.values, other.values, strict=True):
            assert ours.tobytes() == theirs.tobytes(), f"{tensor}: {name}"
    for tensor in ("weight_gradients", "output_gradients"):
        assert found.counts(tensor).encode() == expected.counts(tensor).encode()
    timed = names("metrics").index("seconds_per_iteration")
    assert found.metrics.values[:timed].tobytes() == expected.metrics.values[:timed].tobytes()
    assert found.evaluations.encode() == expected.evaluations.encode()
    assert found.outcome.final_loss == expected.outcome.final_loss
    assert (found.outcome.train, found.outcome.test) == (expected.outcome.train, expected.outcome.test)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=2, derandomize=True)
@given(stops=st.lists(st.integers(1, ITERATIONS - 1), min_size=1, max_size=3, unique=True).map(sorted))
def test_stopped_anywhere_it_is_what_it_would_have_been(name: str, stops: list[int]) -> None:
    spec = spec_of(SPECS[name])
    assert_same(stopped_and_gone_on_with(spec, stops), run(spec), spec)


def saved(spec: Spec, after: int = 7) -> bytes:
    state = run(spec, after).chunks[-1].state
    assert state is not None
    return state


def test_it_holds_everything_that_the_next_iteration_depends_on() -> None:
    arrays = Checkpoint.read(saved(spec_of(SPECS["all at once"]))).arrays
    kinds = {".".join(name.split(".")[:2]) for name in arrays}
    assert kinds == {
        "step", "seconds", "losses", "data.generator", "data.left", "random.dropout", "learner.network",
        "learner.optimizer", "learner.scaler",
    }  # fmt: skip
    names_in = " ".join(arrays)
    assert all(name in names_in for name in ("running_var", "momentum_buffer", "_growth_tracker"))
    assert int(arrays["step"]) == 7
    assert len(arrays["losses"]) == 7


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("random.", "dropout"),
        ("data.", "plain sgd"),
        ("learner.optimizer.", "momentum"),
        ("learner.network.", "plain sgd"),
        ("learner.scaler.scale", "float16 with momentum"),
        ("losses", "adam"),
    ],
)
def test_each_part_of_it_matters(part: str, name: str) -> None:
    """The comparison above would notice if one were not put back."""
    spec = spec_of(SPECS[name])
    state = saved(spec, 9)
    arrays, fresh = (safetensors.numpy.load(one) for one in (state, saved(spec, 3)))
    changed = {key: fresh[key] if key.startswith(part) else array for key, array in arrays.items()}
    if part == "learner.scaler.scale":
        changed[part] = np.array(2.0**-9)
    mixed = safetensors.numpy.save(changed, {"format": "1", "device": "cpu"})
    whole = run(spec)
    tail = Recorded(None, [*run(spec, 9).chunks, *run(spec, resume=mixed).chunks])  # type: ignore[arg-type]
    tail.outcome = run(spec, resume=mixed).outcome
    with pytest.raises(AssertionError):
        assert_same(tail, whole, spec)


def test_training_time_adds_up() -> None:
    spec = spec_of({})
    state = saved(spec, 20)
    assert 0 < Checkpoint.read(state).position.seconds < run(spec, resume=state).outcome.seconds


def test_it_is_small_where_the_network_is() -> None:
    """The order of 60,000 images would be larger than everything else: the generator's state stands for it."""
    assert len(saved(spec_of({}))) < 100_000


@pytest.mark.parametrize(
    "state",
    [b"", b"\x80\x04nonsense", b"\xff" * 64, safetensors.numpy.save({"step": np.array(1)}, {"format": "1"})],
    ids=["empty", "pickle", "huge header", "incomplete"],
)
def test_what_is_no_checkpoint_is_refused(state: bytes) -> None:
    with pytest.raises(CheckpointUnusable):
        Checkpoint.read(state)


def test_another_release_s_is_refused() -> None:
    state = safetensors.numpy.save(safetensors.numpy.load(saved(spec_of({}))), {"format": "0", "device": "cpu"})
    with pytest.raises(CheckpointUnusable, match="another release"):
        Checkpoint.read(state)


@pytest.mark.parametrize("name", ["conv", "dropout"])
def test_another_network_s_is_refused(name: str) -> None:
    state = saved(spec_of({"network": {**NETWORK, "width": 9}}))
    with pytest.raises(CheckpointUnusable, match="does not fit"):
        run(spec_of(SPECS[name]), resume=state)


def test_another_device_s_is_refused() -> None:
    state = safetensors.numpy.save(safetensors.numpy.load(saved(spec_of({}))), {"format": "1", "device": "cuda"})
    with pytest.raises(CheckpointUnusable, match="saved on cuda"):
        run(spec_of({}), resume=state)


def test_saving_takes_a_twentieth_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    calendar = Calendar(10.0)
    for took, wait in [(0.1, 10.0), (0.5, 10.0), (2.0, 40.0), (30.0, 600.0)]:
        calendar.saved(took)
        now[0] += wait - 0.01
        assert not calendar.due
        now[0] += 0.02
        assert calendar.due
