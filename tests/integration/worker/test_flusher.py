"""A real run's chunks, stored in pieces of any size: read back they are the whole, once, or not at all."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy import select

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import DatabaseUnavailable, ExperimentCancelled, LeaseLost
from gradprobe.levels import WIDTHS, LevelBlock
from gradprobe.probe import Measured
from gradprobe.spec import Spec
from gradprobe.state import Status
from gradprobe.statistics import HISTOGRAM_TENSORS, Tensor
from gradprobe.store import experiments, leases, series, tails
from gradprobe.store.database import Database
from gradprobe.store.leases import Lease
from gradprobe.store.tables import blocks
from tests.integration.store.transactions import Store
from tests.integration.worker.conftest import Locked
from tests.numerics.replay import Recorded, record, small_dataset
from worker import execute
from worker.flush import Flusher
from worker.loop import Chunk, Pace

ITERATIONS = 50
TENSORS: tuple[Tensor, ...] = ("weight_gradients", "output_gradients", "weights", "activations")


@pytest.fixture(scope="module")
def run() -> Recorded:
    """A training whose every step is a chunk of its own; histograms seldom, evaluations seldomer."""
    spec = Spec.model_validate(
        {
            "network": {"depth": 3, "width": 6, "activation": "gelu"},
            "training": {"iterations": ITERATIONS, "batch_size": 8, "device": "cpu"},
            "recording": {"every": 2, "histograms_every": 5, "evaluate_every": 20},
        }
    )
    return record(spec, small_dataset(), Pace(0.0, 0.0))


def write(flusher: Flusher, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        flusher.grow(chunk)
    flusher.write(chunks[-1].iteration)


def in_pieces(flusher: Flusher, chunks: Sequence[Chunk], sizes: Sequence[int]) -> None:
    """Writes of so many chunks each, the sizes over and over."""
    start, turn = 0, 0
    while start < len(chunks):
        write(flusher, chunks[start : start + sizes[turn % len(sizes)]])
        start, turn = start + sizes[turn % len(sizes)], turn + 1


def assert_stored(store: Store, lease: Lease, run: Recorded, chunks: Sequence[Chunk] | None = None) -> None:
    """What is read is what those chunks measured, bit for bit."""
    whole = Recorded(run.outcome, list(run.chunks if chunks is None else chunks))
    blocks_of = {tensor: whole.statistics(tensor) for tensor in TENSORS}  # type: ignore[arg-type]  # no metrics there
    for tensor, block in {**blocks_of, "metrics": whole.metrics, "evaluation": whole.evaluations}.items():
        read = store.read(series.read_statistics, lease.experiment_id, tensor)
        assert read is not None
        np.testing.assert_array_equal(read.steps, block.steps)
        np.testing.assert_array_equal(read.values, block.values)
    for tensor in HISTOGRAM_TENSORS:
        counts = store.read(series.read_counts, lease.experiment_id, tensor)
        assert counts is not None
        np.testing.assert_array_equal(counts.steps, whole.counts(tensor).steps)
        np.testing.assert_array_equal(counts.dense(), whole.counts(tensor).dense())


def rows(store: Store, lease: Lease, tensor: Tensor = "weight_gradients") -> list[tuple[int, int, bytes, bytes]]:
    """(first step, last step, statistics, counts) of each block stored as measured."""
    query = (
        select(blocks.c.first_step, blocks.c.last_step, blocks.c.statistics, blocks.c.counts)
        .where(blocks.c.experiment_id == lease.experiment_id, blocks.c.tensor == tensor, blocks.c.level == 0)
        .order_by(blocks.c.first_step)
    )
    with store.database.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


@pytest.mark.parametrize("sealed_steps", [1, 4, 16, 1024])
@pytest.mark.parametrize("sizes", [[1], [7], [1, 2, 11], [ITERATIONS + 1]], ids=str)
def test_odd_pieces_are_the_whole(
    sizes: list[int], sealed_steps: int, store: Store, run: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "SEALED_STEPS", sealed_steps)
    lease = store.running()
    in_pieces(Flusher(store.database, lease), run.chunks, sizes)
    assert_stored(store, lease, run)
    assert store.get(lease.experiment_id).iteration == ITERATIONS


def test_a_reader_sees_the_growing_tail_whole(store: Store, run: Recorded) -> None:
    lease = store.running()
    flusher = Flusher(store.database, lease)
    for number, chunk in enumerate(run.chunks[:12], start=1):
        write(flusher, [chunk])
        assert_stored(store, lease, run, run.chunks[:number])
        recorded = [step for step in range(number) if step % 2 == 0 or step % 5 == 0]
        assert [row[:2] for row in rows(store, lease)] == [(0, recorded[-1])]
        assert store.get(lease.experiment_id).iteration == chunk.iteration


def test_a_sealed_block_is_never_written_again(store: Store, run: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "SEALED_STEPS", 6)
    lease = store.running()
    flusher = Flusher(store.database, lease)
    seen: list[tuple[int, int, bytes, bytes]] = []
    for chunk in run.chunks:
        write(flusher, [chunk])
        stored = rows(store, lease)
        assert stored[: len(seen)] == seen
        seen = stored[:-1]
    assert len(seen) == 4
    assert all(last - first >= 10 for first, last, _, _ in seen)
    assert_stored(store, lease, run)


def test_another_attempt_took_over(store: Store, run: Recorded) -> None:
    lease = store.running()
    stale = Flusher(store.database, lease)
    write(stale, run.chunks[:3])
    store.lose_worker(lease.experiment_id)
    claimed = store.claim(lease.experiment_id, "worker-2")
    assert claimed is not None
    assert rows(store, lease) == []
    write(Flusher(store.database, claimed[1]), run.chunks[:5])
    before = rows(store, lease)
    with pytest.raises(LeaseLost):
        write(stale, run.chunks[3:20])
    assert rows(store, lease) == before
    assert store.get(lease.experiment_id).iteration == 5
    assert_stored(store, lease, run, run.chunks[:5])


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_an_ended_experiment_takes_nothing_more(status: Status, store: Store, run: Recorded) -> None:
    lease = store.running()
    flusher = Flusher(store.database, lease)
    write(flusher, run.chunks[:4])
    store.write(leases.finish, lease, status)
    with pytest.raises(LeaseLost):
        write(flusher, run.chunks[4:9])
    assert_stored(store, lease, run, run.chunks[:4])
    assert store.get(lease.experiment_id).status == status


def test_cancelling_keeps_what_was_measured(store: Store, run: Recorded) -> None:
    lease = store.running()
    flusher = Flusher(store.database, lease)
    write(flusher, run.chunks[:4])
    store.write(experiments.request_cancel, lease.experiment_id)
    with pytest.raises(ExperimentCancelled):
        write(flusher, run.chunks[4:9])
    assert_stored(store, lease, run, run.chunks[:9])


def test_a_database_that_is_away_gets_everything_once_it_is_back(
    store: Store, run: Recorded, impatient: Database, locked: Locked
) -> None:
    lease = store.running()
    flusher = Flusher(impatient, lease)
    write(flusher, run.chunks[:3])
    for chunk in run.chunks[3:6]:
        with locked(), pytest.raises(DatabaseUnavailable):
            write(flusher, [chunk])
        assert_stored(store, lease, run, run.chunks[:3])
    flusher.write(run.chunks[5].iteration)
    assert_stored(store, lease, run, run.chunks[:6])
    write(flusher, run.chunks[6:])
    assert_stored(store, lease, run)


def test_a_patient_sink_waits_for_the_database(
    store: Store, run: Recorded, impatient: Database, locked: Locked
) -> None:
    lease = store.running()
    sink = execute._patient(Flusher(impatient, lease))
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locked():
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    timer = threading.Timer(0.3, release.set)
    timer.start()
    for chunk in run.chunks[:4]:
        sink(chunk)
    holder.join()
    timer.join()
    assert_stored(store, lease, run, run.chunks[:4])


def level_rows(store: Store, lease: Lease, level: int, tensor: Tensor = "metrics") -> list[tuple[int, int, bytes]]:
    """(first step, last step, buckets) of each run of a coarser level."""
    query = (
        select(blocks.c.first_step, blocks.c.last_step, blocks.c.statistics)
        .where(blocks.c.experiment_id == lease.experiment_id, blocks.c.tensor == tensor, blocks.c.level == level)
        .order_by(blocks.c.first_step)
    )
    with store.database.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


def random_chunks(steps: Sequence[int], sizes: Sequence[int]) -> list[Chunk]:
    """Metrics alone, in pieces of any size; a hundredth of the values are not finite."""
    generator = np.random.default_rng(0)
    values = generator.lognormal(0, 2, (5, 1, len(steps))).astype(np.float32)
    values[generator.random(values.shape) < 0.01] = np.nan
    chunks, start, turn = [], 0, 0
    nothing = StatisticsBlock(np.zeros(0, dtype=np.int64), np.zeros((2, 1, 0), dtype=np.float32))
    while start < len(steps):
        end = min(len(steps), start + sizes[turn % len(sizes)])
        block = StatisticsBlock(np.array(steps[start:end]), values[:, :, start:end])
        measured = Measured(block.steps, {}, {}, np.zeros(len(block.steps), dtype=np.float32))
        chunks.append(Chunk(int(block.steps[-1]) + 1, measured, block, nothing))
        start, turn = end, turn + 1
    return chunks


def assert_levels_are_of_what_was_measured(store: Store, lease: Lease, levels: Sequence[int] = (1, 2)) -> None:
    raw = store.read(series.read_statistics, lease.experiment_id, "metrics")
    assert raw is not None
    for level in levels:
        found = LevelBlock.join([LevelBlock.decode(row, range(5)) for _, _, row in level_rows(store, lease, level)])
        expected = LevelBlock.of(raw).merged(WIDTHS[level])
        for name in LevelBlock.__slots__:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("sizes", [[1000], [1, 7, 300], [250, 6], [16], [4000]], ids=str)
def test_coarser_levels_are_those_of_the_whole_however_it_was_cut(sizes: list[int], store: Store) -> None:
    lease = store.running()
    in_pieces(Flusher(store.database, lease), random_chunks(range(2500), sizes), [1])
    assert_levels_are_of_what_was_measured(store, lease)


@pytest.mark.parametrize("steps", [range(0, 3000, 4), [0, 1, 5, 300, 301, 999, 1000, 1024, 2047]], ids=["4", "odd"])
def test_buckets_begin_at_whole_multiples_whatever_is_recorded(steps: Sequence[int], store: Store) -> None:
    lease = store.running()
    in_pieces(Flusher(store.database, lease), random_chunks(steps, [3, 50]), [1, 2])
    assert_levels_are_of_what_was_measured(store, lease)
    assert all(first % 16 == 0 for first, _, _ in level_rows(store, lease, 1))


def test_a_reader_sees_every_level_as_far_as_the_measured(store: Store) -> None:
    lease = store.running()
    flusher = Flusher(store.database, lease)
    for chunk in random_chunks(range(700), [90]):
        write(flusher, [chunk])
        assert_levels_are_of_what_was_measured(store, lease)


def test_full_runs_of_buckets_are_never_written_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "SEALED_BUCKETS", 4)
    lease = store.running()
    flusher = Flusher(store.database, lease)
    seen: list[tuple[int, int, bytes]] = []
    for chunk in random_chunks(range(600), [20]):
        write(flusher, [chunk])
        stored = level_rows(store, lease, 1)
        assert [row[2] for row in stored[: len(seen)]] == [row[2] for row in seen]
        seen = stored[:-1]
    assert len(seen) >= 6
    assert_levels_are_of_what_was_measured(store, lease)


def test_levels_take_few_rows_and_little_room(store: Store) -> None:
    lease = store.running()
    in_pieces(Flusher(store.database, lease), random_chunks(range(10_000), [500]), [1])
    sizes = {level: sum(len(row) for _, _, row in level_rows(store, lease, level)) for level in (0, 1, 2)}
    assert len(level_rows(store, lease, 1)) <= 10_000 // (16 * 64) + 2
    assert len(level_rows(store, lease, 2)) == 1
    assert sizes[1] + sizes[2] < sizes[0] / 3


@pytest.mark.parametrize(("every", "levels"), [(1, {0, 1, 2}), (4, {0, 1, 2}), (5, {0, 2}), (64, {0, 2}), (65, {0})])
def test_a_level_whose_buckets_would_be_nearly_empty_is_left_out(every: int, levels: set[int], store: Store) -> None:
    lease = store.running()
    in_pieces(Flusher(store.database, lease), random_chunks(range(0, 100 * every, every), [1]), [30])
    assert {level for level in (0, 1, 2) if level_rows(store, lease, level)} == levels


def test_levels_that_could_not_be_written_are_written_with_the_next(
    store: Store, impatient: Database, locked: Locked
) -> None:
    lease = store.running()
    flusher = Flusher(impatient, lease)
    chunks = random_chunks(range(2000), [400])
    write(flusher, chunks[:1])
    for chunk in chunks[1:4]:
        with locked(), pytest.raises(DatabaseUnavailable):
            write(flusher, [chunk])
    write(flusher, chunks[4:])
    assert_levels_are_of_what_was_measured(store, lease)
