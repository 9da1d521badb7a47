"""What a watched loop has measured so far, in memory: bounded, thinned out where it grows long."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.statistics import Tensor

#: Steps that are never thinned: the diagnosis judges the beginning by itself.
_FIRST_STEPS: Final = 512


class History:
    """Blocks of one run by tensor.

    Once they take more than `bytes_wanted`, every other step after the first 512 is dropped, and from then on only
    steps divisible by twice as much are taken: what is left is as evenly spread as before.
    """

    def __init__(self, bytes_wanted: int) -> None:
        self._wanted = bytes_wanted
        self._stride = 1
        self._statistics: dict[Tensor, list[StatisticsBlock]] = {}
        self._counts: dict[Tensor, list[CountsBlock]] = {}
        self._bytes = 0

    @property
    def thinned(self) -> int:
        """Every how many recorded steps one was kept, after the first 512; 1: all."""
        return self._stride

    def add(self, statistics: dict[Tensor, StatisticsBlock], counts: dict[Tensor, CountsBlock]) -> None:
        """Take what was measured next."""
        for tensor, block in statistics.items():
            kept = _thinned(block, self._stride)
            self._statistics.setdefault(tensor, []).append(kept)
            self._bytes += kept.values.nbytes
        for tensor, counted in counts.items():
            self._counts.setdefault(tensor, []).append(counted)
            self._bytes += counted.bins.nbytes + counted.counts.nbytes
        while self._bytes > self._wanted and self._stride < 2**20:
            self._halve()

    def statistics(self) -> dict[Tensor, StatisticsBlock]:
        """All that is kept, one block a tensor."""
        self._statistics = {tensor: [StatisticsBlock.join(blocks)] for tensor, blocks in self._statistics.items()}
        return {tensor: blocks[0] for tensor, blocks in self._statistics.items()}

    def counts(self) -> dict[Tensor, CountsBlock]:
        """All histograms that are kept."""
        self._counts = {tensor: [CountsBlock.join(blocks)] for tensor, blocks in self._counts.items()}
        return {tensor: blocks[0] for tensor, blocks in self._counts.items()}

    def _halve(self) -> None:
        self._stride *= 2
        self._statistics = {
            tensor: [_thinned(StatisticsBlock.join(blocks), self._stride)]
            for tensor, blocks in self._statistics.items()
        }
        # Histograms are recorded seldom and weigh most: the newer half goes first where both are too much.
        self._counts = {tensor: _newest(blocks) for tensor, blocks in self._counts.items()}
        self._bytes = sum(block.values.nbytes for blocks in self._statistics.values() for block in blocks)
        self._bytes += sum(
            block.bins.nbytes + block.counts.nbytes for blocks in self._counts.values() for block in blocks
        )


def _thinned(block: StatisticsBlock, stride: int) -> StatisticsBlock:
    if stride == 1:
        return block
    kept = (block.steps < _FIRST_STEPS) | (block.steps % stride == 0)
    return StatisticsBlock(block.steps[kept], np.ascontiguousarray(block.values[:, :, kept]))


def _newest(blocks: Sequence[CountsBlock]) -> list[CountsBlock]:
    """The first block, which has the start, and the newer half of the others."""
    return [*blocks[:1], *blocks[1:][len(blocks) // 2 :]]
