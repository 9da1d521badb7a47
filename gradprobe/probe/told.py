"""The run's own numbers at each step of a watched loop: what it or its criterion told, and what the optimizer knows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from gradprobe.blocks import StatisticsBlock
from gradprobe.probe.collector import Measured

#: Logits are kept until they are counted; more than this many elements a step are not.
_LARGEST_LOGITS: Final = 65_536


@dataclass(slots=True)
class Told:
    """What the loop or its criterion told of the step that runs; nothing is read from a device yet."""

    loss: Tensor | float | None = None
    accuracy: Any = None
    classes: int | None = None

    def take(self, loss: Any, accuracy: Any) -> None:
        """What the loop said."""
        self.loss, self.accuracy = _kept(loss), _kept(accuracy)

    def take_output(self, output: Any) -> None:
        """A `loss` in a module's output, where Hugging Face's models leave it."""
        if isinstance(output, Tensor):  # the usual case, and quicker told than that it is no mapping
            return
        loss = output.get("loss") if isinstance(output, Mapping) else None
        if self.loss is None and isinstance(loss, Tensor) and loss.dim() == 0:
            self.loss = loss.detach()

    def take_criterion(self, module: nn.Module, inputs: Sequence[Any], loss: Tensor) -> None:
        """What a loss module computed; of `nn.CrossEntropyLoss` of [B, classes] also the accuracy."""
        self.loss = loss.detach() if loss.dim() == 0 else None
        if not isinstance(module, nn.CrossEntropyLoss) or len(inputs) < 2:
            return
        logits, labels = inputs[0], inputs[1]
        if logits.dim() == 2 and labels.dim() == 1 and logits.shape[1] > 1:
            self.classes = int(logits.shape[1])
            if logits.numel() <= _LARGEST_LOGITS:
                self.accuracy = logits.detach(), labels


@dataclass(slots=True)
class Row:
    """One recorded step."""

    loss: Any
    accuracy: Any
    learning_rate: float
    seconds: float


def metrics(measured: Measured, rows: Sequence[Row]) -> StatisticsBlock:
    """As a block of `statistics.STATISTICS["metrics"]`, [5, 1, S]; NaN where the loop did not tell."""
    columns = [
        [_number(row.loss) for row in rows],
        [_accuracy(row.accuracy) for row in rows],
        [row.learning_rate for row in rows],
        measured.gradient_norm.tolist(),
        [row.seconds for row in rows],
    ]
    return StatisticsBlock(measured.steps, np.array(columns, np.float32).reshape(5, 1, len(rows)))


def _kept(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _accuracy(value: Any) -> float:
    if isinstance(value, tuple):
        logits, labels = value
        return float((logits.argmax(1) == labels).double().mean())
    return _number(value)
