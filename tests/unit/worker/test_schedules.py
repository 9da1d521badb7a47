"""Learning rates in closed form against torch's schedulers, step by step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from gradprobe.spec import Spec
from gradprobe.statistics import names
from tests.numerics.replay import record, small_dataset
from worker import schedules

RATE = 0.3
Make = Callable[[optim.Optimizer, int], lr_scheduler.LRScheduler]


def cosine(optimizer: optim.Optimizer, iterations: int, final: float = 0.0) -> lr_scheduler.LRScheduler:
    return lr_scheduler.CosineAnnealingLR(optimizer, max(1, iterations - 1), RATE * final)


CASES: list[tuple[Any, Make]] = [
    ("constant", lambda optimizer, _: lr_scheduler.ConstantLR(optimizer, 1.0)),
    ("cosine", cosine),
    ({"name": "cosine", "final_factor": 0.2}, lambda optimizer, iterations: cosine(optimizer, iterations, 0.2)),
    ({"name": "step", "every": 7, "factor": 0.5}, lambda optimizer, _: lr_scheduler.StepLR(optimizer, 7, 0.5)),
    ("step", lambda optimizer, _: lr_scheduler.StepLR(optimizer, 1000, 0.1)),
    (
        {"name": "linear_warmup", "iterations": 9},
        lambda optimizer, _: lr_scheduler.LinearLR(optimizer, 1 / 9, 1.0, total_iters=8),
    ),
]


def spec_of(schedule: Any, iterations: int) -> Spec:
    optimizer = {"name": "sgd", "learning_rate": RATE, "schedule": schedule}
    training = {"iterations": iterations, "device": "cpu"}
    return Spec.model_validate({"network": {"depth": 2}, "optimizer": optimizer, "training": training})


@pytest.mark.parametrize(("schedule", "make"), CASES, ids=[str(case) for case, _ in CASES])
@pytest.mark.parametrize("iterations", [1, 2, 30])
def test_the_rate_of_every_step_is_torchs(schedule: Any, make: Make, iterations: int) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    plain = optim.SGD([parameter], lr=RATE)
    scheduler, expected = make(plain, iterations), []
    for _ in range(iterations):
        expected.append(plain.param_groups[0]["lr"])
        plain.step()
        scheduler.step()
    spec = spec_of(schedule, iterations)
    ours = optim.SGD([{"params": [parameter]}, {"params": [nn.Parameter(torch.zeros(1))]}], lr=RATE)
    for step, rate in enumerate(expected):
        assert schedules.apply(ours, spec.optimizer, step, iterations) == pytest.approx(rate, rel=1e-9, abs=1e-12)
        assert {group["lr"] for group in ours.param_groups} == {schedules.apply(ours, spec.optimizer, step, iterations)}


def test_the_cases_differ() -> None:
    rates = [
        tuple(RATE * schedules.factor(spec_of(case, 30).optimizer.schedule, step, 30) for step in range(30))
        for case, _ in CASES
    ]
    assert rates[0] == rates[4] == (RATE,) * 30, "its first drop comes after a thousand iterations"
    assert len(set(rates)) == len(CASES) - 1


def test_the_rate_that_is_recorded_is_the_steps() -> None:
    recorded = record(spec_of({"name": "linear_warmup", "iterations": 4}, 6), small_dataset())
    rates = recorded.metrics.values[names("metrics").index("learning_rate"), 0]
    assert rates.tolist() == pytest.approx([RATE * factor for factor in (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)])
