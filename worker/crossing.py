"""What crosses from the host to a device, and back, without either waiting for the other more than it must."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.generic]


class Staging:
    """Arrays of one shape, one after another into the same tensor on the device, without waiting for the device.

    Attributes:
        tensor: on the device; a copy to it is done before whatever is enqueued after it.
    """

    def __init__(self, like: Tensor, device: torch.device) -> None:
        self.tensor = torch.empty_like(like, device=device)
        self._on_cuda = device.type == "cuda"
        self._host = torch.empty_like(like, pin_memory=self._on_cuda)
        self._copied: torch.cuda.Event | None = None

    @property
    def host(self) -> Tensor:
        """Where to write what is to be sent; waits for the copy before, which bounds how far the host runs ahead."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host

    def send(self) -> None:
        """Enqueue a copy of what was written to `host`."""
        self.tensor.copy_(self._host, non_blocking=True)
        if self._on_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()


def fetch(tensors: Sequence[Tensor]) -> list[Array]:
    """On the host, when all that was enqueued before is done: one crossing for all of them, into pinned memory."""
    if not tensors or tensors[0].device.type != "cuda":
        return [tensor.detach().numpy().copy() for tensor in tensors]
    side = torch.cuda.Stream(tensors[0].device)
    side.wait_stream(torch.cuda.current_stream(tensors[0].device))
    with torch.cuda.stream(side):
        pinned = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(pinned, tensors, strict=True):
            copy.copy_(tensor.detach(), non_blocking=True)
    side.synchronize()
    return [copy.numpy().copy() for copy in pinned]  # pinned memory goes back at once
