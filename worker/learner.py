"""What learns: a network and all that turns one batch into one step of its parameters."""

from typing import NamedTuple

import torch
from torch import Tensor

from gradprobe.probe import Probe
from gradprobe.spec import Spec
from worker import batches, optimizers, passes, schedules
from worker.clipping import clip
from worker.network import builders
from worker.precision import Precision


class Learned(NamedTuple):
    """One step: its loss [] and logits [B, 10] before it, and its learning rate; the next step may write over them."""

    loss: Tensor
    logits: Tensor
    learning_rate: float


class Learner:
    """A spec's network, optimizer, precision and clipping on a device."""

    def __init__(self, spec: Spec, device: torch.device) -> None:
        self._spec = spec
        self.network = builders.build(spec.network, batches.initialization_generator(spec.training.seed)).to(device)
        self.parameters = list(self.network.parameters())
        self._precision = Precision(spec.training.precision, device)
        self._optimizer = optimizers.build(
            spec.optimizer, self.parameters, self.network.slopes, self._precision.skips_steps
        )
        self._step = optimizers.stepping(self._optimizer)
        learning = passes.Learning(self.network, self.parameters, self._precision, self._optimizer)
        self._pass = passes.choose(learning, device)

    def learn(self, step: int, images: Tensor, labels: Tensor, probe: Probe) -> Learned:
        """One iteration on images [B, 784] and labels [B], seen by the probe."""
        clipping = self._spec.gradient_clipping
        rate = schedules.apply(self._optimizer, self._spec.optimizer, step, self._spec.training.iterations)
        probe.arm(step, self._precision.scale)
        loss, logits = self._pass(images, labels, probe)
        if clipping is not None:
            clip(clipping, self.parameters)
            probe.collect_clipped()
        if self._precision.skips_steps:
            self._precision.step(self._optimizer)
        else:
            self._step()
        probe.collect_update()
        return Learned(loss, logits, rate)
