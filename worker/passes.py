"""Forward and backward pass of one iteration: as autograd runs them, or repeated from a tape of their kernels."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

from gradprobe.probe import Captured, Probe
from worker.network.layers import Classifier
from worker.precision import Precision
from worker.tape import Recorder, Tape, Unrepeatable

_logger = logging.getLogger(__name__)

#: A tape keeps every tensor of a step. Beyond this much a step takes so long that calls no longer matter.
MOST_TAPE_BYTES = 512 * 2**20


@dataclass(slots=True)
class _Seen:
    """What a network's hook points tell of one step: z, and h with what the activation got, one entry a layer."""

    armed: bool = True
    outputs: list[Tensor] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    activated: list[Tensor] = field(default_factory=list)

    def see_output(self, index: int, output: Tensor) -> None:
        """Layer `index` has computed z."""
        self.outputs.append(output)

    def see_activation(self, index: int, entry: Tensor, output: Tensor) -> None:
        """The activation after layer `index` has computed h."""
        self.inputs.append(entry)
        self.activated.append(output)


@dataclass(frozen=True, slots=True)
class Differentiated:
    """Loss [], logits [B, 10], parameters' gradients, δ/B of each layer, and what the network's hook points told."""

    loss: Tensor
    logits: Tensor
    gradients: list[Tensor]
    deltas: list[Tensor]
    seen: _Seen

    def captured(self, gradients: list[Tensor], delta_scale: float) -> Captured:
        """What a probe takes; gradients are those of its parameters, in its order."""
        last = self.seen.outputs[-1].detach()
        return Captured(
            gradients=gradients,
            deltas=self.deltas,
            outputs=[*(h.detach() for h in self.seen.activated), last],
            inputs=[*(z.detach() for z in self.seen.inputs), last],
            delta_scale=delta_scale,
            trusted=True,
        )


@dataclass(frozen=True, slots=True)
class Learning:
    """What a pass works on."""

    network: Classifier
    parameters: Sequence[nn.Parameter]
    precision: Precision
    optimizer: optim.Optimizer

    def loss_of(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy [] in nats and logits [B, 10] of images [B, 784] and labels [B]."""
        with self.precision.forward():
            logits = self.network(images)
        return functional.cross_entropy(logits.float(), labels), logits

    def gradients_of(self, images: Tensor, labels: Tensor, seed: Tensor) -> "Differentiated":
        """Forward and backward as tensors, nothing of which is in a parameter's `grad`; of the loss times `seed` []."""
        with _watched(self.network) as seen:
            loss, logits = self.loss_of(images, labels)
            gradients = torch.autograd.grad(loss, [*self.parameters, *seen.outputs], seed)
        count = len(self.parameters)
        return Differentiated(loss, logits, list(gradients[:count]), list(gradients[count:]), seen)


#: Computes loss [] and logits [B, 10], leaves each parameter's unscaled gradient in its `grad`, tells the probe.
Pass = Callable[[Tensor, Tensor, Probe], tuple[Tensor, Tensor]]


def choose(learning: Learning, device: torch.device) -> Pass:
    """The pass for this device: repeated on the CPU, where a small net's step is mostly the cost of calls."""
    return RepeatedPass(learning) if device.type == "cpu" else EagerPass(learning)


@dataclass(frozen=True, slots=True)
class EagerPass:
    """As autograd runs it; the probe sees each layer through the network's hook points."""

    learning: Learning

    def __call__(self, images: Tensor, labels: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
        """Images [B, 784], labels [B]."""
        loss, logits = self.learning.loss_of(images, labels)
        self.learning.optimizer.zero_grad(set_to_none=True)
        self.learning.precision.backward(loss, self.learning.optimizer)
        probe.collect()
        return loss, logits


@dataclass(slots=True)
class _Repeated:
    """A recorded step: what it reads, what it computes, all of it the same memory in every step."""

    tape: Tape
    images: Tensor
    labels: Tensor
    seed: Tensor
    loss: Tensor
    logits: Tensor
    captured: Captured


class RepeatedPass:
    """Records its first step and repeats it from then on; where that can't be done, every later step is eager."""

    def __init__(self, learning: Learning) -> None:
        self._learning = learning
        self._eager = EagerPass(learning)
        self._repeated: _Repeated | None = None
        self._recorded = False

    def __call__(self, images: Tensor, labels: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
        """Images [B, 784], labels [B]; what is returned is written over by the next step."""
        if self._repeated is not None:
            return self._repeat(self._repeated, images, labels, probe)
        if self._recorded:
            return self._eager(images, labels, probe)
        self._recorded = True
        return self._record(images, labels, probe)

    def _repeat(self, step: _Repeated, images: Tensor, labels: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
        precision = self._learning.precision
        for given, read in ((images, step.images), (labels, step.labels)):
            if given is not read:
                read.copy_(given)
        if precision.skips_steps:
            step.seed.fill_(precision.scale)
            step.captured.delta_scale = len(images) / precision.scale
        step.tape.play()
        precision.unscale(self._learning.optimizer)
        probe.collect(step.captured)
        return step.loss, step.logits

    def _record(self, images: Tensor, labels: Tensor, probe: Probe) -> tuple[Tensor, Tensor]:
        learning, precision = self._learning, self._learning.precision
        seed = torch.full((), precision.scale)
        named = [*learning.parameters, *learning.network.buffers(), images, labels, seed]
        with Recorder(named, MOST_TAPE_BYTES) as recorder:
            found = learning.gradients_of(images, labels, seed)
        copies = _give_gradients(learning.parameters, found.gradients)
        loss, logits = found.loss.detach(), found.logits.detach()
        gradients = [_gradient_of(parameter) for parameter in probe.parameters]
        captured = found.captured(gradients, len(images) / precision.scale)
        try:
            tape = recorder.tape()
            captured.lasting = True
            self._repeated = _Repeated(Tape([*tape.calls, *copies]), images, labels, seed, loss, logits, captured)
        except Unrepeatable as reason:
            _logger.info("every step runs eagerly: %s", reason)
        precision.begin()
        precision.unscale(learning.optimizer)
        probe.collect(captured)
        return loss, logits


@contextmanager
def _watched(network: Classifier) -> Iterator[_Seen]:
    """Have the network's hook points tell this observer alone."""
    seen = _Seen()
    observers, network.observers = network.observers, [seen]
    try:
        yield seen
    finally:
        network.observers = observers


def _give_gradients(parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> list[Callable[[], object]]:
    """Each parameter its gradient, in memory of its own; returns the copies that this takes in every step.

    Clipping and unscaling write into it, which one that is a view of another tensor would not survive.
    """
    copies: list[Callable[[], object]] = []
    taken: set[int] = set()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        memory = gradient.untyped_storage().data_ptr()
        if memory in taken or not gradient.is_contiguous():
            parameter.grad = gradient.clone(memory_format=torch.contiguous_format)
            copies.append(partial(parameter.grad.copy_, gradient))
        else:
            parameter.grad = gradient
        taken.add(memory)
    return copies


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "every parameter was just given one"  # noqa: S101
    return parameter.grad
