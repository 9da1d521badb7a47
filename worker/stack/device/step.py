"""One step of all members on any device: nothing in it looks at a value on the host, so that it can be captured.

Everything that a step reads or leaves behind is memory that stays where it is: parameters, gradients and the
optimizer's slots as rows [M, P], running moments, the images and coefficients of the next steps, the ring.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from gradprobe.probe import Tap
from gradprobe.spec import TENSORS
from worker.crossing import Staging
from worker.replay import Replayed
from worker.stack.device.data import DeviceData
from worker.stack.device.optimizer import DeviceOptimizer, coefficients
from worker.stack.device.ring import Ring
from worker.stack.device.statistics import Computed, Meter
from worker.stack.lane import Lane
from worker.stack.layout import Layout
from worker.stack.network import Seen, StackedNetwork, by_layer

_COEFFICIENTS: Final = 2
#: Steps whose images and learning rates cross to the device at once: the more, the less of a step's time is the host's.
AHEAD: Final = 256


class DeviceStep:
    """The step of these lanes, and what it works on.

    Attributes:
        parameters, gradients: [M, P]. slots: [S, M, P]. moments: means and variances [M · U] a hidden layer.
        ring: where statistics and counts go.
    """

    def __init__(self, lanes: Sequence[Lane], data: DeviceData, taps: Sequence[Tap], memory_mebibytes: int) -> None:
        spec, device, members = lanes[0].spec, data.device, len(lanes)
        batch = spec.training.batch_size
        self._specs, self._data = [lane.spec for lane in lanes], data
        self.layout, self.network = Layout(spec.network), StackedNetwork(spec.network)
        self.parameters = torch.stack([lane.parameters for lane in lanes]).to(device)
        self.gradients = torch.zeros_like(self.parameters)
        self.slots = torch.stack([lane.slots for lane in lanes], dim=1).to(device)
        moments = torch.stack([lane.moments for lane in lanes]).to(device)
        self.moments = by_layer(moments, self.network.moments, self.layout.layers - 1)
        rows = self.parameters, self.gradients, self.slots
        done = [lane.position.step for lane in lanes]
        self._optimizer = DeviceOptimizer(self._specs, *rows, self.layout.spared, done)
        wanted = [tensor for tensor in TENSORS if any(tensor in one.recording.tensors for one in self._specs)]
        self._meter = Meter(self.layout, taps, wanted, self._optimizer.clips, batch)
        self.ring = Ring(self._meter, members, self.layout.layers, memory_mebibytes, device)
        self._images = torch.empty(members * batch, data.images.shape[1], device=device)
        self._chosen = Staging(torch.empty(AHEAD, members, batch, dtype=torch.int32), device)
        self._coefficients = Staging(torch.empty(AHEAD, _COEFFICIENTS, members), device)
        self._at = torch.zeros(1, dtype=torch.int64, device=device)
        self._ones = torch.ones(members, device=device)
        self._padding = torch.zeros(members, self.layout.size - self.layout.parts[-1].end, device=device)
        self._steps = {
            (statistics, counts): Replayed(partial(self._step, statistics, counts), device)
            for statistics in (False, True)
            for counts in (False, True)
        }

    @property
    def counts_anything(self) -> bool:
        """Whether any tensor that is recorded has histograms."""
        return bool(self._meter.counted)

    @property
    def chosen(self) -> Tensor:
        """Where the positions of the next steps' images are to be written, [AHEAD, M, B]: on the host."""
        return self._chosen.host

    def load(self, rates: npt.NDArray[np.float64]) -> None:
        """Send what was written to `chosen`, and the rates [AHEAD, M] of the same steps."""
        self._chosen.send()
        self._coefficients.host.copy_(torch.from_numpy(coefficients(self._specs, rates)))
        self._coefficients.send()
        self._at.zero_()

    def __call__(self, statistics: bool, counts: bool) -> None:
        """One step, which writes a row of statistics and one of counts where they are wanted."""
        self._steps[statistics, counts]()

    def _step(self, statistics: bool, counts: bool) -> None:
        computed = self._learn()
        found: dict[str, Tensor] = {}
        before = self.parameters
        if counts:
            self._meter.count(computed, self.gradients, self.ring.counts, self.ring.next_counts)
            self.ring.next_counts.add_(1)
        if statistics:
            found = self._meter.measure(computed, self.parameters, self.gradients)
            before = self.parameters.clone()
        if self._optimizer.clips:
            self._optimizer.clip()
            if statistics:
                self._meter.measure_clipped(found, self.gradients)
        self._optimizer.step(self._coefficients.tensor.index_select(0, self._at)[0])
        if statistics:
            self.ring.write(self._meter.row(found, before, self.parameters))
        self._at.add_(1)

    def _learn(self) -> Computed:
        """Forward and backward: leaves every parameter's gradient in the gradients' rows.

        The backward pass is autograd's: PyTorch captures it like anything else, and every activation and normalization
        is the one that a run by itself has.
        """
        members, data = len(self.parameters), self._data
        chosen = self._chosen.tensor.index_select(0, self._at).flatten()
        torch.index_select(data.images, 0, chosen, out=self._images)
        labels = data.labels.index_select(0, chosen)
        parts = {name: view.detach().requires_grad_() for name, view in self.layout.views(self.parameters).items()}

        def layer(number: int, entry: Tensor) -> Tensor:
            return torch.baddbmm(parts[f"bias{number}"], entry, parts[f"weight{number}"])

        seen = Seen()
        first = layer(1, self._images.view(members, -1, self._images.shape[1]))
        logits = self.network.run(first, parts, self.moments, True, layer, seen)
        each = functional.cross_entropy(logits.flatten(0, 1), labels, reduction="none")
        losses = each.view(members, -1).mean(1)  # a member's NaN stays its own
        found = torch.autograd.grad(losses, [*parts.values(), *seen.outputs], self._ones)
        rows = [gradient.flatten(1) for gradient in found[: len(parts)]]
        torch.cat([*rows, self._padding], dim=1, out=self.gradients)
        return Computed(
            losses.detach(),
            logits.detach(),
            labels.view(members, -1),
            found[len(parts) :],
            [output.detach() for output in [*seen.activated, logits]],
            [entry.detach() for entry in [*seen.inputs, logits]],
        )
