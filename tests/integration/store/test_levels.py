"""A series read at a distance: from coarser levels, from what was measured, or from both, it is the same."""

import numpy as np
import pytest
from sqlalchemy import delete, update

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import CorruptBlock
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.store import series
from gradprobe.store.cache import Cache
from gradprobe.store.reader import Reader
from gradprobe.store.tables import blocks
from tests.integration.store.transactions import Store

TENSOR = "weights"
STEPS = 1500
#: Ranges that begin and end on buckets, within them, in one bucket, and beyond the end.
RANGES = [(0, None), (0, STEPS), (256, 1280), (1, 1499), (250, 700), (17, 30), (511, None), (1400, 5000), (3, 4)]


def measured(every: int = 1) -> StatisticsBlock:
    """Three statistics of two layers, with a spike, a hole of NaN and an infinity."""
    steps = np.arange(0, STEPS, every, dtype=np.int64)
    values = np.random.default_rng(0).normal(0, 1, (3, 2, len(steps))).astype(np.float32)
    values[0, 0, (steps == 777)] = 1e20
    values[1, :, (steps >= 600) & (steps < 900)] = np.nan
    values[2, 1, (steps == 300)] = -np.inf
    return StatisticsBlock(steps, values)


def store_whole(store: Store, block: StatisticsBlock, levels: tuple[int, ...] = (1, 2)) -> str:
    """In measured blocks of 400 steps, and each level in runs of four buckets."""
    identifier = store.create().id
    for start in range(0, STEPS, 400):
        store.write(series.write, identifier, TENSOR, block.between(start, start + 400))
    for level in levels:
        whole = LevelBlock.of(block).merged(WIDTHS[level])
        for start in range(0, STEPS, 4 * WIDTHS[level]):
            run = whole.between(start, start + 4 * WIDTHS[level])
            store.write(series.write_level, identifier, TENSOR, level, run, int(block.steps[-1]))
    return identifier


def read(
    store: Store, identifier: str, start: int, stop: int | None, width: int, cache: Cache | None = None
) -> LevelBlock | None:
    with store.database.read() as connection:
        return Reader(connection, identifier, cache, 1).reduced(TENSOR, start, stop, width, [0, 1, 2])


def same(left: LevelBlock | None, right: LevelBlock) -> None:
    assert left is not None
    for name in LevelBlock.__slots__:
        if name == "mean":
            np.testing.assert_allclose(left.mean, right.mean, rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("levels", [(), (1,), (1, 2)], ids=str)
@pytest.mark.parametrize("every", [1, 3])
def test_reduced_is_the_same_from_whatever_is_stored(store: Store, every: int, levels: tuple[int, ...]) -> None:
    block = measured(every)
    identifier = store_whole(store, block, levels)
    for start, stop in RANGES:
        for width in (2, 16, 64, 256, 1024, 4096):
            expected = LevelBlock.of(block.between(start, STEPS if stop is None else stop)).merged(width)
            same(read(store, identifier, start, stop, width), expected)


def test_wide_buckets_are_read_from_the_coarsest_level_that_fits(store: Store) -> None:
    block = measured()
    identifier = store_whole(store, block)
    with store.database.write() as connection:
        connection.execute(delete(blocks).where(blocks.c.level == 0, blocks.c.first_step < 1200))
    assert read(store, identifier, 0, None, 8) is not None  # only what is left of the measured blocks
    same(read(store, identifier, 0, None, 16), LevelBlock.of(block).merged(16))
    with store.database.write() as connection:
        connection.execute(delete(blocks).where(blocks.c.level == 1, blocks.c.first_step < 1200))
    same(read(store, identifier, 0, None, 512), LevelBlock.of(block).merged(512))


def test_a_level_that_lags_behind_is_not_used(store: Store) -> None:
    block = measured()
    identifier = store_whole(store, block)
    more = StatisticsBlock(np.arange(STEPS, STEPS + 50), np.full((3, 2, 50), 9.0, dtype=np.float32))
    store.write(series.write, identifier, TENSOR, more)
    same(read(store, identifier, 0, None, 256), LevelBlock.of(StatisticsBlock.join([block, more])).merged(256))


def test_nothing_in_the_range_is_nothing(store: Store) -> None:
    identifier = store_whole(store, measured())
    assert read(store, store.create().id, 0, None, 16) is None
    found = read(store, identifier, 2000, None, 16)
    assert found is None or len(found.starts) == 0


def test_some_statistics_are_read_alone(store: Store) -> None:
    block = measured()
    identifier = store_whole(store, block)
    with store.database.read() as connection:
        reader = Reader(connection, identifier)
        raw = reader.statistics(TENSOR, 100, 1300, [2, 0])
        level = reader.reduced(TENSOR, 0, None, 256, [1])
    assert raw is not None
    np.testing.assert_array_equal(raw.values, block.values[[2, 0], :, 100:1300])
    same(level, LevelBlock.of(StatisticsBlock(block.steps, block.values[[1]])).merged(256))


def test_a_damaged_level_is_never_read_as_data(store: Store) -> None:
    identifier = store_whole(store, measured())
    with store.database.write() as connection:
        row = connection.scalar(blocks.select().with_only_columns(blocks.c.statistics).where(blocks.c.level == 2))
        assert row is not None
        damaged = bytearray(row)
        damaged[len(damaged) // 2] ^= 1
        connection.execute(update(blocks).where(blocks.c.level == 2).values(statistics=bytes(damaged)))
    with pytest.raises(CorruptBlock):
        read(store, identifier, 0, None, 256)


def test_what_was_decoded_is_kept_and_not_read_again(store: Store) -> None:
    block = measured()
    identifier = store_whole(store, block)
    cache = Cache(1 << 20)
    first = read(store, identifier, 0, None, 256, cache)
    held = cache.size
    assert held > 0
    with store.database.write() as connection:  # only for this test: what an ended run stored never changes
        connection.execute(update(blocks).where(blocks.c.statistics.is_not(None)).values(statistics=b"gone"))
    again = read(store, identifier, 0, None, 256, cache)
    assert first is not None
    same(again, first)
    assert cache.size == held
    with pytest.raises(CorruptBlock), store.database.read() as connection:  # another version is another thing
        Reader(connection, identifier, cache, 2).reduced(TENSOR, 0, None, 256, [0, 1, 2])


def test_part_of_a_series_in_the_cache_is_filled_up(store: Store) -> None:
    block = measured()
    identifier = store_whole(store, block)
    cache = Cache(1 << 20)
    for start, stop in ((500, 700), (0, 1500), (300, None)):
        with store.database.read() as connection:
            found = Reader(connection, identifier, cache, 1).statistics(TENSOR, start, stop)
        assert found is not None
        np.testing.assert_array_equal(found.values, block.between(start, stop or STEPS).values)
