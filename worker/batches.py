"""The order of the data: epochs of fresh permutations, joined end to end, so that every batch is full."""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from worker import randomness
from worker.data import Dataset


def initialization_generator(seed: int) -> Generator:
    """Draws the initial weights."""
    return randomness.generator(seed, randomness.INITIALIZATION)


class Batches:
    """Batches of a data set on a device, in the order that a seed gives, the same on every device."""

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, device: torch.device) -> None:
        self._images = dataset.train_images.to(device)
        self._labels = dataset.train_labels.to(device)
        self._size = batch_size
        self._generator = randomness.generator(seed, randomness.ORDER)
        self._device = device
        self._order = self._draw_epoch()
        self._images_taken = torch.empty(batch_size, *self._images.shape[1:], device=device)
        self._labels_taken = torch.empty(batch_size, dtype=torch.int64, device=device)

    def next(self) -> tuple[Tensor, Tensor]:
        """Images float32 [B, 784] and labels int64 [B]: the same two tensors every time, filled anew."""
        while len(self._order) < self._size:
            self._order = torch.cat([self._order, self._draw_epoch()])
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        chosen = chosen.to(self._device)
        torch.index_select(self._images, 0, chosen, out=self._images_taken)
        torch.index_select(self._labels, 0, chosen, out=self._labels_taken)
        return self._images_taken, self._labels_taken

    def _draw_epoch(self) -> Tensor:
        self._before_epoch = self._generator.get_state()
        return torch.randperm(len(self._labels), generator=self._generator)

    def state(self) -> dict[str, Tensor]:
        """The place in the order: what is left of the newest epoch, which the generator draws again."""
        return {"generator": self._before_epoch, "left": torch.tensor(len(self._order))}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there. Raises KeyError or RuntimeError for another's state."""
        self._generator.set_state(state["generator"])
        epoch = self._draw_epoch()
        self._order = epoch[len(epoch) - int(state["left"]) :]
