"""Forward and backward pass of a stack: the first layer from the images' entries, all others from a tape."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from worker.passes import MOST_TAPE_BYTES
from worker.stack import kernels
from worker.stack.images import Images
from worker.stack.layout import Layout
from worker.stack.network import Moments, Seen, StackedNetwork, by_layer, of_member
from worker.tape import Recorder, Tape

Chosen = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]


@dataclass(slots=True)
class Numbers:
    """The members' numbers, one row each: parameters and gradients [M, P], running moments [M, …].

    Behind the members come spare rows, which nobody reads. torch computes what is left over of a tensor behind the last
    whole vector register by other instructions, which round otherwise; so what is left over must belong to no member,
    or a member's numbers would depend on its company.
    """

    parameters: Tensor
    gradients: Tensor
    moments: Tensor


@dataclass(slots=True)
class Computed:
    """What every step computes, the same memory each time: losses [M], logits [M, B, 10], and a layer at a time δ/B, h
    and what the activation got, [M, B, U]."""

    losses: Tensor
    logits: Tensor
    deltas: list[Tensor]
    outputs: list[Tensor]
    inputs: list[Tensor]


_LEFT_OVER: Final = 64  # elements; more than any loop of torch's takes at once


def spare_rows(layout: Layout, batch: int) -> int:
    """How many rows behind the members' hold all that is left over."""
    fewest = batch * min(part.shape[-1] for part in layout.parts if part.name.startswith("bias"))
    return -(-_LEFT_OVER // fewest)


class StackedPass:
    """Made for so many members and one batch size.

    Attributes:
        labels: int64 [M, B], of the images of the next call; spare rows included.
    """

    def __init__(self, network: StackedNetwork, layout: Layout, numbers: Numbers, images: Images, batch: int) -> None:
        self._network, self._layout, self._numbers, self._images = network, layout, numbers, images
        rows = len(numbers.parameters)
        self.labels = torch.zeros(rows, batch, dtype=torch.int64)
        units = layout.units(1)
        self._first = torch.zeros(rows, batch, units)
        self._table = layout.table(images.inputs)
        self._pixels = self._table[: images.inputs]
        self._parameters, self._gradients = numbers.parameters.numpy(), numbers.gradients.numpy()
        self._moments = by_layer(numbers.moments, network.moments, layout.layers - 1)
        self._tape: Tape | None = None
        self._recorded: Computed | None = None

    def __call__(self, chosen: Chosen) -> Computed:
        """Of the members' images [M, B] and `labels`; leaves every parameter's gradient in the gradients' rows.

        Raises:
            Unrepeatable: at the first step, when its tensors are too large to be kept.
        """
        members, images = len(chosen), self._images.arrays
        outputs = self._first.numpy()[:members]
        kernels.first_layer(chosen, *images, self._parameters, outputs, self._pixels)
        if self._tape is not None and self._recorded is not None:
            self._tape.play()
        else:
            self._recorded = self._record()
        computed = self._recorded
        kernels.first_layer_gradients(
            chosen, *images, computed.deltas[0].numpy()[:members], self._gradients, self._pixels
        )
        return computed

    def moments_of(self, member: int) -> Moments:
        """One member's running means and variances, [U] a hidden layer."""
        return of_member(self._moments, member, len(self._parameters))

    def _record(self) -> Computed:
        parts = {
            name: view.detach().requires_grad_()
            for name, view in self._layout.views(self._numbers.parameters).items()
            if not name.startswith(("weight", "bias"))
        }
        first = self._first.requires_grad_()
        seed = torch.ones(len(self._first))
        named = [first, self.labels, seed, *parts.values(), *(half for both in self._moments for half in both)]
        seen = Seen()
        with Recorder(named, MOST_TAPE_BYTES) as recorder:
            layer = partial(self._layer, recorder)
            logits = self._network.run(first, parts, self._moments, training=True, layer=layer, seen=seen)
            # With the classes before the samples torch takes many samples at once, many times as fast.
            losses = functional.cross_entropy(logits.transpose(1, 2), self.labels, reduction="none").mean(1)
            found = torch.autograd.grad(losses, [*parts.values(), *seen.outputs], seed)
        self._first = first.detach()
        rows = self._layout.views(self._numbers.gradients)
        copies: list[Callable[[], object]] = [
            partial(rows[name].copy_, gradient.detach()) for name, gradient in zip(parts, found, strict=False)
        ]
        computed = Computed(
            losses.detach(),
            logits.detach(),
            _contiguous(found[len(parts) :], copies),
            _contiguous([*seen.activated, seen.outputs[-1]], copies),
            _contiguous([*seen.inputs, seen.outputs[-1]], copies),
        )
        for copy in copies:
            copy()
        self._tape = Tape([*recorder.tape().calls, *copies])
        return computed

    def _layer(self, recorder: Recorder, number: int, entry: Tensor) -> Tensor:
        place = Place(self._layout.start(number), self._layout.units(number), self._table)
        output: Tensor = _Layer.apply(entry, recorder, place, self._parameters, self._gradients)  # type: ignore[no-untyped-call]
        return output


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layer's weights begin in a row, how many units it has, and room to compute them."""

    start: int
    units: int
    table: npt.NDArray[np.float32]


class _Layer(torch.autograd.Function):
    """A dense layer of all members; what it computes on the way back goes to the gradients' rows at once."""

    @staticmethod
    def forward(context: Any, entry: Tensor, recorder: Recorder, place: Place, *rows: Rows) -> Tensor:
        """z [M, B, U] of h [M, B, K]; `rows` are parameters and gradients."""
        output = torch.empty(*entry.shape[:2], place.units)
        context.entry, context.recorder, context.place = entry.detach().contiguous(), recorder, place
        context.rows = rows
        arrays = context.entry.numpy(), rows[0], place.start, output.numpy(), place.table
        recorder.run(partial(kernels.layer, *arrays))
        return output

    @staticmethod
    def backward(context: Any, *deltas: Any) -> Any:
        """∂L/∂h [M, B, K] of δ [M, B, U]."""
        delta, place = deltas[0].contiguous(), context.place
        parameters, gradients = context.rows
        of_entry = torch.empty_like(context.entry)
        arrays = context.entry.numpy(), parameters, place.start, delta.detach().numpy(), gradients
        context.recorder.run(partial(kernels.layer_gradients, *arrays, of_entry.numpy(), place.table))
        return of_entry, None, None, None, None


def _contiguous(tensors: "list[Tensor] | tuple[Tensor, ...]", copies: list[Callable[[], object]]) -> list[Tensor]:
    """Each as memory without gaps, copied there in every step where it is not."""
    found = []
    for tensor in tensors:
        plain = tensor.detach()
        if not plain.is_contiguous():
            copy = torch.empty_like(plain, memory_format=torch.contiguous_format)
            copies.append(partial(copy.copy_, plain))
            plain = copy
        found.append(plain)
    return found
