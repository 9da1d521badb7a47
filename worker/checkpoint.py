"""What a run is made of between two iterations, as bytes: everything that the next iteration depends on.

Parameters and buffers, the optimizer's state, the loss scaler, the state of every source of random numbers, the place
in the data, and what the loop holds besides. The learning rate is a function of the iteration alone. The bytes are
safetensors, which hold tensors and text and no code, so reading them can run nothing.
"""

import json
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor

from worker import randomness
from worker.batches import Batches
from worker.learner import Learner

FORMAT: Final = "1"
#: Saving may take this share of the time; where it takes long, it is done less often.
_SHARE: Final = 0.05


class CheckpointUnusable(Exception):
    """These bytes are no checkpoint, or not one for this network on this device; the run must begin anew."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run is: iterations done, seconds trained, and the last losses [≤ 100] in nats."""

    step: int = 0
    seconds: float = 0.0
    losses: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Run:
    """What has a state that changes with every iteration."""

    learner: Learner
    data: Batches
    device: torch.device

    def save(self, position: Position) -> bytes:
        """All of it, between two iterations."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "learner": self.learner.state(),
            "data": self.data.state(),
            "random": {"dropout": randomness.dropout_state(self.device)},
        }
        arrays = {
            f"{group}.{name}": tensor.detach().cpu().numpy()
            for group, state in groups.items()
            for name, tensor in state.items()
        }
        arrays |= {"step": np.array(position.step), "seconds": np.array(position.seconds), "losses": position.losses}
        return safetensors.numpy.save(arrays, {"format": FORMAT, "device": self.device.type})

    def restore(self, checkpoint: "Checkpoint") -> Position:
        """Put everything back as it was; call it where dropout's random numbers are this run's own.

        Raises:
            CheckpointUnusable: when it is another network's or another device's.
        """
        if checkpoint.device != self.device.type:
            raise CheckpointUnusable(f"It was saved on {checkpoint.device}, and this is {self.device.type}.")
        try:
            self.learner.restore(checkpoint.group("learner"))
            self.data.restore(checkpoint.group("data"))
            randomness.set_dropout_state(self.device, checkpoint.group("random")["dropout"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointUnusable(f"It does not fit this network ({error}).") from error
        return checkpoint.position


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was read and not yet put to use."""

    device: str
    arrays: dict[str, npt.NDArray[np.generic]]

    @classmethod
    def read(cls, state: bytes) -> Self:
        """From the bytes that `Run.save` gave. Raises CheckpointUnusable."""
        try:
            (length,) = struct.unpack_from("<Q", state)
            described = json.loads(state[8 : 8 + length]).get("__metadata__", {})
            arrays = safetensors.numpy.load(state)
        except (struct.error, ValueError, SafetensorError) as error:
            raise CheckpointUnusable(f"It can't be read ({error}).") from error
        if described.get("format") != FORMAT or not {"step", "seconds", "losses"} <= arrays.keys():
            raise CheckpointUnusable("It has another release's form.")
        return cls(described["device"], arrays)

    @property
    def position(self) -> Position:
        """Where the run was."""
        losses = self.arrays["losses"].astype(np.float32)
        return Position(int(self.arrays["step"]), float(self.arrays["seconds"]), losses)

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, by their names there."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): torch.tensor(array)
            for key, array in self.arrays.items()
            if key.startswith(prefix)
        }


class Calendar:
    """When the next checkpoint is due: after so many seconds, later where saving takes long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = time.perf_counter() + seconds

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return time.perf_counter() >= self._next

    def saved(self, took_seconds: float) -> None:
        """One was saved just now."""
        self._next = time.perf_counter() + max(self._seconds, took_seconds / _SHARE)
