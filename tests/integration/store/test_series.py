"""Blocks in, blocks out: a growing tail, ranges, and nothing of an earlier attempt."""

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import func, select, update

from gradprobe.blocks import CountsBlock, StatisticsBlock
from gradprobe.errors import CorruptBlock
from gradprobe.histogram import BINS
from gradprobe.statistics import Tensor
from gradprobe.store import series
from gradprobe.store.tables import blocks
from tests.integration.store.transactions import Store

TENSOR: Tensor = "weight_gradients"


def statistics(start: int, stop: int) -> StatisticsBlock:
    """Each value tells its own place: [statistic, layer, step]."""
    steps = np.arange(start, stop, dtype=np.int64)
    values = np.arange(7)[:, None, None] * 1e6 + np.arange(3)[:, None] * 1e5 + steps
    return StatisticsBlock(steps, values.astype(np.float32))


def counts(steps: list[int]) -> CountsBlock:
    """At step t layer l has t + 1 elements in bin l."""
    dense = np.zeros((len(steps), 3, BINS), dtype=np.int64)
    for place, step in enumerate(steps):
        dense[place, [0, 1, 2], [0, 1, 2]] = step + 1
    return CountsBlock.from_dense(np.array(steps, dtype=np.int64), dense)


def same(read: StatisticsBlock | None, expected: StatisticsBlock) -> None:
    assert read is not None
    np.testing.assert_array_equal(read.steps, expected.steps)
    np.testing.assert_array_equal(read.values, expected.values)


def rows(store: Store) -> int:
    with store.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(blocks)) or 0


def read_steps(block: CountsBlock | None) -> npt.NDArray[np.int64] | None:
    return None if block is None else block.steps


def test_nothing_is_stored_yet(store: Store) -> None:
    identifier = store.create().id
    assert store.read(series.read_statistics, identifier, TENSOR) is None
    assert store.read(series.read_counts, identifier, TENSOR) is None


def test_blocks_are_read_as_one_series(store: Store) -> None:
    identifier, other = store.create().id, store.create().id
    for start, stop in ((0, 10), (10, 25), (25, 26)):
        store.write(series.write, identifier, TENSOR, statistics(start, stop))
    store.write(series.write, identifier, "weights", statistics(0, 3))
    store.write(series.write, other, TENSOR, statistics(0, 4))
    same(store.read(series.read_statistics, identifier, TENSOR), statistics(0, 26))
    same(store.read(series.read_statistics, identifier, "weights"), statistics(0, 3))
    same(store.read(series.read_statistics, other, TENSOR), statistics(0, 4))


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 26), (0, 1), (9, 11), (10, 25), (24, 26), (12, 13), (12, None), (0, None), (25, 100)]
)
def test_a_range_of_iterations(store: Store, start: int, stop: int | None) -> None:
    identifier = store.create().id
    for first, beyond in ((0, 10), (10, 25), (25, 26)):
        store.write(series.write, identifier, TENSOR, statistics(first, beyond))
    expected = statistics(start, min(26, stop) if stop is not None else 26)
    same(store.read(series.read_statistics, identifier, TENSOR, start, stop), expected)


def test_a_range_beyond_the_end_is_nothing(store: Store) -> None:
    identifier = store.create().id
    store.write(series.write, identifier, TENSOR, statistics(0, 10))
    assert store.read(series.read_statistics, identifier, TENSOR, 10) is None


def test_a_growing_tail_replaces_itself(store: Store) -> None:
    identifier = store.create().id
    store.write(series.write, identifier, TENSOR, statistics(0, 10), counts([0, 5]))
    for stop in (11, 15, 20):
        store.write(series.write, identifier, TENSOR, statistics(10, stop), counts([10]))
        same(store.read(series.read_statistics, identifier, TENSOR), statistics(0, stop))
    assert rows(store) == 2
    read = store.read(series.read_counts, identifier, TENSOR)
    assert read is not None
    np.testing.assert_array_equal(read.dense(), counts([0, 5, 10]).dense())


def test_histograms_of_a_range(store: Store) -> None:
    identifier = store.create().id
    store.write(series.write, identifier, TENSOR, statistics(0, 10), counts([0, 5]))
    store.write(series.write, identifier, TENSOR, statistics(10, 14), None)
    store.write(series.write, identifier, TENSOR, statistics(14, 20), counts([15]))
    read = store.read(series.read_counts, identifier, TENSOR, 5, 16)
    assert read is not None
    assert read.steps.tolist() == [5, 15]
    np.testing.assert_array_equal(read.dense(), counts([5, 15]).dense())
    assert read_steps(store.read(series.read_counts, identifier, TENSOR, 10, 14)) is None


def test_histograms_alone(store: Store) -> None:
    identifier = store.create().id
    store.write(series.write, identifier, TENSOR, None, counts([3, 6]))
    assert store.read(series.read_statistics, identifier, TENSOR) is None
    read = store.read(series.read_counts, identifier, TENSOR)
    assert read is not None
    np.testing.assert_array_equal(read.dense(), counts([3, 6]).dense())


def test_nothing_to_write_writes_nothing(store: Store) -> None:
    identifier = store.create().id
    store.write(series.write, identifier, TENSOR, None, None)
    store.write(series.write, identifier, TENSOR, statistics(5, 5))
    assert rows(store) == 0


def test_values_that_are_not_finite_are_kept(store: Store) -> None:
    identifier = store.create().id
    block = statistics(0, 4)
    block.values[0, 0] = [np.nan, np.inf, -np.inf, -0.0]
    store.write(series.write, identifier, TENSOR, block)
    read = store.read(series.read_statistics, identifier, TENSOR)
    assert read is not None
    assert read.values.tobytes() == block.values.tobytes()


def test_the_next_attempt_starts_with_nothing_of_the_last(store: Store) -> None:
    lease = store.running()
    store.write(series.write, lease.experiment_id, TENSOR, statistics(0, 10), counts([0]))
    store.lose_worker(lease.experiment_id)
    assert store.claim(lease.experiment_id, owner="worker-2") is not None
    assert rows(store) == 0


def test_a_damaged_block_is_never_read_as_data(store: Store) -> None:
    identifier = store.create().id
    store.write(series.write, identifier, TENSOR, statistics(0, 10))
    damaged = bytearray(statistics(0, 10).encode())
    damaged[len(damaged) // 2] ^= 1
    with store.database.write() as connection:
        connection.execute(update(blocks).values(statistics=bytes(damaged)))
    with pytest.raises(CorruptBlock):
        store.read(series.read_statistics, identifier, TENSOR)
