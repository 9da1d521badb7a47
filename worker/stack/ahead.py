"""Which images the members of a stack take and how fast they learn: found for many steps at once, on the host."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from worker import schedules
from worker.stack.lane import Lane

#: Steps that are looked ahead.
STEPS = 64

#: Iterations that each member has done, [M].
Done = npt.NDArray[np.int64]


class Ahead:
    """The next steps of all members, from where each one's own order of the data is.

    Attributes:
        chosen: int64 [STEPS, M, B], the images' positions.
        rates: [STEPS, M], learning rates.
        taken: how many of these steps were done.
    """

    def __init__(self, lanes: Sequence[Lane], batch: int) -> None:
        self._lanes, self._batch = lanes, batch
        self._orders: list[dict[str, Tensor]] = [{} for _ in lanes]
        self.chosen: npt.NDArray[np.int64] = np.empty((0, len(lanes), batch), np.int64)
        self.rates: npt.NDArray[np.float64] = np.empty((0, len(lanes)))
        self.taken = 0

    @property
    def used_up(self) -> bool:
        """Whether there is nothing left to take."""
        return self.taken == len(self.chosen)

    def look(self, done: Done) -> None:
        """Find the next steps of members that have done so many, [M]."""
        self._orders = [lane.order.state() for lane in self._lanes]
        taken = [lane.order.take(STEPS * self._batch).view(STEPS, self._batch) for lane in self._lanes]
        self.chosen = torch.stack(taken, dim=1).numpy()
        rates = [_rates(lane, start) for lane, start in zip(self._lanes, done.tolist(), strict=True)]
        self.rates = np.ascontiguousarray(np.array(rates).T)
        self.taken = 0

    def order_of(self, member: int) -> dict[str, Tensor]:
        """A member's place in the order, as `lane.resumed` takes it."""
        return dict(self._orders[member]) | {"taken": torch.tensor(self.taken * self._batch)}

    def leave(self, member: int) -> Lane:
        """A member's lane, its order back at the steps that were done."""
        lane = self._lanes[member]
        lane.order.restore(dict(self._orders[member]))
        lane.order.take(self.taken * self._batch)
        return lane


def _rates(lane: Lane, start: int) -> list[float]:
    optimizer, iterations = lane.spec.optimizer, lane.spec.training.iterations
    return [
        optimizer.learning_rate * schedules.factor(optimizer.schedule, step, iterations)
        for step in range(start, start + STEPS)
    ]
