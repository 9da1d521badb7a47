"""The order of the data: epochs of fresh permutations, joined end to end, so that every batch is full."""

from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from worker import randomness
from worker.crossing import Staging
from worker.data import Dataset


def initialization_generator(seed: int) -> Generator:
    """Draws the initial weights."""
    return randomness.generator(seed, randomness.INITIALIZATION)


#: A place in an order: the generator's state before the newest epoch, and how many of its positions are left.
Place = tuple[Tensor, int]


def state_of(place: Place) -> dict[str, Tensor]:
    """A place as `Order.restore` takes it."""
    before, left = place
    return {"generator": before, "left": torch.tensor(left)}


class Order:
    """The positions of a data set's images in the order that a seed gives, drawn epoch by epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self._length = length
        self._generator = randomness.generator(seed, randomness.ORDER)
        self._left = self._draw_epoch()

    def take(self, count: int) -> Tensor:
        """The next so many, int64 [count]."""
        while len(self._left) < count:
            self._left = torch.cat([self._left, self._draw_epoch()])
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def _draw_epoch(self) -> Tensor:
        self._before_epoch = self._generator.get_state()
        return torch.randperm(self._length, generator=self._generator)

    @property
    def place(self) -> Place:
        """Where it is: what is left of the newest epoch, which the generator draws again."""
        return self._before_epoch, len(self._left)

    def state(self) -> dict[str, Tensor]:
        """The place in the order, as a checkpoint has it."""
        return state_of(self.place)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there. Raises KeyError or RuntimeError for another's state."""
        self._generator.set_state(state["generator"])
        epoch = self._draw_epoch()
        self._left = epoch[len(epoch) - int(state["left"]) :]


#: Batches whose positions cross to a GPU at once: a copy of its own for each would be waited for in every step.
_AHEAD = 64


class Batches:
    """Batches of a data set on a device, in the order that a seed gives, the same on every device.

    Args:
        ahead: whether the positions of many batches go to the device at once; None: where that is not the CPU.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, seed: int, device: torch.device, ahead: bool | None = None
    ) -> None:
        self._images = dataset.train_images.to(device)
        self._labels = dataset.train_labels.to(device)
        self._size = batch_size
        self._order = Order(len(self._labels), seed)
        self._staging: Staging | None = None
        if device.type != "cpu" if ahead is None else ahead:
            self._staging = Staging(torch.empty(_AHEAD, batch_size, dtype=torch.int64), device)
        self._before, self._given = self._order.state(), _AHEAD
        self._images_taken = torch.empty(batch_size, *self._images.shape[1:], device=device)
        self._labels_taken = torch.empty(batch_size, dtype=torch.int64, device=device)

    def next(self) -> tuple[Tensor, Tensor]:
        """Images float32 [B, 784] and labels int64 [B]: the same two tensors every time, filled anew."""
        chosen = self._order.take(self._size) if self._staging is None else self._next_of(self._staging)
        torch.index_select(self._images, 0, chosen, out=self._images_taken)
        torch.index_select(self._labels, 0, chosen, out=self._labels_taken)
        return self._images_taken, self._labels_taken

    def _next_of(self, staging: Staging) -> Tensor:
        if self._given == _AHEAD:
            self._before, self._given = self._order.state(), 0
            staging.host.copy_(self._order.take(_AHEAD * self._size).view(_AHEAD, self._size))
            staging.send()
        self._given += 1
        return staging.tensor[self._given - 1]

    def state(self) -> dict[str, Tensor]:
        """The place in the order."""
        if self._staging is None or self._given == _AHEAD:
            return self._order.state()
        self._order.restore(self._before)
        self._order.take(self._given * self._size)
        state = self._order.state()
        self._order.take((_AHEAD - self._given) * self._size)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there. Raises KeyError or RuntimeError for another's state."""
        self._order.restore(state)
        self._given = _AHEAD
