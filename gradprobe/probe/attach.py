"""Hooks, borrowed and never owned: attached in a context manager, removed in `finally`, writing to nothing of yours.

This is the only file that registers hooks. A forward hook on each layer reads its output z and registers a hook on that
tensor, which reads δ = ∂L/∂z on the way back; a forward hook on each activation reads h = φ(z). No hook returns
anything, so values, gradients and random numbers are those of a run without them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradprobe.errors import UnsupportedModule
from gradprobe.probe.drain import Measured, Rings, Rows, drain
from gradprobe.probe.ring import Ring, rows_within
from gradprobe.probe.saturation import NEEDS_INPUT
from gradprobe.probe.tap import Recording, Tap


class Probe:
    """Measures a module while it trains: `arm`, forward, backward, `collect`, optimizer step, `collect_update`, repeat.

    When `full`, call `drain`: it reduces all captured steps in bulk and brings the results to the host in one go.
    """

    def __init__(self, taps: Sequence[Tap], recording: Recording, parameters: Sequence[nn.Parameter]) -> None:
        if not taps:
            raise UnsupportedModule("There is no layer to measure.")
        self.taps = list(taps)
        self.recording = recording
        weights = [_weight(tap) for tap in taps]
        self._weights = [weight.detach() for weight in weights]
        measured = {id(weight) for weight in weights}
        self._gradients_of = [*weights, *(p for p in parameters if id(p) not in measured and p.requires_grad)]
        self._armed = self._collected = False
        self._outputs: dict[int, Tensor] = {}
        self._deltas: dict[int, Tensor] = {}
        self._activations: dict[int, Tensor] = {}
        self._inputs: dict[int, Tensor] = {}
        self._rows = Rows()
        self._next_row = (0, False, False)
        self._rings: Rings | None = None
        self._batch = 0

    @property
    def full(self) -> bool:
        """Whether the ring must be drained before the next step."""
        return self._rings is not None and len(self._rows) >= self._rings.rows

    def arm(self, step: int) -> bool:
        """Begin a step; returns whether it is recorded. Raises UnsupportedModule on a full ring."""
        statistics, counts = self.recording.statistics_at(step), self.recording.histogram_at(step)
        self._armed, self._collected = statistics or counts, False
        if self._armed:
            if self.full:
                raise UnsupportedModule("The ring is full; drain it before the next step.")
            for captured in (self._outputs, self._deltas, self._activations, self._inputs):
                captured.clear()
            self._next_row = (step, statistics, counts)
        return self._armed

    def collect(self) -> None:
        """After the backward pass, before the optimizer: copy this step's tensors into the ring."""
        if not self._armed:
            return
        rings = self._rings or self._allocate()
        row, batch = len(self._rows), len(self._ordered(self._outputs)[0])
        if batch != self._batch:
            raise UnsupportedModule(f"Batches of {self._batch} and then of {batch}; keep them of one size.")
        rings.gradients.write(row, [_gradient(parameter) for parameter in self._gradients_of])
        if rings.deltas is not None:
            rings.deltas.write(row, self._ordered(self._deltas))
        if rings.weights is not None:
            rings.weights.write(row, self._weights)
        if rings.activations is not None:
            rings.activations.write(row, self._all_activations())
        if rings.inputs is not None:
            rings.inputs.write(row, self._ordered(self._outputs | self._inputs))
        # Only now: a step that was begun and not finished must not be reduced.
        self._rows.begin(*self._next_row)
        self._collected = True

    def collect_update(self) -> None:
        """After the optimizer's step: the weights as they are now, for the update ratio."""
        if self._collected and self._rings is not None and self._rings.updated is not None:
            self._rings.updated.write(len(self._rows) - 1, self._weights)
        self._armed = self._collected = False

    def drain(self) -> Measured:
        """Reduce what was captured since the last drain and empty the ring."""
        measured = drain(self._rings, self._rows, self.taps, self.recording.tensors, self._batch)
        self._rows = Rows()
        return measured

    def on_output(self, index: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        """Forward hook of layer `index`; raises UnsupportedModule for a layer that runs twice in one step."""
        if not self._armed or not torch.is_grad_enabled():
            return
        if index in self._outputs:
            raise UnsupportedModule(f"{self.taps[index].name} runs more than once in a step, which is not supported.")
        self._outputs[index] = output.detach()
        if output.requires_grad:
            output.register_hook(partial(self._on_delta, index))

    def on_activation(self, index: int, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of the activation after layer `index`; raises UnsupportedModule for one that runs twice."""
        if not self._armed or not torch.is_grad_enabled():
            return
        tap = self.taps[index]
        if index in self._activations:
            raise UnsupportedModule(f"The activation after {tap.name} runs more than once in a step; give each its own.")
        self._activations[index] = output.detach()
        if tap.activation_name in NEEDS_INPUT:
            if output is inputs[0]:
                raise UnsupportedModule(f"The activation after {tap.name} overwrites its input; use inplace=False.")
            self._inputs[index] = inputs[0].detach()

    def _on_delta(self, index: int, gradient: Tensor) -> None:
        self._deltas[index] = gradient

    def _ordered(self, captured: dict[int, Tensor]) -> list[Tensor]:
        try:
            return [captured[index] for index in range(len(self.taps))]
        except KeyError as missing:
            name = self.taps[missing.args[0]].name
            raise UnsupportedModule(f"{name} took no part in this step; leave it out or freeze it.") from missing

    def _all_activations(self) -> list[Tensor]:
        return self._ordered(self._outputs | self._activations)

    def _allocate(self) -> Rings:
        wanted = self.recording.tensors
        outputs = self._all_activations()
        self._batch = outputs[0].shape[0]
        gradients = [tuple(parameter.shape) for parameter in self._gradients_of]
        weights = [tuple(weight.shape) for weight in self._weights] if "weights" in wanted else []
        deltas = [tuple(tensor.shape) for tensor in self._ordered(self._deltas)] if "output_gradients" in wanted else []
        activations = [tuple(tensor.shape) for tensor in outputs] if "activations" in wanted else []
        inputs = activations if self._inputs else []
        kinds = [gradients, weights, weights, deltas, activations, inputs]
        elements = sum(torch.Size(shape).numel() for kind in kinds for shape in kind)
        rows = rows_within(elements, sum(map(len, kinds)), self.recording.memory_mebibytes)
        device = self._weights[0].device
        rings = [Ring(kind, rows, device) if kind else None for kind in kinds[1:]]
        self._rings = Rings(rows, Ring(gradients, rows, device), *rings)
        return self._rings


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


@contextmanager
def attach(taps: Sequence[Tap], recording: Recording, parameters: Sequence[nn.Parameter] = ()) -> Iterator[Probe]:
    """Measure these layers while the block runs; every hook is gone after it, also when it raises.

    `parameters` are all that count towards the global gradient norm; the layers' weights always do.

    Raises:
        UnsupportedModule: for a layer that can't be measured without changing what it measures.
    """
    probe = Probe(taps, recording, parameters)
    handles: list[RemovableHandle] = []
    try:
        for index, tap in enumerate(taps):
            handles.append(tap.layer.register_forward_hook(partial(probe.on_output, index)))
            if tap.activation is not None:
                handles.append(tap.activation.register_forward_hook(partial(probe.on_activation, index)))
        yield probe
    finally:
        for handle in handles:
            handle.remove()
