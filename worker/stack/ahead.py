"""Which images the members of a stack take and how fast they learn: found for many steps at once, on the host."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.spec import AnySchedule
from worker import schedules
from worker.batches import Place, state_of
from worker.stack.lane import Lane

#: Steps that are looked ahead on the CPU, where looking farther would only take memory.
STEPS = 64

#: Iterations that each member has done, [M].
Done = npt.NDArray[np.int64]


class Ahead:
    """The next steps of all members, from where each one's own order of the data is.

    Attributes:
        chosen: [A, M, B], the images' positions in the next A steps.
        rates: [A, M], learning rates.
        taken: how many of these steps were done.

    Args:
        steps: A. threads: how many draw the members' orders, each the order of other members.
    """

    def __init__(self, lanes: Sequence[Lane], batch: int, steps: int = STEPS, threads: int = 1) -> None:
        self._lanes, self._batch, self._steps, self._threads = lanes, batch, steps, threads
        self._orders: list[Place] = []
        self.chosen = torch.empty(0, len(lanes), batch, dtype=torch.int64)
        self.rates: npt.NDArray[np.float64] = np.empty((0, len(lanes)))
        self.taken = steps

    @property
    def used_up(self) -> bool:
        """Whether there is nothing left to take."""
        return self.taken == self._steps

    def look(self, done: Done, into: Tensor | None = None) -> None:
        """Find the next steps of members that have done so many, [M].

        What is chosen is written `into` memory of any integer type; None: new memory, int64.
        """
        self.chosen = torch.empty(self._steps, *self.chosen.shape[1:], dtype=torch.int64) if into is None else into
        self._orders = [lane.order.place for lane in self._lanes]
        if self._threads == 1:
            self._take(range(len(self._lanes)))
        else:
            shares = [range(start, len(self._lanes), self._threads) for start in range(self._threads)]
            with ThreadPoolExecutor(self._threads) as pool:  # a permutation is drawn without Python's lock
                list(pool.map(self._take, shares))
        self.rates = self._rates(done)
        self.taken = 0

    def _take(self, members: Iterable[int]) -> None:
        for member in members:
            taken = self._lanes[member].order.take(self._steps * self._batch)
            self.chosen[:, member] = taken.view(self._steps, self._batch)

    def _rates(self, done: Done) -> npt.NDArray[np.float64]:
        factors: dict[tuple[AnySchedule, int, int], npt.NDArray[np.float64]] = {}
        found = []
        for lane, start in zip(self._lanes, done.tolist(), strict=True):
            optimizer, iterations = lane.spec.optimizer, lane.spec.training.iterations
            alike = optimizer.schedule, start, iterations
            if alike not in factors:
                steps = range(start, start + self._steps)
                factors[alike] = np.array([schedules.factor(optimizer.schedule, step, iterations) for step in steps])
            found.append(factors[alike] * optimizer.learning_rate)
        return np.ascontiguousarray(np.array(found).T)

    def order_of(self, member: int) -> dict[str, Tensor]:
        """A member's place in the order, as `lane.resumed` takes it."""
        return state_of(self._orders[member]) | {"taken": torch.tensor(self.taken * self._batch)}

    def leave(self, member: int) -> Lane:
        """A member's lane, its order back at the steps that were done."""
        lane = self._lanes[member]
        lane.order.restore(state_of(self._orders[member]))
        lane.order.take(self.taken * self._batch)
        return lane
