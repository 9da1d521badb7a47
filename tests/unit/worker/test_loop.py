"""The training loop: the same numbers as without a probe, every step handed on once, stopped where asked."""

import math

import numpy as np
import pytest
import torch

from gradprobe.errors import ExperimentCancelled
from gradprobe.spec import Spec
from gradprobe.statistics import names
from tests.numerics.replay import record, replay, small_dataset
from worker.loop import Chunk, Pace, train

ITERATIONS = 60
OPTIMIZERS = ["sgd", "adam", "adamw", "rmsprop"]
ACTIVATIONS = ["sigmoid", "relu", "prelu", "gelu", "selu", "hardtanh"]
EAGER = Pace(flush_seconds=0.0, first_flush_seconds=0.0)


def spec_of(activation: str = "tanh", optimizer: str = "adam", **recording: object) -> Spec:
    return Spec.model_validate(
        {
            "network": {"depth": 3, "width": 8, "activation": activation},
            "optimizer": {"name": optimizer, "learning_rate": 0.01},
            "training": {"iterations": ITERATIONS, "batch_size": 12, "device": "cpu"},
            "recording": {"evaluate_every": 20, **recording},
        }
    )


@pytest.mark.parametrize(
    ("activation", "optimizer"),
    [*((name, "adam") for name in ACTIVATIONS), *(("tanh", name) for name in OPTIMIZERS)],
)
def test_losses_are_bit_identical_to_a_loop_without_a_probe(activation: str, optimizer: str) -> None:
    spec, dataset = spec_of(activation, optimizer), small_dataset()
    losses = record(spec, dataset).metrics.values[names("metrics").index("loss"), 0]
    assert losses.tolist() == [np.float32(step.loss) for step in replay(spec, dataset)]
    assert losses[0] != losses[-1]


def test_flushing_at_every_step_changes_nothing() -> None:
    spec, dataset = spec_of(), small_dataset()
    once, often = record(spec, dataset), record(spec, dataset, EAGER)
    assert len(once.chunks) < len(often.chunks) >= ITERATIONS
    assert [chunk.iteration for chunk in often.chunks] == [*range(1, ITERATIONS + 1), ITERATIONS]
    for tensor in spec.recording.tensors:
        assert once.statistics(tensor).steps.tolist() == list(range(ITERATIONS))
        np.testing.assert_array_equal(once.statistics(tensor).values, often.statistics(tensor).values)
    unmeasured = names("metrics").index("seconds_per_iteration")
    np.testing.assert_array_equal(once.metrics.values[:unmeasured], often.metrics.values[:unmeasured])
    np.testing.assert_array_equal(once.evaluations.values, often.evaluations.values)


@pytest.mark.parametrize(("every", "evaluate_every"), [(1, 1), (7, 25), (1000, 1000), (3, 60)])
def test_each_scheduled_step_is_handed_on_once(every: int, evaluate_every: int) -> None:
    spec = spec_of(every=every, histograms_every=5, evaluate_every=evaluate_every)
    recorded = record(spec, small_dataset(), EAGER)
    scheduled = list(range(0, ITERATIONS, every))
    assert recorded.metrics.steps.tolist() == scheduled
    assert recorded.statistics("weights").steps.tolist() == scheduled
    assert recorded.counts("weight_gradients").steps.tolist() == list(range(0, ITERATIONS, 5))
    assert recorded.evaluations.steps.tolist() == [*range(0, ITERATIONS, evaluate_every), ITERATIONS]


@pytest.mark.parametrize("every", [1, 9])
def test_the_outcome_is_the_last_losses_mean_and_the_last_evaluation(every: int) -> None:
    recorded = record(spec_of(every=every), small_dataset())
    losses = recorded.metrics.values[0, 0].tolist()
    assert recorded.outcome.final_loss == pytest.approx(math.fsum(losses[-100:]) / len(losses[-100:]), rel=1e-12)
    assert recorded.evaluations.values[:, 0, -1].tolist() == [
        np.float32(recorded.outcome.test.loss),
        np.float32(recorded.outcome.test.accuracy),
    ]
    assert 0 < recorded.outcome.seconds < 60
    assert recorded.outcome.train.loss < recorded.evaluations.values[0, 0, 0]


def test_final_loss_is_over_the_last_hundred_steps_only() -> None:
    document = spec_of().model_dump(mode="json")
    document["training"]["iterations"] = 130
    recorded = record(Spec.model_validate(document), small_dataset(), EAGER)
    losses = recorded.metrics.values[0, 0].tolist()
    assert recorded.outcome.final_loss == pytest.approx(math.fsum(losses[30:]) / 100, rel=1e-12)


def test_the_same_spec_trains_the_same_and_another_seed_does_not() -> None:
    dataset = small_dataset()
    first, again = (record(spec_of(), dataset).statistics("weights").values for _ in range(2))
    np.testing.assert_array_equal(first, again)
    document = spec_of().model_dump(mode="json")
    document["training"]["seed"] = 1
    assert not np.array_equal(first, record(Spec.model_validate(document), dataset).statistics("weights").values)


def test_what_keep_going_raises_stops_the_training() -> None:
    chunks: list[Chunk] = []
    calls = iter(range(ITERATIONS))

    def keep(chunk: Chunk) -> None:
        chunks.append(chunk)

    def until_ten() -> None:
        if next(calls) == 10:
            raise ExperimentCancelled

    with pytest.raises(ExperimentCancelled):
        train(spec_of(), small_dataset(), torch.device("cpu"), keep, EAGER, until_ten)
    assert [chunk.iteration for chunk in chunks] == list(range(1, 11))


def test_what_a_sink_raises_stops_the_training() -> None:
    def full(chunk: Chunk) -> None:
        raise OSError(f"no space left at {chunk.iteration}")

    with pytest.raises(OSError, match="no space left"):
        train(spec_of(), small_dataset(), torch.device("cpu"), full, Pace())


def test_a_run_that_diverges_is_recorded_to_its_end() -> None:
    document = spec_of("identity", "sgd").model_dump(mode="json")
    document["optimizer"]["learning_rate"] = 1000.0
    recorded = record(Spec.model_validate(document), small_dataset())
    losses = recorded.metrics.values[0, 0]
    assert np.isfinite(losses[0])
    assert not np.isfinite(losses[-1])
    assert len(losses) == ITERATIONS
    assert not math.isfinite(recorded.outcome.final_loss)
    last = recorded.of_layer("weight_gradients", 0, ITERATIONS - 1)
    assert last["nonfinite_count"] > 0
