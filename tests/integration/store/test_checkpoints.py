"""Checkpoints in the store: one an experiment, as new as what was measured, gone with its end."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.errors import CorruptBlock, LeaseLost
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.state import Status
from gradprobe.statistics import STATISTICS
from gradprobe.store import checkpoints, experiments, leases, series
from gradprobe.store.leases import Lease
from gradprobe.store.tables import blocks, now
from gradprobe.store.tables import checkpoints as table
from tests.integration.store.transactions import Store

STATE = bytes(range(256)) * 40


def save(store: Store, lease: Lease, iteration: int, state: bytes = STATE, attempts: int = 3) -> None:
    with store.database.write() as connection:
        leases.renew(connection, lease, iteration)
        leases.save(connection, lease, iteration, state, attempts)


def load(store: Store, lease: Lease) -> bytes | None:
    return store.read(checkpoints.load, lease.experiment_id)


def reclaimed(store: Store, lease: Lease) -> tuple[int, Lease]:
    """Where the next attempt goes on, and its lease."""
    store.lose_worker(lease.experiment_id)
    claimed = store.claim(lease.experiment_id, "worker-2")
    assert claimed is not None
    return claimed[0].iteration, claimed[1]


def test_the_next_attempt_goes_on_where_the_newest_is(store: Store) -> None:
    lease = store.running()
    save(store, lease, 10, b"older")
    save(store, lease, 20)
    store.write(leases.renew, lease, 27)
    iteration, following = reclaimed(store, lease)
    assert iteration == store.get(lease.experiment_id).iteration == 20
    assert load(store, following) == STATE


def test_without_one_it_begins_anew(store: Store) -> None:
    lease = store.running()
    store.write(leases.renew, lease, 27)
    assert reclaimed(store, lease)[0] == 0


def test_a_large_one_is_read_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_PART", 1000)
    lease = store.running()
    for state in (STATE, STATE[:1000], STATE[:2000], b"x"):
        save(store, lease, 10, state)
        assert load(store, lease) == state


def test_a_stale_attempt_saves_nothing(store: Store) -> None:
    lease = store.running()
    save(store, lease, 10)
    reclaimed(store, lease)
    with pytest.raises(LeaseLost):
        save(store, lease, 30, b"stale")
    assert load(store, lease) == STATE


ENDS: list[Callable[[Store, Lease], Any]] = [
    lambda store, lease: store.write(leases.finish, lease, Status.SUCCEEDED, result={}),
    lambda store, lease: store.write(leases.finish, lease, Status.FAILED, error={}),
    lambda store, lease: (
        store.write(leases.give_back, lease),
        store.write(experiments.request_cancel, lease.experiment_id),
    ),
    lambda store, lease: (
        store.write(experiments.request_cancel, lease.experiment_id),
        store.write(leases.give_back, lease),
    ),
    lambda store, lease: (
        store.set(lease.experiment_id, lease_until=now() - 1, maximum_attempts=1),
        store.write(leases.recover),
    ),
]


@pytest.mark.parametrize("end", ENDS)
def test_with_the_experiment_s_end_it_goes(store: Store, end: Callable[[Store, Lease], Any]) -> None:
    lease, other = store.running(), store.running()
    for one in (lease, other):
        save(store, one, 10)
    end(store, lease)
    assert store.get(lease.experiment_id).status.ended
    assert load(store, lease) is None
    assert load(store, other) == STATE


def test_given_back_or_lost_it_stays(store: Store) -> None:
    given, lost = store.running(), store.running()
    for lease in (given, lost):
        save(store, lease, 10)
    store.write(leases.give_back, given)
    store.lose_worker(lost.experiment_id)
    store.write(leases.recover)
    for lease in (given, lost):
        claimed = store.claim(lease.experiment_id)
        assert claimed is not None
        assert claimed[0].iteration == 10


def test_it_goes_with_a_deleted_experiment(store: Store) -> None:
    lease = store.running()
    save(store, lease, 10)
    store.write(leases.give_back, lease)
    store.write(experiments.remove, lease.experiment_id)
    with store.database.read() as connection:
        assert connection.execute(select(table.c.experiment_id)).all() == []


def test_one_that_is_damaged_is_told(store: Store) -> None:
    lease = store.running()
    save(store, lease, 10)
    with store.database.write() as connection:
        connection.execute(update(table).values(state=STATE[:-1] + b"!"))
    with pytest.raises(CorruptBlock, match="checkpoint"):
        load(store, lease)


def test_the_lease_counts_from_the_end_of_saving(store: Store) -> None:
    """A large checkpoint takes longer to write than a lease lasts; its worker is not lost for that."""
    lease = store.running(seconds=0.3)
    with store.database.write() as connection:
        leases.renew(connection, lease, 10)
        time.sleep(0.4)
        if not store.database.is_sqlite:  # where one writer at a time would wait for itself
            assert store.write(leases.recover) == {}
        leases.save(connection, lease, 10, STATE, 3)
    assert store.write(leases.recover) == {}
    time.sleep(0.4)
    assert store.write(leases.recover) == {lease.experiment_id: Status.QUEUED}


def test_progress_renews_the_number_of_workers_it_may_lose(store: Store) -> None:
    """A day's training may lose a worker each hour; one that kills its workers makes no progress, and ends."""
    lease = store.running(attempts=2)
    for iteration in (10, 20, 30, 40):
        save(store, lease, iteration, attempts=2)
        _, lease = reclaimed(store, lease)
    store.lose_worker(lease.experiment_id)
    claimed = store.claim(lease.experiment_id)
    assert claimed is not None
    store.lose_worker(lease.experiment_id)
    assert store.write(leases.recover) == {lease.experiment_id: Status.FAILED}


