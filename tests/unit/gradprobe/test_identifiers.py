"""Identifiers: their form, their order, that none comes twice."""

import re
import time

import pytest

from gradprobe.identifiers import EXPERIMENT_PATTERN, is_experiment_id, new_experiment_id


def test_they_have_the_pattern_that_the_contract_shows() -> None:
    for identifier in (new_experiment_id() for _ in range(200)):
        assert re.fullmatch(EXPERIMENT_PATTERN, identifier)
        assert is_experiment_id(identifier)
        assert len(identifier) == 30


def test_they_sort_by_the_moment_they_were_made() -> None:
    made = []
    for _ in range(20):
        made.append(new_experiment_id())
        time.sleep(0.0015)  # the clock in them counts milliseconds
    assert made == sorted(made)


def test_they_stay_sorted_across_every_carry(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = sorted(2**power + offset for power in range(1, 48) for offset in (-1, 0))
    made = []
    for milliseconds in moments:
        monkeypatch.setattr(time, "time_ns", lambda now=milliseconds: now * 1_000_000)
        made.append(new_experiment_id()[:14])
    assert made == sorted(made)
    assert len(set(made)) == len(set(moments))


def test_none_comes_twice() -> None:
    assert len({new_experiment_id() for _ in range(20_000)}) == 20_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "exp_",
        "exp_0123456789abcdefghjkmnpqr",
        "exp_0123456789abcdefghjkmnpqrst",
        "run_0123456789abcdefghjkmnpqrs",
        "exp_0123456789ABCDEFGHJKMNPQRS",
        "exp_0123456789abcdefghilouuuuu",
        "exp_0123456789abcdefghjkmnpqrs\n",
        " exp_0123456789abcdefghjkmnpqrs",
        "exp_0123456789abcdefghjkmnpqr'",
    ],
)
def test_what_is_none_is_known_as_none(text: str) -> None:
    assert not is_experiment_id(text)


def test_a_well_formed_one_is_known() -> None:
    assert is_experiment_id("exp_0123456789abcdefghjkmnpqrs")
