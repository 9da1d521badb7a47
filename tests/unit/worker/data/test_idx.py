import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from worker.data import idx

GOOD = struct.pack(">BBBB2I", 0, 0, 8, 2, 2, 3) + bytes([1, 2, 3, 4, 5, 6])


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=3, max_side=6)))
def test_reads_back_what_was_written(elements: np.ndarray) -> None:
    header = struct.pack(f">BBBB{elements.ndim}I", 0, 0, 8, elements.ndim, *elements.shape)
    np.testing.assert_array_equal(idx.parse(header + elements.tobytes(), elements.shape), elements)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda good: b"", "at least 12 bytes, not 0", id="empty"),
        pytest.param(lambda good: good[:11], "at least 12 bytes, not 11", id="header cut"),
        pytest.param(lambda good: b"\x01" + good[1:], "starts with 01000802", id="magic"),
        pytest.param(lambda good: good[:2] + b"\x0d" + good[3:], "starts with 00000d02", id="floats"),
        pytest.param(lambda good: good[:3] + b"\x03" + good[4:], "3 dimensions", id="dimensions"),
        pytest.param(lambda good: good[:7] + b"\x07" + good[8:], r"\(7, 3\), expected \(2, 3\)", id="shape"),
        pytest.param(lambda good: good[:-1], "5 elements follow the IDX header, not 6", id="truncated"),
        pytest.param(lambda good: good + b"\x00", "7 elements follow the IDX header, not 6", id="too long"),
    ],
)
def test_refuses_what_is_not_such_a_file(spoil: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        idx.parse(spoil(GOOD), (2, 3))