def test_what_an_older_release_s_worker_left_is_not_gone_on_from(store: Store) -> None:
    """It begins anew without a look at checkpoints, and dies before it is as far: there would be a gap."""
    lease = store.running()
    save(store, lease, 50)
    store.set(lease.experiment_id, iteration=30)
    iteration, following = reclaimed(store, lease)
    assert iteration == 0
    assert load(store, following) is None


def measured(steps: range, kinds: int, layers: int = 2) -> StatisticsBlock:
    values = np.random.default_rng(1).normal(size=(kinds, layers, len(steps))).astype(np.float32)
    return StatisticsBlock(np.array(steps), values)


def counted(steps: range, layers: int = 2) -> CountsBlock:
    dense = np.random.default_rng(2).integers(0, 3, (len(steps), layers, 4096))
    return CountsBlock.from_dense(np.array(steps), dense)


@pytest.mark.parametrize("iteration", [0, 1, 5, 16, 20, 31, 32, 40, 60])
def test_a_cut_leaves_exactly_what_was_before(store: Store, iteration: int) -> None:
    lease = store.running()
    whole, counts = measured(range(50), len(STATISTICS["weight_gradients"])), counted(range(0, 50, 5))
    with store.database.write() as connection:
        for start, stop in ((0, 18), (18, 36), (36, 50)):
            part = whole.between(start, stop)
            series.write(connection, lease.experiment_id, "weight_gradients", part, counts.between(start, stop))
        for start, stop in ((0, 32), (32, 50)):
            level = LevelBlock.of(whole.between(start, stop)).merged(WIDTHS[1])
            series.write_level(connection, lease.experiment_id, "weight_gradients", 1, level, 49)
        series.cut(connection, lease.experiment_id, iteration)
    found = store.read(series.read_statistics, lease.experiment_id, "weight_gradients")
    sums = store.read(series.read_counts, lease.experiment_id, "weight_gradients")
    if iteration == 0:
        assert (found, sums) == (None, None)
    else:
        assert found is not None
        assert found.encode() == whole.between(0, iteration).encode()
        assert sums is not None
        assert sums.encode() == counts.between(0, iteration).encode()
    query = select(blocks.c.statistics, blocks.c.last_step).where(blocks.c.level == 1).order_by(blocks.c.first_step)
    with store.database.read() as connection:
        rows = connection.execute(query).all()
    kinds = range(len(STATISTICS["weight_gradients"]))
    kept = [LevelBlock.decode(row.statistics, kinds) for row in rows]
    expected = LevelBlock.of(whole.between(0, min(iteration, 50) // 16 * 16)).merged(16)
    assert [start for block in kept for start in block.starts.tolist()] == expected.starts.tolist()
    if kept:
        assert LevelBlock.join(kept).encode() == expected.encode()
        assert rows[-1].last_step <= min(iteration, 50) - 1


def test_a_claim_over_damaged_blocks_begins_anew(store: Store) -> None:
    lease = store.running()
    with store.database.write() as connection:
        series.write(connection, lease.experiment_id, "metrics", measured(range(20), 5, 1))
    save(store, lease, 10)
    with store.database.write() as connection:
        connection.execute(update(blocks).values(statistics=b"damaged"))
    store.write(leases.renew, lease, 20)
    iteration, following = reclaimed(store, lease)
    assert iteration == 0
    assert load(store, following) is None
    assert store.read(series.read_statistics, lease.experiment_id, "metrics") is None
