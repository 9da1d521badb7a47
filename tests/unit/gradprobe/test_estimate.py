"""What is told of an experiment beforehand: plausible, and it grows with what costs."""

from typing import Any

import pytest

from gradprobe.estimate import Estimate, estimate
from gradprobe.spec import Spec


def of(document: dict[str, Any]) -> Estimate:
    return estimate(Spec.model_validate(document))


def test_the_classic_experiment_takes_seconds() -> None:
    found = of({})

    assert found.parameters == 784 * 10 + 10 + 5 * (10 * 10 + 10)
    assert found.unit_iterations == 6 * 10 * 2500
    assert 0.5 < found.seconds < 60
    assert 2**29 < found.memory_bytes < 2**32
    assert 10**6 < found.stored_bytes < 10**8


@pytest.mark.parametrize(
    ("document", "figure"),
    [
        ({"training": {"iterations": 5000}}, "seconds"),
        ({"training": {"iterations": 5000}}, "stored_bytes"),
        ({"training": {"batch_size": 300}}, "seconds"),
        ({"training": {"batch_size": 10_000}, "network": {"width": 1000}}, "memory_bytes"),
        ({"network": {"depth": 60}}, "seconds"),
        ({"network": {"depth": 60}}, "stored_bytes"),
        ({"network": {"width": 2500}}, "seconds"),
        ({"network": {"width": 2500}}, "memory_bytes"),
        ({"network": {"kind": "resnet"}}, "seconds"),
        ({"gradient_clipping": {"kind": "norm", "max_norm": 1.0}}, "stored_bytes"),
        ({"recording": {"evaluate_every": 1}}, "seconds"),
        ({"recording": {"histograms_every": 1}}, "stored_bytes"),
    ],
)
def test_what_costs_more_is_told_to_cost_more(document: dict[str, Any], figure: str) -> None:
    assert getattr(of(document), figure) > 1.02 * getattr(of({}), figure)


@pytest.mark.parametrize("figure", ["seconds", "stored_bytes"])
def test_recording_less_costs_less(figure: str) -> None:
    less = {"recording": {"every": 100, "histograms_every": 100}}
    assert getattr(of(less), figure) < getattr(of({}), figure)


def test_nothing_recorded_of_a_tensor_takes_no_storage() -> None:
    few, all_ = of({"recording": {"tensors": ["weights"]}}), of({})
    assert few.stored_bytes < all_.stored_bytes / 2
