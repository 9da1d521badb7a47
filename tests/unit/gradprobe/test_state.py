"""The table of states: every move that is allowed, and no other."""

import itertools

import pytest

from gradprobe.state import ACTIVE, ENDED, TRANSITIONS, Status, may_become

# Written out once more by hand, so that a change of the table is a decision and not a slip.
MOVES = {
    ("queued", "running"),
    ("queued", "cancelled"),
    ("queued", "failed"),
    ("running", "running"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
    ("failed", "queued"),
    ("cancelled", "queued"),
}


@pytest.mark.parametrize(("source", "target"), list(itertools.product(Status, Status)))
def test_every_move(source: Status, target: Status) -> None:
    allowed = (source.value, target.value) in MOVES
    assert (target in TRANSITIONS[source]) == allowed
    assert (source in may_become(target)) == allowed


@pytest.mark.parametrize("status", list(Status))
def test_a_state_is_active_or_ended(status: Status) -> None:
    assert status.ended == (status in ENDED) == (status not in ACTIVE)


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_ended_state_has_no_exit_but_a_retry(status: Status) -> None:
    assert TRANSITIONS[status] <= {Status.QUEUED}


def test_success_is_final() -> None:
    assert TRANSITIONS[Status.SUCCEEDED] == frozenset()


def test_the_words_are_those_of_the_contract() -> None:
    assert [str(status) for status in Status] == ["queued", "running", "succeeded", "failed", "cancelled"]
