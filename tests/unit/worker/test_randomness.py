"""Dropout's masks come from the spec's seed, with or without a probe; the process's own random numbers stay."""

from typing import Any

import numpy as np
import pytest
import torch

from gradprobe.spec import Spec
from tests.numerics.replay import CPU, record, small_dataset
from tests.numerics.retrain import retrain
from worker import randomness


def spec_of(seed: int = 0, **recording: Any) -> Spec:
    return Spec.model_validate(
        {
            "network": {"depth": 3, "width": 12, "activation": "tanh", "dropout": 0.4},
            "training": {"iterations": 6, "batch_size": 8, "seed": seed, "device": "cpu"},
            "recording": {"evaluate_every": 2, **recording},
        }
    )


def losses(spec: Spec) -> list[float]:
    values: list[float] = record(spec, small_dataset()).metrics.values[0, 0].tolist()
    return values


def test_the_seed_gives_the_masks() -> None:
    first = losses(spec_of())
    torch.manual_seed(99)
    assert losses(spec_of()) == first == [np.float32(step.loss) for step in retrain(spec_of(), small_dataset())]
    assert losses(spec_of(seed=1)) != first


def test_how_often_it_is_evaluated_changes_no_mask() -> None:
    assert losses(spec_of(evaluate_every=1)) == losses(spec_of(evaluate_every=1000))


def test_the_processs_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    losses(spec_of())
    assert torch.equal(before, torch.get_rng_state())


def test_they_are_given_back_when_the_training_fails() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with randomness.dropout_from(0, CPU):
            torch.rand(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(before, torch.get_rng_state())


def test_streams_of_one_seed_differ() -> None:
    streams = (randomness.INITIALIZATION, randomness.ORDER)
    drawn = [float(torch.rand(1, generator=randomness.generator(7, stream))) for stream in streams]
    with randomness.dropout_from(7, CPU):
        drawn.append(float(torch.rand(1)))
    assert len(set(drawn)) == 3
