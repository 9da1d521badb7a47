"""From one watched step's tensors to the collectors that the worker uses as well."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor, nn

from gradprobe.errors import UnsupportedModule
from gradprobe.probe.collector import NOTHING, Captured, Collector, Measured, Moment
from gradprobe.probe.following import Pass
from gradprobe.probe.graph import Layer
from gradprobe.probe.native_collector import NativeCollector
from gradprobe.probe.ring_collector import RingCollector
from gradprobe.probe.tap import Recording, Tap

# Asked of every tensor at every step of somebody's loop: by `map` no Python runs for each.
_gradient: Final[Callable[[Tensor], Tensor | None]] = attrgetter("grad")
_version: Final[Callable[[Tensor], int]] = attrgetter("_version")
_NONE: Final = type(None)


class Taking:
    """One loop's collector, made at its first backward pass.

    A step may be collected several times: with accumulated gradients each backward pass brings more, and the last one
    counts. What is missing in a step (a layer without δ, a parameter without a gradient) is NaN.
    """

    def __init__(self, layers: Sequence[Layer], parameters: Sequence[nn.Parameter], recording: Recording) -> None:
        self._layers = layers
        self._recording = recording
        self._weights = [layer.weight.detach() for layer in layers]
        measured = {id(layer.weight) for layer in layers}
        rest = [parameter for parameter in parameters if id(parameter) not in measured]
        self._gradients_of = [*(layer.weight for layer in layers), *rest]
        self._collector: Collector | None = None
        self._sizes: list[int] = []
        self._batch = 0
        self._missing = False
        self._gradient_version = 0
        self._weight_versions: list[int] = []
        self._clips = False
        self._nothing = torch.full((1, 1), float("nan"))
        self.moment: Moment | None = None
        self.collected = False

    @property
    def full(self) -> bool:
        """Whether it must be drained before the next step."""
        return self._collector is not None and self._collector.full

    def collect(self, found: Pass, scale: float) -> None:
        """At the end of a backward pass: gradients before anybody changes them.

        `scale`: what the loss was multiplied by.

        Raises:
            UnsupportedModule: for tensors of another size on a device that can't take them.
        """
        nothing = self._nothing
        deltas = [nothing if given is None or given[0] is None else given[0] for given in found.deltas]
        rows = next((delta.shape[0] for delta in reversed(deltas) if delta is not nothing), 0)
        if not rows or self.moment is None:
            return
        gradients = self._gradients(dense=found.batch > 0)
        captured = Captured(
            gradients,
            deltas,
            found.outputs,
            found.inputs,
            rows / scale,
            trusted=True,
            readable=found.batch > 0,
            gradient_scale=1.0 / scale,
        )
        collector = self._fitting(captured, found.batch)
        if self.collected:
            collector.withdraw()
        if list(map(_version, self._weights)) != self._weight_versions:
            collector.distrust()
        collector.collect(self.moment, captured, self._weights)
        self.collected = True
        self._gradient_version = gradients[0]._version

    def note_clipping(self, harmless_changes: int) -> None:
        """Before the update: gradients that were written to since are measured once more, from then on always.

        `harmless_changes`: how often they are written to without being clipped.
        """
        if not self.collected or self._collector is None or self.moment is None or not self.moment.statistics:
            return
        gradient = self._gradients_of[0].grad
        self._clips |= gradient is not None and gradient._version - self._gradient_version > harmless_changes
        if self._clips:
            weights = self._gradients_of[: len(self._weights)]
            self._collector.collect_clipped([self._usable(weight.grad) for weight in weights])

    def finish(self) -> bool:
        """After the update; whether this step's statistics were recorded."""
        recorded = False
        if self.collected and self._collector is not None and self.moment is not None:
            self._collector.collect_update(self._weights)
            self._weight_versions = list(map(_version, self._weights))
            recorded = self.moment.statistics
        self.moment, self.collected = None, False
        return recorded

    def drain(self) -> Measured:
        """Everything of whole steps since the last drain; nothing while a step is under way."""
        return NOTHING if self._collector is None or self.collected else self._collector.drain()

    def _gradients(self, dense: bool) -> list[Tensor]:
        """`dense`: none of them is sparse."""
        self._missing = False
        if dense:
            found: list[Any] = list(map(_gradient, self._gradients_of))
            return [self._usable(one) for one in found] if _NONE in map(type, found) else found
        # Written out, not called, for the usual case: this is asked at every step of somebody's loop.
        strided = torch.strided
        return [
            gradient
            if (gradient := parameter.grad) is not None and gradient.layout is strided
            else self._usable(gradient)
            for parameter in self._gradients_of
        ]

    def _usable(self, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            self._missing = True
            return self._nothing
        if gradient.layout is torch.strided:
            return gradient
        values: Tensor = gradient.coalesce().values()
        return values

    def _fitting(self, captured: Captured, batch: int) -> Collector:
        if self._collector is not None and batch and batch == self._batch and not self._missing:
            return self._collector
        self._batch = batch if not self._missing else 0
        sizes = [tensor.numel() for tensor in (*captured.deltas, *captured.outputs, *captured.gradients)]
        if self._collector is None:
            self._collector = self._choose(captured)
        elif sizes != self._sizes:
            self._collector.fit(captured)
        self._sizes = sizes
        return self._collector

    def _choose(self, captured: Captured) -> Collector:
        taps = [_tap(layer) for layer in self._layers]
        readable = all(weight.device.type == "cpu" and weight.is_contiguous() for weight in self._weights)
        kind: Any = NativeCollector if readable and self._recording.collector == "auto" else RingCollector
        if kind is RingCollector and any(tensor.device != self._weights[0].device for tensor in self._weights):
            raise UnsupportedModule("its layers are on more than one device")
        collector: Collector = kind(taps, self._recording, captured, self._weights)
        return collector


def _tap(layer: Layer) -> Tap:
    found = layer.activation
    name, slope = (found.name, found.negative_slope) if found is not None else ("identity", 0.0)
    return Tap(layer.name, nn.Identity(), None, name, slope)  # collectors ask for the activation alone
