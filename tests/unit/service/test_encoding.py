"""Which coding a client gets, and bodies that say what they are."""

import gzip

import pytest
import zstandard

from service.encoding import MINIMUM_BYTES, encode, negotiate


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", "identity"),
        ("identity", "identity"),
        ("deflate, br", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.5", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("zstd;q=0, gzip;q=0", "identity"),
        ("*", "zstd"),
        ("zstd;q=0, *", "gzip"),
        ("*;q=0", "identity"),
        ("identity;q=1, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("gzip;q=x", "identity"),
        ("gzip;q=nan", "identity"),
        ("gzip;level=3", "gzip"),
        (" , ,gzip ; q = 0.3", "gzip"),
    ],
)
def test_the_coding_is_what_the_client_likes_best(accepted: str, coding: str) -> None:
    assert negotiate(accepted) == coding


def test_bodies_come_back() -> None:
    body = b"columns " * MINIMUM_BYTES
    packed, said = encode(body, "zstd")
    assert zstandard.ZstdDecompressor().decompress(packed) == body
    assert said == {"Content-Encoding": "zstd"}
    packed, said = encode(body, "gzip")
    assert gzip.decompress(packed) == body
    assert said == {"Content-Encoding": "gzip"}
    assert len(packed) < len(body) / 10


@pytest.mark.parametrize("coding", ["zstd", "gzip", "identity"])
def test_small_bodies_stay_as_they_are_and_large_ones_are_the_same_every_time(coding: str) -> None:
    assert encode(b"x" * (MINIMUM_BYTES - 1), coding) == (b"x" * (MINIMUM_BYTES - 1), {})
    assert encode(b"x" * 5000, coding) == encode(b"x" * 5000, coding)
