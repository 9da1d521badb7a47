"""Words in a CSV file, which come from a user's own module."""

import csv
import io

import numpy as np
import pytest

from gradprobe.export.separated import lines
from gradprobe.export.tables import Categories


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("layer1", "layer1"),
        ('a,"b"\nc', 'a,"b"\nc'),
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
    ],
)
def test_a_word_is_read_as_it_is_and_never_as_a_formula(word: str, read: str) -> None:
    table = {"layer": Categories([word], np.zeros(2, np.int32)), "x": np.array([0.1, np.nan], np.float32)}
    text = b"".join(lines(table)).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["layer", "x"], [read, "0.1"], [read, "nan"]]
