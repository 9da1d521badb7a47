"""The reconciler's part: every experiment whose worker was lost goes on or ends, and none is touched without need."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gradprobe.state import ENDED, Status
from gradprobe.store import experiments, leases
from tests.integration.store.transactions import Store


def test_a_lost_worker_s_experiment_is_queued_again(store: Store) -> None:
    lease = store.running()
    store.write(experiments.mark_sent, lease.experiment_id)
    store.lose_worker(lease.experiment_id)
    assert store.write(leases.recover) == {lease.experiment_id: Status.QUEUED}
    assert store.get(lease.experiment_id).status == Status.QUEUED
    assert [record.id for record in store.read(experiments.waiting, 3600.0)] == [lease.experiment_id]


def test_after_the_last_attempt_it_fails_and_says_why(store: Store) -> None:
    identifier = store.create(attempts=2).id
    for expected in (Status.QUEUED, Status.FAILED):
        assert store.claim(identifier) is not None
        store.lose_worker(identifier)
        assert store.write(leases.recover) == {identifier: expected}
    record = store.get(identifier)
    assert record.error is not None
    assert record.error["code"] == "WORKER_LOST"
    assert "retry" in record.error["message"]
    assert record.finished_at is not None
    assert record.attempt == 2
    assert store.claim(identifier) is None


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_cancel_request_outlives_the_worker(store: Store, attempts: int) -> None:
    lease = store.running(attempts=attempts)
    store.write(experiments.request_cancel, lease.experiment_id)
    store.lose_worker(lease.experiment_id)
    assert store.write(leases.recover) == {lease.experiment_id: Status.CANCELLED}
    record = store.get(lease.experiment_id)
    assert record.status == Status.CANCELLED
    assert record.finished_at is not None
    assert record.error is None


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_ended_state_is_never_touched(store: Store, status: Status) -> None:
    lease = store.running()
    store.write(leases.finish, lease, status)
    store.lose_worker(lease.experiment_id)  # as an older release might have left it
    before = store.get(lease.experiment_id)
    assert store.write(leases.recover) == {}
    assert store.get(lease.experiment_id) == before


def test_what_waits_and_what_is_held_stays_as_it_is(store: Store) -> None:
    waiting, held = store.create().id, store.running().experiment_id
    before = [store.get(waiting), store.get(held)]
    assert store.write(leases.recover) == {}
    assert [store.get(waiting), store.get(held)] == before


def test_many_at_once_each_to_its_own_place(store: Store) -> None:
    again, used_up, asked = store.running(), store.running(attempts=1), store.running()
    held = store.running()
    store.write(experiments.request_cancel, asked.experiment_id)
    for lease in (again, used_up, asked):
        store.lose_worker(lease.experiment_id)
    assert store.write(leases.recover) == {
        again.experiment_id: Status.QUEUED,
        used_up.experiment_id: Status.FAILED,
        asked.experiment_id: Status.CANCELLED,
    }
    assert store.get(held.experiment_id).status == Status.RUNNING


def test_two_reconcilers_at_once_move_each_experiment_once(store: Store) -> None:
    lost = [store.running().experiment_id for _ in range(10)]
    for identifier in lost:
        store.lose_worker(identifier)
    with ThreadPoolExecutor(4) as threads:
        moved = list(threads.map(lambda _: store.write(leases.recover), range(4)))
    assert sorted(identifier for moves in moved for identifier in moves) == sorted(lost)
    assert {store.get(identifier).status for identifier in lost} == {Status.QUEUED}
