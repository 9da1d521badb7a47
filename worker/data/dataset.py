"""Data sets as tensors, normalized, ready for training."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod, sqrt

import torch

from gradprobe.settings import Settings
from worker.data import idx, synthetic
from worker.data.cache import obtain
from worker.data.files import DatasetFile
from worker.data.mnist import IMAGE_SHAPE, MANIFESTS, TEST_COUNT, TRAIN_COUNT
from worker.data.sources import sources_of

CLASS_COUNT = 10
NORMALIZATIONS = ("unit", "standard")
# Each takes about 220 MB; two let experiments on two data sets take turns.
_DATASETS_IN_MEMORY = 2
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training set and a test set. The tensors are shared by all who load them: read, never write."""

    name: str
    train_images: torch.Tensor  # float32 [60000, 784]
    train_labels: torch.Tensor  # int64 [60000], 0…9
    test_images: torch.Tensor  # float32 [10000, 784]
    test_labels: torch.Tensor  # int64 [10000]
    sha256: str | None  # of the four files' hexadecimal digests, one after another; None where there are no files
    image_shape: tuple[int, int] = IMAGE_SHAPE
    class_count: int = CLASS_COUNT


def load(name: str, normalization: str, settings: Settings) -> Dataset:
    """A data set: mnist, fashion_mnist or synthetic. The second time in a process costs nothing.

    Args:
        name: which data set.
        normalization: "unit", pixels in 0…1; "standard", mean 0 and variance 1 over all the training set's pixels.
        settings: where its files may be and where they are kept.

    Raises:
        DatasetUnavailable: no source has its files.
        DataDirectoryUnusable: the cache can't be written.
        ValueError: there is no such data set or normalization.
    """
    if name not in (*MANIFESTS, "synthetic") or normalization not in NORMALIZATIONS:
        raise ValueError(f"no data set {name!r} with normalization {normalization!r}")
    return _load(name, normalization, settings)


@lru_cache(maxsize=_DATASETS_IN_MEMORY)
def _load(name: str, normalization: str, settings: Settings) -> Dataset:
    dataset = _draw(normalization) if name == "synthetic" else _read(name, settings)
    if normalization == "standard":
        mean, deviation = moments(dataset.train_images)
        for images in (dataset.train_images, dataset.test_images):
            images.sub_(mean).div_(deviation)
    return dataset


def _read(name: str, settings: Settings) -> Dataset:
    manifest = MANIFESTS[name]
    contents = obtain(manifest, settings.dataset_cache, sources_of(manifest, settings))
    return Dataset(
        name=name,
        train_images=_images(manifest.train_images, contents),
        train_labels=_labels(manifest.train_labels, contents),
        test_images=_images(manifest.test_images, contents),
        test_labels=_labels(manifest.test_labels, contents),
        sha256=manifest.sha256,
    )


def _draw(normalization: str) -> Dataset:
    images, labels = synthetic.draw((TRAIN_COUNT, TEST_COUNT), prod(IMAGE_SHAPE), CLASS_COUNT)
    if normalization == "unit":
        images = [synthetic.to_unit_(samples) for samples in images]
    return Dataset("synthetic", images[0], labels[0], images[1], labels[1], sha256=None)


def _images(file: DatasetFile, contents: dict[DatasetFile, bytes]) -> torch.Tensor:
    pixels = idx.parse(contents[file], file.shape).reshape(file.shape[0], -1)
    return torch.from_numpy(pixels.astype("float32")).div_(255.0)


def _labels(file: DatasetFile, contents: dict[DatasetFile, bytes]) -> torch.Tensor:
    return torch.from_numpy(idx.parse(contents[file], file.shape).astype("int64"))


def moments(images: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation over all elements, in float64, a few rows at a time to spare memory."""
    blocks = [images[start : start + _ROWS_AT_ONCE] for start in range(0, len(images), _ROWS_AT_ONCE)]
    mean = sum(float(block.double().sum()) for block in blocks) / images.numel()
    squares = sum(float(block.double().sub_(mean).square_().sum()) for block in blocks)
    return mean, sqrt(squares / images.numel())
