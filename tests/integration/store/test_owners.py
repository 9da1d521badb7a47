"""Whose an experiment is, and who may see it, on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gradprobe.access import ANYBODY, Principal, Scope
from gradprobe.errors import ExperimentNotFound, QueueFull, TooManyExperiments
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.store import admission, counting, experiments
from gradprobe.store.admission import Room, require_room
from gradprobe.store.listing import Filters, Position
from tests.integration.store.transactions import Store

ALICE, BOB = (Principal(name, frozenset({Scope.READ, Scope.WRITE})) for name in ("alice", "bob"))
ROOT = Principal("root", frozenset({Scope.ADMIN}))


def owned(store: Store, owner: str | None) -> str:
    with store.database.write() as connection:
        return experiments.create(connection, Spec(), 3, owner=owner).id


def test_an_experiment_is_its_owners_and_an_admins(store: Store) -> None:
    hers, nobodys = owned(store, "alice"), owned(store, None)

    assert (store.get(hers).owner, store.get(nobodys).owner) == ("alice", None)
    for principal, identifier in [(ALICE, hers), (ROOT, hers), (ANYBODY, hers), (ROOT, nobodys), (ANYBODY, nobodys)]:
        store.read(experiments.require_visible, identifier, principal)
    for principal, identifier in [(BOB, hers), (ALICE, nobodys), (ALICE, "exp_" + "0" * 26), (ALICE, "a\0b")]:
        with pytest.raises(ExperimentNotFound, match="GET /experiments lists"):
            store.read(experiments.require_visible, identifier, principal)


def test_a_list_of_an_owner_holds_the_owners_alone(store: Store) -> None:
    made = [owned(store, owner) for owner in ("alice", "bob", None, "alice")]

    def listed(filters: Filters, after: Position | None = None) -> list[str]:
        return [record.id for record in store.read(experiments.page, filters, after, 10)]

    assert listed(Filters(owner="alice")) == [made[3], made[0]]
    assert listed(Filters(owner="alice"), after=Position(made[3])) == [made[0]]
    assert listed(Filters(owner="nobody")) == []
    assert listed(Filters()) == made[::-1]


def test_room_is_counted_for_each_owner_and_for_all(store: Store) -> None:
    first, _ = owned(store, "alice"), owned(store, None)

    def require(owner: str | None, waiting: int, active: int) -> None:
        store.write(admission.require_room, owner, Room(waiting, active))

    for owner in ("alice", None):
        require(owner, 3, 2)
        with pytest.raises(TooManyExperiments):
            require(owner, 3, 1)
    require("bob", 3, 1)
    with pytest.raises(QueueFull):
        require("bob", 2, 1)
    store.claim(first)  # it runs: it takes no place in the queue any more, and is still its owner's
    require("bob", 2, 1)
    with pytest.raises(TooManyExperiments):
        require("alice", 3, 1)


def test_the_last_places_are_taken_once_whoever_asks_at_once(store: Store) -> None:
    room, owners = Room(waiting=3, active=100), [f"owner-{number}" for number in range(8)]
    barrier = threading.Barrier(len(owners))

    def submit(owner: str) -> bool:
        barrier.wait()
        try:
            with store.database.write() as connection:
                require_room(connection, owner, room)
                experiments.create(connection, Spec(), 3, owner=owner)
        except QueueFull:
            return False
        return True

    with ThreadPoolExecutor(len(owners)) as pool:
        assert sum(pool.map(submit, owners)) == 3
    assert store.read(counting.count).by_status[Status.QUEUED] == 3
