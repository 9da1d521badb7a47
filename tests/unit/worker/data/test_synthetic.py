import pytest
import torch
from torch import nn

from gradprobe.settings import Settings
from worker.data import Dataset, load
from worker.data.dataset import moments
from worker.data.synthetic import CLASS_SPREAD, draw


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_directory=tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def datasets(settings: Settings) -> dict[str, Dataset]:
    """In both normalizations; drawing 70,000 images takes a second each."""
    return {normalization: load("synthetic", normalization, settings) for normalization in ("unit", "standard")}


def test_it_is_the_same_at_every_draw_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = draw((50, 20), 784, 10), draw((50, 20), 784, 10)
    torch.manual_seed(123)
    third = draw((50, 20), 784, 10)
    torch.set_rng_state(before)
    draw((50, 20), 784, 10)
    assert torch.equal(torch.get_rng_state(), before)
    for again in (second, third):
        for one, other in zip(first, again, strict=True):
            assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_classes_are_gaussian_around_their_own_means() -> None:
    (samples, _), (labels, _) = draw((20_000, 1), 64, 10)
    means = torch.stack([samples[labels == label].mean(0) for label in range(10)])
    residues = samples - means[labels]
    assert residues.std().item() == pytest.approx(1.0, abs=0.01)
    assert means.std().item() == pytest.approx(CLASS_SPREAD, rel=0.15)
    assert labels.bincount(minlength=10).min() > 1_800


def test_it_has_mnist_s_shape_and_needs_no_file(datasets: dict[str, Dataset], settings: Settings) -> None:
    dataset = datasets["unit"]
    assert (dataset.train_images.shape, dataset.test_images.shape) == ((60_000, 784), (10_000, 784))
    assert (dataset.train_labels.dtype, dataset.train_images.dtype) == (torch.int64, torch.float32)
    assert dataset.sha256 is None
    assert not settings.dataset_cache.exists()


def test_normalizations_mean_what_they_say(datasets: dict[str, Dataset]) -> None:
    unit = datasets["unit"]
    assert (unit.train_images.min().item(), unit.train_images.max().item()) == (0.0, 1.0)
    assert (unit.test_images.min().item(), unit.test_images.max().item()) == (0.0, 1.0)
    assert moments(datasets["standard"].train_images) == pytest.approx((0.0, 1.0), abs=1e-6)


@pytest.mark.parametrize("normalization", ["unit", "standard"])
def test_a_perceptron_learns_it(normalization: str, datasets: dict[str, Dataset]) -> None:
    assert _accuracy_after_training(datasets[normalization]) > 0.98


def _accuracy_after_training(dataset: Dataset) -> float:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for start in range(0, 32_000, 128):
        images, labels = dataset.train_images[start : start + 128], dataset.train_labels[start : start + 128]
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(images), labels))
        optimizer.step()
    correct = network(dataset.test_images).argmax(1) == dataset.test_labels
    return float(correct.double().mean())
