"""A run by itself on a GPU: its whole step captured once for each form that it has, and replayed.

A small network's step on a GPU is the cost of more than a hundred calls, each of which starts a kernel that is done
before the next call. Forward, backward, clipping, the optimizer and the copies into the probe's rings become one call.

What is not captured: float16, whose loss scaler asks the device whether gradients overflowed, and dropout, since no
GPU has shown yet that a checkpoint gives the random numbers of a replayed graph back as they were.
"""

from functools import partial

import torch
from torch import Tensor

from gradprobe.probe import Probe
from gradprobe.spec import CLASSES, Clipping, Spec
from worker.clipping import clip
from worker.optimizers import Stepping
from worker.passes import EagerPass, Learning
from worker.replay import Replayed


def can_be_captured(spec: Spec) -> bool:
    """Whether a step of this spec is the same calls every time, and looks at nothing on the host."""
    return spec.training.precision != "float16" and spec.network.dropout == 0.0


class GraphedStep:
    """A network's step on images and labels that come in the same memory every time.

    The first recorded step runs eagerly, and gives the probe's rings their shapes.
    """

    def __init__(self, learning: Learning, clipping: Clipping | None, device: torch.device) -> None:
        self._learning, self._clipping = learning, clipping
        self._eager = EagerPass(learning)
        self._rate, self._known_rate = torch.zeros((), device=device), 0.0
        self._step = Stepping(learning.optimizer, self._rate)
        self._replayed = {armed: Replayed(partial(self._run, armed), device) for armed in (False, True)}
        self._gradients = [torch.zeros_like(parameter) for parameter in learning.parameters]
        self._seed = torch.ones((), device=device)
        self._probe: Probe | None = None
        self._read: tuple[Tensor, Tensor] | None = None
        self._told: tuple[Tensor, Tensor] | None = None

    def __call__(self, images: Tensor, labels: Tensor, probe: Probe, rate: float) -> tuple[Tensor, Tensor]:
        """Loss [] and logits [B, 10] of images [B, 784] and labels [B]; a probe that is armed records the step.

        What is returned is written over by the next step.
        """
        self._step.prepare()
        if rate != self._known_rate:
            self._rate.fill_(rate)
            self._known_rate = rate
        armed = probe.armed
        if armed and probe.replayable is None:
            return self._first(images, labels, probe)
        self._adopt(images, labels, probe)
        if armed and probe.replayable is not None:
            probe.replayable.point(self._clipped(probe))
        self._replayed[armed]()
        if armed:
            probe.note(float(len(images)))
        assert self._told is not None, "every step leaves them"  # noqa: S101 - a fact of `_run`
        return self._told

    def _first(self, images: Tensor, labels: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
        loss, logits = self._eager(images, labels, probe)
        if self._clipping is not None:
            clip(self._clipping, self._learning.parameters)
            probe.collect_clipped()
        self._step()
        probe.collect_update()
        return loss.detach(), logits.detach()

    def _adopt(self, images: Tensor, labels: Tensor, probe: Probe) -> None:
        """Keep all that a step works on where it stays."""
        self._probe = probe
        if self._read is None:
            self._read = images, labels
        for given, read in zip((images, labels), self._read, strict=True):
            if given is not read:
                read.copy_(given)
        for parameter, gradient in zip(self._learning.parameters, self._gradients, strict=True):
            parameter.grad = gradient
        if self._told is None:
            self._told = images.new_empty(()), images.new_empty(len(images), CLASSES)

    def _run(self, armed: bool) -> None:
        """The step itself; it changes nothing on the host but names."""
        probe, read, told = self._probe, self._read, self._told
        assert probe is not None, "adopted before"  # noqa: S101 - a fact of `__call__`
        assert read is not None, "adopted before"  # noqa: S101
        assert told is not None, "adopted before"  # noqa: S101
        found = self._learning.gradients_of(*read, self._seed)
        torch._foreach_copy_(self._gradients, found.gradients)
        rings = probe.replayable if armed else None
        if rings is not None:
            gradients = [parameter.grad for parameter in probe.parameters if parameter.grad is not None]
            rings.record(found.captured(gradients, 1.0), probe.weights)
        if self._clipping is not None:
            clip(self._clipping, self._learning.parameters)
            if rings is not None:
                rings.record_clipped(self._clipped(probe))
        self._step()
        if rings is not None:
            rings.record_update(probe.weights)
        for kept, value in zip(told, (found.loss, found.logits), strict=True):
            kept.copy_(value.detach())

    def _clipped(self, probe: Probe) -> list[Tensor]:
        if self._clipping is None:
            return []
        layers = probe.parameters[: len(probe.taps)]
        return [parameter.grad for parameter in layers if parameter.grad is not None]
