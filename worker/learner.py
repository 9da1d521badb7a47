"""What learns: a network and all that turns one batch into one step of its parameters."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gradprobe.probe import Probe
from gradprobe.spec import Spec
from worker import batches, optimizers, passes, schedules
from worker.clipping import clip
from worker.graphed import GraphedStep, can_be_captured
from worker.network import builders
from worker.precision import Precision


class Learned(NamedTuple):
    """One step: its loss [] and logits [B, 10] before it, and its learning rate; the next step may write over them."""

    loss: Tensor
    logits: Tensor
    learning_rate: float


class Learner:
    """A spec's network, optimizer, precision and clipping on a device.

    Args:
        graphed: whether a step is one that CUDA can capture and replay; None: on CUDA, where that is possible.
    """

    def __init__(self, spec: Spec, device: torch.device, graphed: bool | None = None) -> None:
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
        if graphed is None:
            graphed = device.type == "cuda" and can_be_captured(spec)
        self._graphed = GraphedStep(learning, spec.gradient_clipping, device) if graphed else None

    def learn(self, step: int, images: Tensor, labels: Tensor, probe: Probe) -> Learned:
        """One iteration on images [B, 784] and labels [B], seen by the probe."""
        clipping = self._spec.gradient_clipping
        rate = schedules.apply(self._optimizer, self._spec.optimizer, step, self._spec.training.iterations)
        probe.arm(step, self._precision.scale)
        if self._graphed is not None:
            return Learned(*self._graphed(images, labels, probe, rate), rate)
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

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name; the tensors themselves, not copies."""
        slots = self._optimizer.state_dict()["state"]
        return {
            **{f"network.{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{
                f"optimizer.{key}.{name}": tensor
                for key, slot in slots.items()
                for name, tensor in slot.items()
                if tensor is not None
            },
            **{f"scaler.{name}": tensor for name, tensor in self._precision.state().items()},
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there, before the first step. Raises KeyError or RuntimeError for another learner's state."""
        slots: dict[int, dict[str, Tensor]] = {}
        network, scaler = {}, {}
        for key, tensor in state.items():
            part, name = key.split(".", 1)
            if part == "network":
                network[name] = tensor
            elif part == "optimizer":
                index, name = name.split(".", 1)
                slots.setdefault(int(index), {})[name] = tensor
            else:
                scaler[name] = tensor
        self.network.load_state_dict(network)
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self._precision.restore(scaler)
