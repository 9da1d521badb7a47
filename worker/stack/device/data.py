"""A data set on the device, once for all members."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from worker.data import Dataset


@dataclass(frozen=True, eq=False, slots=True)
class DeviceData:
    """What a stack trains on and is tested with: images float32 [N, 784], labels int64 [N], on one device.

    As float32 and not as bytes, which a step would have to turn into float32 in any case: MNIST takes 220 MB.
    """

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.images.device


# As many as `worker.data` keeps.
@lru_cache(maxsize=2)
def on_device(dataset: Dataset, device: torch.device) -> DeviceData:
    """The data set there; the second time in a process costs nothing."""
    tensors = dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels
    return DeviceData(*(tensor.contiguous().to(device) for tensor in tensors))
