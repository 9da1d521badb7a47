"""The heartbeat holds the lease, and learns what became of it."""

import threading
import time
from functools import partial

import pytest
from sqlalchemy import Connection, update

from gradprobe.errors import ExperimentCancelled, LeaseLost
from gradprobe.state import Status
from gradprobe.store import experiments, leases
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease
from gradprobe.store.tables import experiments as experiments_table
from tests.integration.store.transactions import Store
from tests.integration.worker.conftest import Locked
from tests.processes import eventually
from worker.heartbeat import Heartbeat, beating

INTERVAL = 0.05


def raises(heartbeat: Heartbeat, error: type[Exception]) -> bool:
    try:
        heartbeat.check()
    except error:
        return True
    return False


def lease_until(store: Store, lease: Lease) -> float:
    return float(store.column(lease.experiment_id, "lease_until"))


def test_it_renews_the_lease_for_as_long_as_the_block_runs(store: Store) -> None:
    lease = store.running()

    def has_grown(until: float) -> bool:
        return lease_until(store, lease) > until

    row = store.get(lease.experiment_id).row_version
    with beating(store.database, [lease], INTERVAL) as heartbeat:
        for _ in range(3):
            until = lease_until(store, lease)
            eventually(partial(has_grown, until))
        heartbeat.check()
    assert abs(lease_until(store, lease) - store.clock() - lease.seconds) < 5
    assert store.get(lease.experiment_id).row_version == row
    until = lease_until(store, lease)
    time.sleep(4 * INTERVAL)
    assert lease_until(store, lease) == until


def test_it_tells_that_another_attempt_took_over(store: Store) -> None:
    lease = store.running()
    with beating(store.database, [lease], INTERVAL) as heartbeat:
        heartbeat.check()
        other = store.write(take_over, lease.experiment_id)
        until = lease_until(store, other)
        eventually(lambda: raises(heartbeat, LeaseLost))
        assert raises(heartbeat, LeaseLost)
    assert lease_until(store, other) == until


def take_over(connection: Connection, identifier: str) -> Lease:
    """In one transaction, or the heartbeat would get the lease back in between."""
    connection.execute(update(experiments_table).where(experiments_table.c.id == identifier).values(lease_until=0.0))
    claimed = leases.claim(connection, identifier, "worker-2", 60.0)
    assert claimed is not None
    return claimed[1]


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.CANCELLED])
def test_it_tells_that_the_experiment_ended(status: Status, store: Store) -> None:
    lease = store.running()
    with beating(store.database, [lease], INTERVAL) as heartbeat:
        store.write(leases.finish, lease, status)
        eventually(lambda: raises(heartbeat, LeaseLost))


def test_it_tells_that_cancelling_was_asked_for(store: Store) -> None:
    lease = store.running()
    with beating(store.database, [lease], INTERVAL) as heartbeat:
        store.write(experiments.request_cancel, lease.experiment_id)
        eventually(lambda: raises(heartbeat, ExperimentCancelled))


def test_it_survives_a_database_that_is_away(
    store: Store, impatient: Database, locked: Locked, caplog: pytest.LogCaptureFixture
) -> None:
    lease = store.running()
    with beating(impatient, [lease], INTERVAL) as heartbeat:
        with locked():
            eventually(lambda: "does not answer" in caplog.text)
        heartbeat.check()
        until = lease_until(store, lease)
        eventually(lambda: lease_until(store, lease) > until)
        store.write(experiments.request_cancel, lease.experiment_id)
        eventually(lambda: raises(heartbeat, ExperimentCancelled))


def test_its_thread_ends_with_the_block_also_when_that_raises(store: Store) -> None:
    lease = store.running()

    def fail() -> None:
        with beating(store.database, [lease], INTERVAL):
            assert "heartbeat" in [thread.name for thread in threading.enumerate()]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]
