"""Hooks, borrowed and never owned: attached in a context manager, removed in `finally`, writing to nothing of yours.

This is the only file that registers hooks. A forward hook on each layer sees its output z and leaves a hook on the node
of the autograd graph that made it: what arrives there on the way back is δ = ∂L/∂z, also where a later operation
overwrites z. A forward hook on each activation sees h = φ(z). No hook returns anything, so values, gradients and random
numbers are those of a run without them. A module with hook points of its own tells the same without hooks.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradprobe.errors import UnsupportedModule
from gradprobe.probe.collector import NOTHING, Captured, Collector, Measured, Moment
from gradprobe.probe.native_collector import NativeCollector
from gradprobe.probe.ring_collector import RingCollector
from gradprobe.probe.saturation import NEEDS_INPUT
from gradprobe.probe.tap import Recording, Tap


class Probe:
    """Measures a module while it trains: `arm`, forward, backward, `collect`, optimizer step, `collect_update`, repeat.

    Where gradients are clipped, `collect_clipped` comes between clipping and the optimizer's step. When `full`, call
    `drain`: it brings what was measured to the host.
    """

    def __init__(
        self, taps: Sequence[Tap], recording: Recording, parameters: Sequence[nn.Parameter], trusted: bool = False
    ) -> None:
        if not taps:
            raise UnsupportedModule("There is no layer to measure.")
        self.taps = list(taps)
        self.recording = recording
        weights = [_weight(tap) for tap in taps]
        self._weights = [weight.detach() for weight in weights]
        measured = {id(weight) for weight in weights}
        if len(measured) < len(weights):
            raise UnsupportedModule("Two layers share one weight, so that neither has a gradient of its own.")
        self._gradients_of = [*weights, *(p for p in parameters if id(p) not in measured and p.requires_grad)]
        self._trusted = trusted
        self._moment: Moment | None = None
        self._collected = False
        self._hooked = False
        self._scale = 1.0
        self._batch = 0
        self._collector: Collector | None = None
        self._needs_input = any(tap.activation_name in NEEDS_INPUT for tap in taps)
        # One entry a layer; None until it was seen in this step. Typed as what a complete step holds.
        self._outputs: list[Any] = [None] * len(taps)
        self._inputs: list[Any] = [None] * len(taps)
        self._deltas: list[Any] = [None] * len(taps)
        self._kept: list[Any] = [None] * len(taps)
        self._ran: list[bool | None] = [None] * len(taps)
        self._activated: list[bool | None] = [None] * len(taps)
        self._keep_delta = [partial(self._deltas.__setitem__, index) for index in range(len(taps))]

    @property
    def full(self) -> bool:
        """Whether it must be drained before the next step."""
        return self._collector is not None and self._collector.full

    def arm(self, step: int, gradient_scale: float = 1.0) -> bool:
        """Begin a step; returns whether it is recorded.

        `gradient_scale` is what the loss is multiplied by before the backward pass (mixed precision); the parameters'
        gradients must be unscaled again before `collect`, δ is unscaled here.

        Raises:
            UnsupportedModule: when `full`.
        """
        statistics, counts = self.recording.statistics_at(step), self.recording.histogram_at(step)
        if self._moment is not None:
            self._forget()  # a step that was begun and not finished
        self._collected = False
        self._moment = Moment(step, statistics, counts) if statistics or counts else None
        if self._moment is not None:
            if self.full:
                raise UnsupportedModule("There is no room for another step; drain it first.")
            self._scale = gradient_scale
        return self._moment is not None

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """Whose gradients are measured: the layers' weights, then what else counts towards the global norm."""
        return self._gradients_of

    def collect(self, captured: Captured | None = None) -> None:
        """After the backward pass, before clipping and the optimizer: take this step's tensors.

        They are those that the hooks saw, or `captured`, with the gradients in the order of `parameters`.

        Raises:
            UnsupportedModule: for a layer or parameter that took no part in the step, or a batch of another size.
        """
        if self._moment is None:
            return
        with torch.no_grad():
            try:
                captured = captured or self._captured()
                if self._collector is None:
                    self._collector = self._choose(captured)
                self._collector.collect(self._moment, captured, self._weights)
            except (AttributeError, TypeError):
                self._refuse_missing()  # looked for only now: the usual step pays nothing for it
                raise
        # Only now: a step that was begun and not finished must not be reduced.
        self._collected = True

    def collect_clipped(self) -> None:
        """Between clipping and the optimizer's step: the weights' gradients as clipping left them."""
        if self._collected and self._collector is not None and self._moment is not None and self._moment.statistics:
            self._collector.collect_clipped([_gradient(p) for p in self._gradients_of[: len(self.taps)]])

    def collect_update(self) -> None:
        """After the optimizer's step: the weights as they are now, for the update ratio."""
        if self._moment is None:
            return
        if self._collected and self._collector is not None:
            with torch.no_grad():
                self._collector.collect_update(self._weights)
        self._moment, self._collected = None, False
        if self._hooked:
            self._forget()

    @property
    def replayable(self) -> RingCollector | None:
        """What a step that is captured once and replayed writes to on the device; there is none before the first step.

        Around such a step come `arm` and `note`, which do on the host what the others do there.
        """
        return self._collector if isinstance(self._collector, RingCollector) else None

    @property
    def weights(self) -> Sequence[Tensor]:
        """The layers' weights, as they are now."""
        return self._weights

    def note(self, delta_scale: float) -> None:
        """After a replayed step that was armed: its tensors are in the collector's next row."""
        if self._moment is not None and self.replayable is not None:
            self.replayable.note(self._moment, delta_scale)
        self._moment = None

    def drain(self) -> Measured:
        """Everything measured since the last drain, on the host."""
        return NOTHING if self._collector is None else self._collector.drain()

    @property
    def armed(self) -> bool:
        """Whether the forward pass that runs now is to be measured."""
        return self._moment is not None and not self._collected and torch.is_grad_enabled()

    def see_output(self, index: int, output: Tensor) -> None:
        """Layer `index` has computed z. Raises UnsupportedModule for a layer that runs twice in one step."""
        if self._ran[index]:
            raise UnsupportedModule(f"{self.taps[index].name} runs more than once in a step, which is not supported.")
        self._ran[index] = self._hooked = True
        self._outputs[index] = self._inputs[index] = output
        if self._trusted:
            # Nothing overwrites z in a network with hook points, so autograd itself can keep its gradient.
            output.retain_grad()
            self._kept[index] = output
        elif output.grad_fn is not None:
            # A function in C that stores its argument: no Python of ours runs during the backward pass.
            output.grad_fn.register_prehook(self._keep_delta[index])

    def see_activation(self, index: int, entry: Tensor, output: Tensor) -> None:
        """The activation after layer `index` has computed h. Raises UnsupportedModule for one that runs twice."""
        tap = self.taps[index]
        if self._activated[index]:
            raise UnsupportedModule(
                f"The activation after {tap.name} runs more than once in a step; give each its own."
            )
        if output is entry and tap.activation_name in NEEDS_INPUT:
            raise UnsupportedModule(f"The activation after {tap.name} overwrites its input; use inplace=False.")
        self._activated[index] = True
        self._outputs[index], self._inputs[index] = output, entry

    def _forget(self) -> None:
        nothing = [None] * len(self.taps)
        self._outputs[:], self._inputs[:], self._deltas[:] = nothing, nothing, nothing
        self._kept[:], self._ran[:], self._activated[:] = nothing, nothing, nothing
        self._hooked = False

    def _captured(self) -> Captured:
        batch = len(self._outputs[0])
        if batch != self._batch:
            if self._batch:
                raise UnsupportedModule(f"Batches of {self._batch} and then of {batch}; keep them of one size.")
            self._batch = batch
        outputs = list(self._outputs)
        return Captured(
            gradients=cast(list[Tensor], [parameter.grad for parameter in self._gradients_of]),
            deltas=[z.grad for z in self._kept] if self._trusted else [gradient for gradient, *_ in self._deltas],
            outputs=outputs,
            inputs=list(self._inputs) if self._needs_input else outputs,
            delta_scale=batch / self._scale,
            trusted=self._trusted,
        )

    def _refuse_missing(self) -> None:
        deltas = [(z.grad,) if z is not None else None for z in self._kept] if self._trusted else self._deltas
        for tap, output, delta in zip(self.taps, self._outputs, deltas, strict=True):
            if output is None or delta is None or delta[0] is None:
                raise UnsupportedModule(f"{tap.name} took no part in this step; leave it out or freeze it.")
        for parameter in self._gradients_of:
            _gradient(parameter)

    def _choose(self, captured: Captured) -> Collector:
        # The compiled pass reads memory by its address, which only the CPU's and only dense tensors have.
        readable = all(weight.device.type == "cpu" and weight.is_contiguous() for weight in self._weights)
        kind = NativeCollector if readable and self.recording.collector != "ring" else RingCollector
        return kind(self.taps, self.recording, captured, self._weights)


