"""All randomness of a run comes from the spec's seed: one stream a purpose, so that one draws nothing from another."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor

INITIALIZATION, ORDER, DROPOUT = range(3)


def _seed(seed: int, stream: int) -> int:
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))  # torch takes 63 bits


def generator(seed: int, stream: int) -> Generator:
    """A generator of its own for one stream of a spec's seed."""
    return Generator().manual_seed(_seed(seed, stream))


@contextmanager
def dropout_from(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout can only draw from the device's global generator: seed it, and give it back as it was."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        if on_cuda:
            torch.cuda.manual_seed(_seed(seed, DROPOUT))
        else:
            torch.default_generator.manual_seed(_seed(seed, DROPOUT))
        yield


def dropout_state(device: torch.device) -> Tensor:
    """Where dropout's random numbers are; uint8, of the device's own length."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_dropout_state(device: torch.device, state: Tensor) -> None:
    """Go on from there, within `dropout_from`. Raises RuntimeError for another kind of device's."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
