"""Columnar encoding: a run's statistics as a few large arrays instead of a row a point.

Layout of a packed block, little-endian: magic `GPB2` · u32 CRC-32 of the header with its length · u32 length of the
header · header (JSON: of each array its dtype, its shape, the length of its frame and the frame's CRC-32) · one zstd
frame an array, so that one statistic is read without the others. An array's bytes are shuffled (all first bytes of its
elements, then all second bytes, …), because a series' exponents compress and its low bits don't.

The first form, `GPB1`, had one frame for all arrays and one checksum; it is still read.
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

_MAGIC: Final = b"GPB2"
_FIRST_MAGIC: Final = b"GPB1"
_PREFIX: Final = struct.Struct("<4sI")
_LENGTH: Final = struct.Struct("<I")
_LEVEL: Final = 3
_MAXIMUM_RAW_BYTES: Final = 1 << 30

Array = npt.NDArray[Any]
Steps = npt.NDArray[np.int64]


def pack(arrays: Sequence[Array]) -> bytes:
    """Encode arrays of any shape and fixed-width dtype."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    frames = [compressor.compress(_shuffle(array)) for array in arrays]
    described = [
        [array.dtype.str, list(array.shape), len(frame), zlib.crc32(frame)]
        for array, frame in zip(arrays, frames, strict=True)
    ]
    text = json.dumps(described).encode()
    header = _LENGTH.pack(len(text)) + text
    return b"".join([_PREFIX.pack(_MAGIC, zlib.crc32(header)), header, *frames])


def unpack(packed: bytes, wanted: Sequence[int] | None = None) -> list[Array]:
    """Decode what `pack` made: all arrays, or those at the positions `wanted`, in that order.

    Raises:
        CorruptBlock: when the form or a checksum is wrong; what is not wanted is not looked at.
    """
    if len(packed) < _PREFIX.size:
        raise CorruptBlock
    magic, checksum = _PREFIX.unpack_from(packed)
    body = memoryview(packed)[_PREFIX.size :]
    try:
        if magic == _MAGIC:
            return _unpack_frames(body, checksum, wanted)
        if magic == _FIRST_MAGIC:
            arrays = _unpack_first_form(body, checksum)
            return arrays if wanted is None else [arrays[position] for position in wanted]
    except (struct.error, ValueError, zstandard.ZstdError) as error:
        raise CorruptBlock(f"A stored block can't be decoded ({error}).") from error
    raise CorruptBlock


# In both forms checksums are over the bytes as stored and come first, so that nothing damaged reaches a decoder.
def _unpack_frames(body: memoryview, checksum: int, wanted: Sequence[int] | None) -> list[Array]:
    (length,) = _LENGTH.unpack_from(body)
    start = _LENGTH.size + length
    if zlib.crc32(body[:start]) != checksum:
        raise CorruptBlock
    described = json.loads(bytes(body[_LENGTH.size : start]))
    places = np.cumsum([start, *(entry[2] for entry in described)]).tolist()
    if places[-1] != len(body):
        raise CorruptBlock
    decompressor, arrays = zstandard.ZstdDecompressor(), []
    for position in range(len(described)) if wanted is None else wanted:
        dtype, shape, _, expected = described[position]
        frame = body[places[position] : places[position + 1]]
        if zlib.crc32(frame) != expected:
            raise CorruptBlock
        raw = decompressor.decompress(frame, max_output_size=_MAXIMUM_RAW_BYTES)
        arrays.append(_unshuffle(raw, np.dtype(dtype), shape))
    return arrays


def _unpack_first_form(body: memoryview, checksum: int) -> list[Array]:
    if zlib.crc32(body) != checksum:
        raise CorruptBlock
    (length,) = _LENGTH.unpack_from(body)
    described = json.loads(bytes(body[_LENGTH.size : _LENGTH.size + length]))
    raw = zstandard.ZstdDecompressor().decompress(body[_LENGTH.size + length :], max_output_size=_MAXIMUM_RAW_BYTES)
    arrays, offset = [], 0
    for dtype, shape in described:
        kind = np.dtype(dtype)
        size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        arrays.append(_unshuffle(raw[offset : offset + size], kind, shape))
        offset += size
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
        """As stored: the steps, then an array [layer, step] a statistic."""
        return pack([self.steps, *self.values])

    @classmethod
    def decode(cls, packed: bytes, statistics: Sequence[int] | None = None) -> Self:
        """From the store, all statistics or those at these positions, in that order; raises CorruptBlock."""
        if packed.startswith(_FIRST_MAGIC):  # there the statistics are one array
            steps, values = unpack(packed)
            return cls(steps, values if statistics is None else values[list(statistics)])
        wanted = None if statistics is None else [0, *(1 + position for position in statistics)]
        steps, *columns = unpack(packed, wanted)
        return cls(steps, np.stack(columns) if columns else np.empty((0, 0, len(steps)), np.float32))

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
        first, beyond = self.starts[layer :: self.layers][: len(self.steps)], self.starts[layer + 1 :: self.layers]
        lengths = beyond - first
        # Each step's entries lie together: count up from where they begin, row after row.
        ends = np.cumsum(lengths)
        mine = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + lengths, lengths)
        return np.repeat(np.arange(len(self.steps)), lengths), self.bins[mine], self.counts[mine]

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
