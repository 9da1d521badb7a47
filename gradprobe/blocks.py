"""Columnar encoding: a run's statistics as a few large arrays instead of a row a point.

Layout of a packed block, little-endian: magic `GPB1` · u32 CRC-32 of all that follows · u32 length of the header ·
header (JSON: dtype and shape of each array) · one zstd frame over the arrays' bytes, each array byte-shuffled (all
first bytes of its elements, then all second bytes, …), because a series' exponents compress and its low bits don't.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import zstandard

from gradprobe.errors import CorruptBlock
from gradprobe.histogram import BINS

_MAGIC: Final = b"GPB1"
_PREFIX: Final = struct.Struct("<4sI")
_LENGTH: Final = struct.Struct("<I")
_LEVEL: Final = 3
_MAXIMUM_RAW_BYTES: Final = 1 << 30

Array = npt.NDArray[Any]
Steps = npt.NDArray[np.int64]


def pack(arrays: Sequence[Array]) -> bytes:
    """Encode arrays of any shape and fixed-width dtype."""
    header = json.dumps([[array.dtype.str, list(array.shape)] for array in arrays]).encode()
    raw = b"".join(_shuffle(array) for array in arrays)
    frame = zstandard.ZstdCompressor(level=_LEVEL).compress(raw)
    body = _LENGTH.pack(len(header)) + header + frame
    return _PREFIX.pack(_MAGIC, zlib.crc32(body)) + body


def unpack(packed: bytes) -> list[Array]:
    """Decode what `pack` made.

    Raises:
        CorruptBlock: when the form or the checksum is wrong.
    """
    # The checksum is over the bytes as stored and comes first, so that nothing damaged reaches a decoder.
    if len(packed) < _PREFIX.size:
        raise CorruptBlock
    magic, checksum = _PREFIX.unpack_from(packed)
    body = memoryview(packed)[_PREFIX.size :]
    if magic != _MAGIC or zlib.crc32(body) != checksum:
        raise CorruptBlock
    try:
        (header_length,) = _LENGTH.unpack_from(body)
        header = json.loads(bytes(body[_LENGTH.size : _LENGTH.size + header_length]))
        raw = zstandard.ZstdDecompressor().decompress(
            body[_LENGTH.size + header_length :], max_output_size=_MAXIMUM_RAW_BYTES
        )
    except (struct.error, ValueError, zstandard.ZstdError) as error:
        raise CorruptBlock(f"A stored block can't be decoded ({error}).") from error
    arrays, offset = [], 0
    for dtype, shape in header:
        kind = np.dtype(dtype)
        length = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(_unshuffle(raw[offset : offset + length], kind, shape))
        offset += length
    return arrays


def _shuffle(array: Array) -> bytes:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, array.itemsize).T.tobytes()


def _unshuffle(raw: bytes, kind: np.dtype[Any], shape: Sequence[int]) -> Array:
    columns = np.frombuffer(raw, dtype=np.uint8).reshape(kind.itemsize, -1)
    return np.ascontiguousarray(columns.T).reshape(-1).view(kind).reshape(shape)


@dataclass(frozen=True, slots=True)
class StatisticsBlock:
    """`values` float32 [statistic, layer, step] at the iterations `steps` int64 [step], ascending."""

    steps: Steps
    values: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 3 or self.values.shape[2] != len(self.steps):
            raise ValueError(f"values {self.values.shape} do not fit {len(self.steps)} steps")

    def encode(self) -> bytes:
        """As stored."""
        return pack([self.steps, self.values])

    @classmethod
    def decode(cls, packed: bytes) -> Self:
        """From the store; raises CorruptBlock."""
        steps, values = unpack(packed)
        return cls(steps, values)

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Blocks of one series, in order, as one; raises ValueError for none."""
        if len(blocks) == 1:
            return blocks[0]
        return cls(
            np.concatenate([block.steps for block in blocks]),
            np.concatenate([block.values for block in blocks], axis=2),
        )

    def between(self, start: int, stop: int) -> Self:
        """The iterations start ≤ t < stop."""
        first, last = np.searchsorted(self.steps, [start, stop])
        return type(self)(self.steps[first:last], self.values[:, :, first:last])


@dataclass(frozen=True, slots=True)
class CountsBlock:
    """Sparse histograms [step, layer, 4096] at `steps` int64 [step]: row r = step · layers + layer holds
    `bins`[starts[r]:starts[r + 1]] (uint16, ascending) with `counts` (uint32, none zero)."""

    steps: Steps
    layers: int
    starts: npt.NDArray[np.int64]
    bins: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.uint32]

    @classmethod
    def from_dense(cls, steps: Steps, dense: npt.NDArray[np.integer]) -> Self:
        """From counts [step, layer, 4096]."""
        rows = dense.reshape(-1, BINS)
        row, number = np.nonzero(rows)
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(rows)))])
        return cls(steps, dense.shape[1], starts, number.astype(np.uint16), rows[row, number].astype(np.uint32))

    def dense(self) -> npt.NDArray[np.int64]:
        """Counts [step, layer, 4096]."""
        rows = np.zeros((len(self.steps) * self.layers, BINS), dtype=np.int64)
        row = np.repeat(np.arange(len(rows)), np.diff(self.starts))
        rows[row, self.bins] = self.counts
        return rows.reshape(len(self.steps), self.layers, BINS)

    def between(self, start: int, stop: int) -> Self:
        """The iterations start ≤ t < stop."""
        first, last = np.searchsorted(self.steps, [start, max(start, stop)])
        starts = self.starts[first * self.layers : last * self.layers + 1]
        elements = slice(int(starts[0]), int(starts[-1]))
        return type(self)(
            self.steps[first:last], self.layers, starts - starts[0], self.bins[elements], self.counts[elements]
        )

    def of_layer(self, layer: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
        """One layer's non-zero entries: the step's position, the bin's number, the count; each [entry]."""
        row = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        mine = row % self.layers == layer
        return row[mine] // self.layers, self.bins[mine], self.counts[mine]

    def encode(self) -> bytes:
        """As stored."""
        lengths = np.diff(self.starts).astype(np.uint16)
        layers = np.array([self.layers], dtype=np.int64)
        return pack([self.steps, layers, lengths, self.bins, self.counts])

    @classmethod
    def decode(cls, packed: bytes) -> Self:
        """From the store; raises CorruptBlock."""
        steps, layers, lengths, bins, counts = unpack(packed)
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(steps, int(layers[0]), starts, bins, counts)

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Blocks of one series, in order, as one; raises ValueError for none."""
        if len(blocks) == 1:
            return blocks[0]
        lengths = np.concatenate([np.diff(block.starts) for block in blocks])
        return cls(
            np.concatenate([block.steps for block in blocks]),
            blocks[0].layers,
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([block.bins for block in blocks]),
            np.concatenate([block.counts for block in blocks]),
        )
