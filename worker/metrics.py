"""The run's own series: captured on the device like the gradients, reduced when the ring is drained."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.blocks import StatisticsBlock, Steps

_ROWS = 256


class Metrics:
    """Loss, accuracy, learning rate and time of each recorded step since the last drain."""

    def __init__(self) -> None:
        self._rows: list[list[Tensor]] = []
        self._columns: list[list[Tensor]] = []
        self._clear()

    def _clear(self) -> None:
        self._learning_rates: list[float] = []
        self._seconds: list[float] = []

    def record(self, loss: Tensor, logits: Tensor, labels: Tensor, learning_rate: float, seconds: float) -> None:
        """Copy this step's loss [] and logits [B, 10], labels [B], and times; nothing crosses to the host."""
        taken = [loss.detach(), logits.detach(), labels]
        row = len(self._seconds)
        if row == len(self._rows):
            self._columns.append([value.new_empty(_ROWS, *value.shape) for value in taken])
            self._rows += [list(values) for values in zip(*self._columns[-1], strict=True)]
        torch._foreach_copy_(self._rows[row], taken)
        self._learning_rates.append(learning_rate)
        self._seconds.append(seconds)

    def drain(self, steps: Steps, gradient_norm: npt.NDArray[np.float32]) -> StatisticsBlock:
        """As a block of `statistics.STATISTICS["metrics"]`, [5, 1, S]."""
        taken = len(self._seconds)
        if not taken:
            return StatisticsBlock(steps, np.empty((5, 1, 0), np.float32))
        losses, logits, labels = (torch.cat(blocks)[:taken] for blocks in zip(*self._columns, strict=True))
        accuracy = (logits.argmax(2) == labels).double().mean(1)
        columns = [
            losses.float().cpu().numpy(),
            accuracy.cpu().numpy(),
            np.array(self._learning_rates),
            gradient_norm,
            np.array(self._seconds),
        ]
        self._clear()
        return StatisticsBlock(steps, np.stack(columns).astype(np.float32)[:, None, :])