def _weight(tap: Tap) -> nn.Parameter:
    weight = getattr(tap.layer, "weight", None)
    if not isinstance(weight, nn.Parameter) or not weight.requires_grad:
        raise UnsupportedModule(f"{tap.name} has no trainable weight to measure.")
    if weight.dtype != torch.float32:
        raise UnsupportedModule(f"{tap.name} is {weight.dtype}; only float32 weights are measured so far.")
    return weight


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise UnsupportedModule("A parameter got no gradient in this step; freeze it or leave it out.")
    return parameter.grad


def _on_output(probe: Probe, index: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    if probe.armed:
        probe.see_output(index, output)


def _on_activation(probe: Probe, index: int, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    if probe.armed:
        probe.see_activation(index, inputs[0], output)


class Observer(Protocol):
    """Who is told what each layer of an observable module computes; a probe, for one."""

    @property
    def armed(self) -> bool:
        """Whether it wants to be told of this forward pass."""
        ...

    def see_output(self, index: int, output: Tensor) -> None:
        """Layer `index` has computed z."""
        ...

    def see_activation(self, index: int, entry: Tensor, output: Tensor) -> None:
        """The activation after layer `index` has computed h = `output` from `entry`."""
        ...


@runtime_checkable
class Observable(Protocol):
    """A module with hook points of its own: it tells its `observers` what each layer computes, where one is `armed`.

    Cheaper than hooks, which make every call of a module slower, also in steps that are not recorded.
    """

    observers: list[Observer]


@contextmanager
def attach(
    taps: Sequence[Tap],
    recording: Recording,
    parameters: Sequence[nn.Parameter] = (),
    observable: Observable | None = None,
) -> Iterator[Probe]:
    """Measure these layers while the block runs; every hook is gone after it, also when it raises.

    `parameters` are all that count towards the global gradient norm; the layers' weights always do. `observable` is the
    module that the taps belong to, if it has hook points of its own; any other module gets forward hooks.

    Raises:
        UnsupportedModule: for a layer that can't be measured without changing what it measures.
    """
    probe = Probe(taps, recording, parameters, trusted=observable is not None)
    if observable is not None:
        observable.observers.append(probe)
        try:
            yield probe
        finally:
            observable.observers.remove(probe)
        return
    handles: list[RemovableHandle] = []
    try:
        for index, tap in enumerate(taps):
            handles.append(tap.layer.register_forward_hook(partial(_on_output, probe, index)))
            if tap.activation is not None:
                handles.append(tap.activation.register_forward_hook(partial(_on_activation, probe, index)))
        yield probe
    finally:
        for handle in handles:
            handle.remove()
