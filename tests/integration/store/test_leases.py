"""Claims and leases: one worker at a time, and a stale one can't harm the next."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from gradprobe.errors import LeaseLost
from gradprobe.state import ENDED, Status
from gradprobe.store import experiments, leases
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease
from tests.integration.store.transactions import Store

#: Everything that a worker writes under its lease.
WRITES: list[Callable[[Connection, Lease], Any]] = [
    leases.renew,
    lambda connection, lease: leases.renew(connection, lease, 7),
    lambda connection, lease: leases.note_provenance(connection, lease, {"seed": 0}),
    lambda connection, lease: leases.finish(connection, lease, Status.SUCCEEDED, result={"final_loss": 1.0}),
    lambda connection, lease: leases.finish(connection, lease, Status.FAILED, error={"code": "X", "message": "y"}),
    lambda connection, lease: leases.finish(connection, lease, Status.CANCELLED),
    leases.give_back,
]


def test_a_claim_starts_the_experiment(store: Store) -> None:
    identifier = store.create().id
    claimed = store.claim(identifier, owner="worker-7", seconds=60.0)
    assert claimed is not None
    record, lease = claimed
    assert record == store.get(identifier)
    assert (record.status, record.attempt, record.iteration) == (Status.RUNNING, 1, 0)
    assert lease == Lease(identifier, 1, 60.0)
    assert record.started_at is not None
    assert store.read(leases.owner_of, identifier) == "worker-7"
    assert store.column(identifier, "lease_until") == pytest.approx(store.clock() + 60.0, abs=1.0)


def test_a_held_experiment_is_not_claimed_again(store: Store) -> None:
    lease = store.running()
    before = store.get(lease.experiment_id)
    assert store.claim(lease.experiment_id, owner="worker-2") is None
    assert store.get(lease.experiment_id) == before


@pytest.mark.parametrize("identifier", ["exp_" + 26 * "0", "", "'"])
def test_nothing_to_claim(store: Store, identifier: str) -> None:
    assert store.claim(identifier) is None


@pytest.mark.parametrize("status", sorted(ENDED))
def test_what_ended_is_not_claimed(store: Store, status: Status) -> None:
    lease = store.running()
    store.write(leases.finish, lease, status)
    assert store.claim(lease.experiment_id) is None
    assert store.get(lease.experiment_id).status == status


def test_one_of_many_claimants_gets_it(store: Store, database_url: str) -> None:
    identifiers = [store.create().id for _ in range(5)]
    claimants = 6
    barrier = Barrier(claimants)

    def compete(number: int) -> list[str]:
        database = Database(make_url(database_url), pool_size=1)
        mine = []
        try:
            database.ping()
            for identifier in identifiers:
                barrier.wait()
                with database.write() as connection:
                    if leases.claim(connection, identifier, f"worker-{number}", 60.0) is not None:
                        mine.append(identifier)
        finally:
            database.close()
        return mine

    with ThreadPoolExecutor(claimants) as threads:
        won = list(threads.map(compete, range(claimants)))
    assert sorted(identifier for mine in won for identifier in mine) == sorted(identifiers)
    for number, mine in enumerate(won):
        for identifier in mine:
            assert store.get(identifier).attempt == 1
            assert store.read(leases.owner_of, identifier) == f"worker-{number}"


def test_a_lease_that_ran_out_is_claimed_as_the_next_attempt(store: Store) -> None:
    lease = store.running(seconds=0.1)
    store.write(leases.renew, lease, 12)
    time.sleep(0.15)
    claimed = store.claim(lease.experiment_id, owner="worker-2")
    assert claimed is not None
    record, next_lease = claimed
    assert (record.attempt, next_lease.attempt, record.iteration) == (2, 2, 0)
    assert store.read(leases.owner_of, lease.experiment_id) == "worker-2"


def test_a_renewal_holds_it_for_its_whole_length_again(store: Store) -> None:
    lease = store.running(seconds=0.3)
    for iteration in range(4):
        time.sleep(0.1)
        assert store.write(leases.renew, lease, iteration) is False
    assert store.claim(lease.experiment_id) is None
    assert store.get(lease.experiment_id).iteration == 3


def test_progress_is_a_new_version_and_a_heartbeat_is_not(store: Store) -> None:
    lease = store.running()
    version = store.get(lease.experiment_id).row_version
    store.write(leases.renew, lease)
    assert store.get(lease.experiment_id).row_version == version
    store.write(leases.renew, lease, 5)
    assert store.get(lease.experiment_id).row_version == version + 1


def test_a_worker_that_comes_back_late_but_first_keeps_its_lease(store: Store) -> None:
    lease = store.running()
    store.lose_worker(lease.experiment_id)
    store.write(leases.renew, lease, 3)
    assert store.claim(lease.experiment_id, owner="worker-2") is None


@pytest.mark.parametrize("write", WRITES)
def test_a_stale_attempt_can_write_nothing(store: Store, write: Callable[[Connection, Lease], Any]) -> None:
    stale = store.running()
    store.lose_worker(stale.experiment_id)
    assert store.claim(stale.experiment_id, owner="worker-2") is not None
    before = store.get(stale.experiment_id)
    with pytest.raises(LeaseLost):
        store.write(write, stale)
    assert store.get(stale.experiment_id) == before


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_ended_state_is_never_overwritten(
    store: Store, write: Callable[[Connection, Lease], Any], status: Status
) -> None:
    lease = store.running()
    store.write(leases.finish, lease, status)
    before = store.get(lease.experiment_id)
    with pytest.raises(LeaseLost):
        store.write(write, lease)
    assert store.get(lease.experiment_id) == before


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_to_what_was_deleted(store: Store, write: Callable[[Connection, Lease], Any]) -> None:
    lease = store.running()
    store.write(leases.finish, lease, Status.SUCCEEDED)
    store.write(experiments.remove, lease.experiment_id)
    with pytest.raises(LeaseLost):
        store.write(write, lease)


def test_the_end_with_its_result(store: Store) -> None:
    lease = store.running()
    store.write(leases.note_provenance, lease, {"device": "cpu", "seed": 7})
    store.write(leases.finish, lease, Status.SUCCEEDED, result={"final_loss": 0.5, "test_accuracy": None})
    record = store.get(lease.experiment_id)
    assert record.status == Status.SUCCEEDED
    assert record.result == {"final_loss": 0.5, "test_accuracy": None}
    assert record.provenance == {"device": "cpu", "seed": 7}
    assert record.error is None
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.started_at <= record.finished_at


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_an_end_is_an_ended_state(store: Store, status: Status) -> None:
    with pytest.raises(ValueError, match=f"can't end as {status}"):
        store.write(leases.finish, store.running(), status)


def test_given_back_it_waits_again_and_no_attempt_is_used_up(store: Store) -> None:
    lease = store.running(attempts=1)
    store.write(experiments.mark_sent, lease.experiment_id)
    store.write(leases.give_back, lease)
    assert [record.id for record in store.read(experiments.waiting, 3600.0)] == [lease.experiment_id]
    claimed = store.claim(lease.experiment_id, owner="worker-2")
    assert claimed is not None
    assert claimed[1].attempt == 2
    store.lose_worker(lease.experiment_id)
    assert store.claim(lease.experiment_id) is None


def test_given_back_after_a_cancel_request_it_is_cancelled(store: Store) -> None:
    lease = store.running()
    store.write(experiments.request_cancel, lease.experiment_id)
    store.write(leases.give_back, lease)
    record = store.get(lease.experiment_id)
    assert record.status == Status.CANCELLED
    assert record.finished_at is not None
