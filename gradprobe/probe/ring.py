"""Preallocated memory on the device: one row a recorded step, one segment a layer.

A step's tensors are copied into a row by one fused call; nothing crosses to the host until the ring is drained.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

#: A row's slots are tensor objects made once and kept; this many of them weigh about as much as a small ring.
_MAXIMUM_SLOTS = 40_000
_MAXIMUM_ROWS = 256
_BYTES_PER_ELEMENT = 4


def rows_within(elements_per_row: int, tensors_per_row: int, mebibytes: int) -> int:
    """How many rows fit the memory bound; at least one, so that a huge net is reduced step by step."""
    by_memory = mebibytes * 1024 * 1024 // max(1, elements_per_row * _BYTES_PER_ELEMENT)
    return max(1, min(_MAXIMUM_ROWS, by_memory, _MAXIMUM_SLOTS // max(1, tensors_per_row)))


class Ring:
    """Rows of float32 segments, one a tensor of `shapes`, all in one buffer [rows, Σ sizes]."""

    def __init__(self, shapes: Sequence[Sequence[int]], rows: int, device: torch.device) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        self.sizes = [prod(shape) for shape in self.shapes]
        self.buffer = torch.empty(rows, sum(self.sizes), dtype=torch.float32, device=device)
        self._slots: list[list[Tensor] | None] = [None] * rows

    def write(self, row: int, tensors: Sequence[Tensor]) -> None:
        """Copy one step's tensors, in the order of `shapes`."""
        slots = self._slots[row]
        if slots is None:
            parts = torch.split(self.buffer[row], self.sizes)
            slots = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
            self._slots[row] = slots
        torch._foreach_copy_(slots, list(tensors))

    def write_at(self, row: Tensor, tensors: Sequence[Tensor]) -> None:
        """The same at the row that an int64 [1] on the device says, so that it can be captured once for every row."""
        self.buffer.index_copy_(0, row, torch.cat([tensor.reshape(-1).float() for tensor in tensors])[None])

    def segment(self, index: int, rows: Tensor | slice) -> Tensor:
        """One tensor's elements over the chosen rows, [S, N]."""
        start = sum(self.sizes[:index])
        return self.buffer[rows, start : start + self.sizes[index]]
