"""The classic demonstration on the real MNIST: in a deep sigmoid net the gradient is gone before the input."""

import pytest

from gradprobe.settings import Settings
from gradprobe.spec import Spec
from tests.numerics.replay import record
from worker.data import Dataset, load


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """From the machine's cache, fetched where there is none."""
    return load("mnist", "unit", Settings())


def first_step(activation: str, initialization: str, dataset: Dataset) -> dict[str, list[float]]:
    """Mean |gradient| of each layer at the first step, by tensor."""
    spec = Spec.model_validate(
        {
            "network": {"activation": activation, "initialization": initialization},
            "training": {"iterations": 3, "batch_size": 100, "device": "cpu"},
        }
    )
    recorded = record(spec, dataset)
    return {
        tensor: [recorded.of_layer(tensor, layer, 0)["mean_abs"] for layer in range(6)]
        for tensor in ("output_gradients", "weight_gradients")
    }


@pytest.mark.parametrize("tensor", ["output_gradients", "weight_gradients"])
def test_sigmoid_starves_the_first_layer(tensor: str, mnist: Dataset) -> None:
    gradients = first_step("sigmoid", "xavier_uniform", mnist)[tensor]
    assert gradients[-1] > 100 * gradients[0] > 0
    assert gradients == sorted(gradients)


@pytest.mark.parametrize("tensor", ["output_gradients", "weight_gradients"])
def test_relu_feeds_every_layer(tensor: str, mnist: Dataset) -> None:
    gradients = first_step("relu", "he_normal", mnist)[tensor]
    assert 0.1 < gradients[-1] / gradients[0] < 10
