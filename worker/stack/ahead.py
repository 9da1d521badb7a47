"""Which images the members of a stack take and how fast they learn: found for many steps at once, on the host."""

from collections.abc import Sequence
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
        chosen: int64 [A, M, B], the images' positions in the next A steps.
        rates: [A, M], learning rates.
        taken: how many of these steps were done.

    Args:
        steps: A. threads: how many draw the members' orders, each the order of other members.
    """

    def __init__(self, lanes: Sequence[Lane], batch: int, steps: int = STEPS, threads: int = 1) -> None:
        self._lanes, self._batch, self._steps, self._threads = lanes, batch, steps, threads
        self._orders: list[Place] = []
        self.chosen: npt.NDArray[np.int64] = np.empty((0, len(lanes), batch), np.int64)
        self.rates: npt.NDArray[np.float64] = np.empty((0, len(lanes)))
        self.taken = 0

    @property
    def used_up(self) -> bool:
        """Whether there is nothing left to take."""
        return self.taken == len(self.chosen)

    def look(self, done: Done) -> None:
        """Find the next steps of members that have done so many, [M]."""
        self._orders = [lane.order.place for lane in self._lanes]
        self.chosen = torch.stack(self._take(), dim=1).numpy()
        self.rates = self._rates(done)
        self.taken = 0

    def _take(self) -> list[Tensor]:
        def take(lane: Lane) -> Tensor:
            return lane.order.take(self._steps * self._batch).view(self._steps, self._batch)

        if self._threads == 1:
            return [take(lane) for lane in self._lanes]
        with ThreadPoolExecutor(self._threads) as pool:  # a permutation is drawn without Python's lock
            shares = [self._lanes[start :: self._threads] for start in range(self._threads)]
            taken = list(pool.map(lambda share: [take(lane) for lane in share], shares))
        return [taken[place % self._threads][place // self._threads] for place in range(len(self._lanes))]

    def _rates(self, done: Done) -> npt.NDArray[np.float64]:
        factors: dict[tuple[AnySchedule, int, int], list[float]] = {}
        found = np.empty((self._steps, len(self._lanes)))
        for member, (lane, start) in enumerate(zip(self._lanes, done.tolist(), strict=True)):
            optimizer, iterations = lane.spec.optimizer, lane.spec.training.iterations
            alike = optimizer.schedule, start, iterations
            if alike not in factors:
                steps = range(start, start + self._steps)
                factors[alike] = [schedules.factor(optimizer.schedule, step, iterations) for step in steps]
            found[:, member] = factors[alike]
        found *= np.array([lane.spec.optimizer.learning_rate for lane in self._lanes])
        return found

    def order_of(self, member: int) -> dict[str, Tensor]:
        """A member's place in the order, as `lane.resumed` takes it."""
        return state_of(self._orders[member]) | {"taken": torch.tensor(self.taken * self._batch)}

    def leave(self, member: int) -> Lane:
        """A member's lane, its order back at the steps that were done."""
        lane = self._lanes[member]
        lane.order.restore(state_of(self._orders[member]))
        lane.order.take(self.taken * self._batch)
        return lane
