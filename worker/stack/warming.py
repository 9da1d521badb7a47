"""Compile what a stack needs, or load it from the cache, before there is one."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from gradprobe.probe import compiled
from gradprobe.spec import Spec
from worker.loop import Chunk, Outcome, Pace
from worker.stack.images import Data, Images
from worker.stack.lane import fresh
from worker.stack.training import train_stack

_logger = logging.getLogger(__name__)

_SPEC = Spec.model_validate({"network": {"depth": 2, "width": 2}, "training": {"iterations": 2, "batch_size": 2}})


class _Nobody:
    """A company that nobody asks about."""

    def keep_going(self) -> None:
        pass

    def leaving(self) -> tuple[()]:
        return ()

    def take(self, chunks: Mapping[str, Chunk]) -> None:
        pass

    def store(self, chunks: Mapping[str, Chunk]) -> None:
        pass

    def left(self, identifier: str) -> None:
        pass

    def ended(self, identifier: str, outcome: Outcome) -> None:
        pass


def is_kept() -> bool:
    """Whether it was compiled on this machine before, and is only to be loaded."""
    return compiled.is_kept(Path(__file__).parent)


def prepare() -> None:
    """Before a stack: compile what it needs where nobody has, and say so."""
    if not is_kept():
        _logger.info("compiling what trains side by side, once for this machine: some ten seconds")
        warm_up()


def warm_up() -> None:
    """Train two small networks for two steps."""
    pixels = torch.zeros(4, 784)
    pixels[:, ::5] = torch.linspace(0.1, 1.0, 157)
    images, labels = Images.of(pixels), torch.tensor([0, 1, 2, 3])
    data = Data(images, labels, images, labels)
    train_stack([fresh(name, _SPEC, len(labels)) for name in "ab"], data, _Nobody(), Pace())
    compiled.mark_kept(Path(__file__).parent)
