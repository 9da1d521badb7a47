"""One member of a stack while it is between two stacks: everything that its next step depends on."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import Tensor

from gradprobe.spec import SGD, Network, Spec
from worker import batches
from worker.batches import Order
from worker.checkpoint import FORMAT, Checkpoint, CheckpointUnusable, Position
from worker.loop import FinalLoss
from worker.network import builders
from worker.network.layers import Classifier
from worker.stack.layout import Layout
from worker.stack.network import StackedNetwork

_GROUP: Final = "member"


@dataclass(slots=True)
class Lane:
    """A member: its spec, where it is, and its numbers.

    Attributes:
        position: iterations done, seconds trained (its share of its stacks' time), last losses.
        order: where its next images come from.
        parameters: [P], see `Layout`. slots: the optimizer's, [S, P]. moments: running ones, see `StackedNetwork`.
    """

    identifier: str
    spec: Spec
    position: Position
    order: Order
    parameters: Tensor
    slots: Tensor
    moments: Tensor

    def save(self, position: Position) -> bytes:
        """All of it, as a checkpoint."""
        return packed(self.order.state(), self.parameters, self.slots, self.moments, position)


@dataclass(slots=True)
class Row:
    """What a member has beside its numbers while it is in a stack."""

    lane: Lane
    losses: FinalLoss


def slot_count(spec: Spec) -> int:
    """Tensors that the optimizer keeps of each parameter."""
    optimizer = spec.optimizer
    if isinstance(optimizer, SGD):
        return int(optimizer.momentum > 0.0)
    return 1 if optimizer.name == "rmsprop" else 2


@lru_cache(maxsize=2)
def _skeleton(network: Network) -> Classifier:
    """Modules to draw initial weights in, as a run by itself does; making them takes longer than drawing."""
    return builders.skeleton(network)


def fresh(identifier: str, spec: Spec, size: int) -> Lane:
    """A member before its first step, on a training set of so many images; from its seed as if it trained alone."""
    layout, network = Layout(spec.network), StackedNetwork(spec.network)
    module = _skeleton(spec.network)
    builders.begin(module, spec.network, batches.initialization_generator(spec.training.seed))
    return Lane(
        identifier,
        spec,
        Position(),
        Order(size, spec.training.seed),
        layout.row_of(module),
        torch.zeros(slot_count(spec), layout.size),
        network.first_moments(),
    )


def packed(
    order: Mapping[str, Tensor], parameters: Tensor, slots: Tensor, moments: Tensor, at: Position, device: str = "cpu"
) -> bytes:
    """A member's checkpoint, and on which kind of device it was trained; its tensors are on the CPU."""
    tensors = {"parameters": parameters, "slots": slots, "moments": moments}
    tensors |= {f"order_{name}": tensor for name, tensor in order.items()}
    arrays: dict[str, npt.NDArray[np.generic]] = {
        f"{_GROUP}.{name}": np.ascontiguousarray(tensor.detach().numpy()) for name, tensor in tensors.items()
    }
    arrays |= {"step": np.array(at.step), "seconds": np.array(at.seconds), "losses": at.losses}
    return safetensors.numpy.save(arrays, {"format": FORMAT, "device": device})


def was_stacked(state: bytes) -> bool:
    """Whether these bytes are a member's checkpoint, and not that of a run by itself."""
    try:
        (length,) = struct.unpack_from("<Q", state)
        return f"{_GROUP}.parameters" in json.loads(state[8 : 8 + length])
    except (struct.error, ValueError):
        return False


def resumed(identifier: str, spec: Spec, size: int, checkpoint: Checkpoint, device: str = "cpu") -> Lane:
    """A member as it was saved, to go on on that kind of device.

    Raises:
        CheckpointUnusable: when it is another network's or another kind of device's, or that of a run by itself.
    """
    if checkpoint.device != device:
        raise CheckpointUnusable(f"It was saved on {checkpoint.device}, and this is {device}.")
    lane, found = fresh(identifier, spec, size), checkpoint.group(_GROUP)
    try:
        for name in ("parameters", "slots", "moments"):
            getattr(lane, name).copy_(found[name].view_as(getattr(lane, name)))
        lane.order.restore({"generator": found["order_generator"], "left": found["order_left"]})
        lane.order.take(int(found["order_taken"]))
    except (KeyError, RuntimeError) as error:
        raise CheckpointUnusable(f"It does not fit this network ({error}).") from error
    lane.position = checkpoint.position
    return lane
