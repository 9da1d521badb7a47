"""The run's own series: captured on the device like the gradients, reduced when the ring is drained."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradprobe.blocks import StatisticsBlock, Steps


class Metrics:
    """Loss, accuracy, learning rate and time of each recorded step since the last drain."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._learning_rates: list[float] = []
        self._seconds: list[float] = []

    def record(self, loss: Tensor, logits: Tensor, labels: Tensor, learning_rate: float, seconds: float) -> None:
        """Keep this step's loss [] and logits [B, 10], labels [B], and times; nothing crosses to the host."""
        self._losses.append(loss.detach())
        self._logits.append(logits.detach())
        self._labels.append(labels)
        self._learning_rates.append(learning_rate)
        self._seconds.append(seconds)

    def drain(self, steps: Steps, gradient_norm: npt.NDArray[np.float32]) -> StatisticsBlock:
        """As a block of `statistics.STATISTICS["metrics"]`, [5, 1, S]."""
        if not self._losses:
            return StatisticsBlock(steps, np.empty((5, 1, 0), np.float32))
        correct = torch.stack(self._logits).argmax(2) == torch.stack(self._labels)
        accuracy = correct.double().mean(1)
        columns = [
            torch.stack(self._losses).float().cpu().numpy(),
            accuracy.cpu().numpy(),
            np.array(self._learning_rates),
            gradient_norm,
            np.array(self._seconds),
        ]
        self._clear()
        return StatisticsBlock(steps, np.stack(columns).astype(np.float32)[:, None, :])
