"""What CUDA could not capture, seen without a GPU: operations for whose result the host would have to wait."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Each gives the host a number, or has a shape that depends on values.
WAITED_FOR = {
    "_local_scalar_dense",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "_unique2",
    "unique_dim",
    "repeat_interleave",
}


class Capturable(TorchDispatchMode):
    """Refuses, while it is entered, what can't be captured; counts what can.

    A choice of elements by a mask is `nonzero` in disguise. The rest of a step is kernels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in WAITED_FOR, f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            masks = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor) and leaf.dtype == torch.bool]
            assert not masks, f"{name} by a mask waits for the device"
        self.kernels += 1
        call: Callable[..., Any] = func
        return call(*args, **(kwargs or {}))
