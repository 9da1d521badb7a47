"""What to measure, and when."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from gradprobe.spec import TENSORS, TensorName


@dataclass(frozen=True, slots=True)
class Tap:
    """One layer to measure: the module with the weight, and the activation after it, if there is one."""

    name: str
    layer: nn.Module
    activation: nn.Module | None = None
    activation_name: str = "identity"
    negative_slope: float = 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """What to record, and when: at the steps divisible by `every`; histograms by `histograms_every`."""

    every: int = 1
    histograms_every: int = 25
    tensors: tuple[TensorName, ...] = TENSORS
    memory_mebibytes: int = 64
    #: `auto` reduces each step at once on the CPU (`native`) and collects steps in a ring on any other device.
    collector: Literal["auto", "ring"] = "auto"

    def statistics_at(self, step: int) -> bool:
        """Whether the statistics of this step are recorded."""
        return step % self.every == 0

    def histogram_at(self, step: int) -> bool:
        """Whether the histograms of this step are recorded."""
        return step % self.histograms_every == 0
