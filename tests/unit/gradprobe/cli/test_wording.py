import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gradprobe.cli.wording import age, amount, fixed, one_line, percent, ratio, scientific, since


@pytest.mark.parametrize(
    ("value", "reference", "words"),
    [
        (1.0, 2310.0, "1/2,310"),
        (1.0, 1.0, "1"),
        (4.3, 1.0, "4.3"),
        (1.0, 1.8, "1/1.8"),
        (0.0, 1.0, "0"),
        (1.0, 0.0, "–"),
        (math.nan, 1.0, "–"),
        (math.inf, 1.0, "–"),
        (1e-30, 1.0, "1/1.0e+30"),
    ],
)
def test_a_ratio_reads_as_a_fraction(value: Any, reference: float, words: str) -> None:
    assert ratio(value, reference) == words


@pytest.mark.parametrize(("value", "words"), [(1.23456, "1.2"), (9.99, "10"), (12.4, "12"), (2310.4, "2,310")])
def test_an_amount_has_as_many_digits_as_it_deserves(value: Any, words: str) -> None:
    assert amount(value) == words


def test_what_is_missing_is_a_dash() -> None:
    assert [scientific(math.nan), fixed(None), percent(None), scientific(0.0)] == ["–", "–", "–", "0"]
    assert [scientific(1.234e-5), fixed(0.42134), percent(0.8791)] == ["1.23e-05", "0.421", "87.9 %"]


def test_a_text_from_elsewhere_stays_on_its_line_and_gives_the_terminal_no_orders() -> None:
    assert one_line("two\nlines\x1b[31m red\x07") == "two lines [31m red "


@pytest.mark.parametrize(("seconds", "words"), [(0, "now"), (59, "59 s"), (61, "1 min"), (7300, "2 h"), (90000, "1 d")])
def test_an_age_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert age(datetime.now(UTC) - timedelta(seconds=seconds)) == words
    assert since(datetime.now(UTC) - timedelta(seconds=seconds)) == ("just now" if words == "now" else f"{words} ago")
