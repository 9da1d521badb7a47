"""The order of the data: epochs of fresh permutations, joined end to end, so that every batch is full."""

import numpy as np
import torch
from torch import Generator, Tensor

from worker.data import Dataset

_INITIALIZATION, _ORDER = 0, 1


def initialization_generator(seed: int) -> Generator:
    """Draws the initial weights."""
    return _generator(seed, _INITIALIZATION)


def _generator(seed: int, stream: int) -> Generator:
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))  # torch takes 63 bits


class Batches:
    """Batches of a data set on a device, in the order that a seed gives, the same on every device."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, device: torch.device) -> None:
        self._images = dataset.train_images.to(device)
        self._labels = dataset.train_labels.to(device)
        self._size = batch_size
        self._generator = _generator(seed, _ORDER)
        self._device = device
        self._order = torch.empty(0, dtype=torch.int64)

    def next(self) -> tuple[Tensor, Tensor]:
        """Images float32 [B, 784] and labels int64 [B]."""
        while len(self._order) < self._size:
            epoch = torch.randperm(len(self._labels), generator=self._generator)
            self._order = torch.cat([self._order, epoch])
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        chosen = chosen.to(self._device)
        return self._images.index_select(0, chosen), self._labels.index_select(0, chosen)
