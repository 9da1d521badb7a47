"""The IDX format: two zero bytes, the element type, the number of dimensions, each dimension, the elements."""

import math
import struct

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTE = 0x08


def parse(content: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The elements of an IDX file of unsigned bytes, as a read-only view of `content` with the shape `shape`.

    Raises:
        ValueError: the header says another type or shape, or the length is not the header's.
    """
    header = struct.Struct(f">BBBB{len(shape)}I")
    if len(content) < header.size:
        raise ValueError(f"an IDX file of {len(shape)} dimensions has at least {header.size} bytes, not {len(content)}")
    first, second, element, dimensions, *found = header.unpack_from(content)
    if (first, second, element) != (0, 0, _UNSIGNED_BYTE):
        raise ValueError(f"not an IDX file of unsigned bytes: it starts with {content[:4].hex()}")
    if dimensions != len(shape) or tuple(found) != shape:
        raise ValueError(f"the IDX header says {dimensions} dimensions {tuple(found)}, expected {shape}")
    if len(content) != header.size + math.prod(shape):
        raise ValueError(f"{len(content) - header.size} elements follow the IDX header, not {math.prod(shape)}")
    return np.frombuffer(content, dtype=np.uint8, offset=header.size).reshape(shape)
