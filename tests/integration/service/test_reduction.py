"""`max_points`: fewer points, no spike lost, the past left as it was, and the same answer to the same question."""

from typing import Any

import httpx
import numpy as np
import pytest

from gradprobe.blocks import StatisticsBlock
from gradprobe.client.arrays import Series
from gradprobe.resources import SeriesDocument
from gradprobe.store import leases
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from gradprobe.store.tails import Tail
from tests.integration.service import measured

STEPS = 10_000


@pytest.fixture
def experiment_id(client: httpx.Client) -> str:
    """A queued experiment of two layers that will train for 10,000 iterations."""
    spec = {"network": {"depth": 2, "width": 4}, "training": {"iterations": STEPS}}
    return str(client.post("/experiments", json=spec).json()["id"])


def drawn(steps: int = STEPS) -> StatisticsBlock:
    values = np.random.default_rng(0).lognormal(-5, 1, (7, 2, steps)).astype(np.float32)
    return StatisticsBlock(np.arange(steps, dtype=np.int64), values)


class Run:
    """A worker that flushes what it is given, with all levels."""

    def __init__(self, database: Database, experiment_id: str, tensor: str = "weight_gradients") -> None:
        self.database, self.tensor, self.tail = database, tensor, Tail()
        self.record: Record
        self.record, self.lease = measured.claim(database, experiment_id)

    def flush(self, block: StatisticsBlock) -> None:
        self.tail.grow(block, None)
        with self.database.write() as connection:
            leases.renew(connection, self.lease, int(block.steps[-1]) + 1)
            self.tail.write(connection, self.record.id, self.tensor)  # type: ignore[arg-type]  # the test's own names
        self.tail.drop_sealed()


def read(client: httpx.Client, experiment_id: str, query: str, part: str = "gradients") -> dict[str, Any]:
    response = client.get(f"/experiments/{experiment_id}/{part}?{query}")
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def column(body: dict[str, Any], layer: int = 0, statistic: str = "mean_abs") -> list[float | None]:
    found: list[float | None] = body["layers"][layer]["statistics"][statistic]
    return found


@pytest.mark.parametrize("max_points", [2, 3, 10, 100, 999, 1000, 5001, 9999])
def test_each_bucket_gives_its_minimum_and_its_maximum(
    client: httpx.Client, database: Database, experiment_id: str, max_points: int
) -> None:
    block, run = drawn(), Run(database, experiment_id)
    for start in range(0, STEPS, 1700):
        run.flush(block.between(start, start + 1700))

    body = read(client, experiment_id, f"statistics=norm,mean_abs&max_points={max_points}")

    width = body["reduction"]["bucket"]
    buckets = -(-STEPS // width)
    assert 2 * buckets <= max_points < 4 * buckets + 4
    assert body["reduction"] == {"method": "minmax", "points": 2 * buckets, "of_points": STEPS, "bucket": width}
    cuts = np.arange(0, STEPS, width)
    assert body["steps"][0::2] == cuts.tolist()
    assert body["steps"][1::2] == [min(cut + width, STEPS) - 1 for cut in cuts.tolist()]
    arrays = Series.of_document(SeriesDocument.model_validate(body))
    for position, name in ((0, "mean_abs"), (3, "norm")):
        told = arrays.matrix(name).astype(np.float32)
        np.testing.assert_array_equal(told[:, 0::2], np.minimum.reduceat(block.values[position], cuts, axis=1))
        np.testing.assert_array_equal(told[:, 1::2], np.maximum.reduceat(block.values[position], cuts, axis=1))


def test_a_spike_of_one_step_survives(client: httpx.Client, database: Database, experiment_id: str) -> None:
    block = drawn()
    block.values[0, 1, 6_543], block.values[0, 1, 1_234] = 1e9, -1e9
    Run(database, experiment_id).flush(block)

    body = read(client, experiment_id, "max_points=100&statistics=mean_abs")

    assert len(body["steps"]) <= 100
    assert max(column(body, 1)) == 1e9  # type: ignore[type-var]  # no null among them
    assert min(column(body, 1)) == -1e9  # type: ignore[type-var]
    width = body["reduction"]["bucket"]
    assert column(body, 1)[2 * (6_543 // width) + 1] == 1e9


def test_what_fits_is_told_in_full(client: httpx.Client, database: Database, experiment_id: str) -> None:
    Run(database, experiment_id).flush(drawn())

    whole = read(client, experiment_id, "start=100&stop=150&statistics=mean")
    for limit in (50, 51, 100_000):
        body = read(client, experiment_id, f"start=100&stop=150&statistics=mean&max_points={limit}")
        assert body == whole
    assert read(client, experiment_id, "start=100&stop=150&max_points=49")["reduction"]["method"] == "minmax"


def test_one_point_is_the_largest(client: httpx.Client, database: Database, experiment_id: str) -> None:
    block = drawn()
    Run(database, experiment_id).flush(block)

    body = read(client, experiment_id, "max_points=1&start=5&stop=9000")

    assert body["steps"] == [5]
    assert body["reduction"] == {"method": "max", "points": 1, "of_points": 8995, "bucket": 16384}
    assert np.float32(column(body)[0]) == block.values[0, 0, 5:9000].max()


def test_edges_of_a_range_hold_only_what_is_within_it(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    block = drawn()
    Run(database, experiment_id).flush(block)

    body = read(client, experiment_id, "max_points=40&start=301&stop=4099&statistics=mean_abs")

    width = body["reduction"]["bucket"]
    assert (width, body["reduction"]["of_points"]) == (256, 3798)
    assert (body["steps"][0], body["steps"][-1]) == (301, 4098)
    first, last = block.values[0, 0, 301:512], block.values[0, 0, 4096:4099]
    assert np.float32(column(body)[:2]).tolist() == [first.min(), first.max()]
    assert np.float32(column(body)[-2:]).tolist() == [last.min(), last.max()]


def test_a_run_that_grows_leaves_its_full_buckets_as_they_were(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    block, run = drawn(), Run(database, experiment_id)
    seen: dict[int, tuple[float | None, float | None]] = {}
    for start in range(0, STEPS, 630):
        run.flush(block.between(start, start + 630))
        body = read(client, experiment_id, f"max_points=200&stop={STEPS}&statistics=mean_abs")
        width = body["reduction"]["bucket"]
        assert width == 128
        last = body["steps"][-1]
        for place, step in enumerate(body["steps"][:-1]):
            if step % width == 0 and step + width - 1 <= last:
                told = (column(body)[place], column(body)[place + 1])
                assert seen.setdefault(step, told) == told
    assert len(seen) == STEPS // 128


def test_a_range_without_an_end_has_as_many_points_as_it_can_at_any_time(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    block, run = drawn(), Run(database, experiment_id)
    widths = []
    for start, stop in ((0, 90), (90, 300), (300, 5000), (5000, 10_000)):
        run.flush(block.between(start, stop))
        reduction = read(client, experiment_id, "max_points=200")["reduction"]
        assert 50 <= reduction["points"] <= 200
        widths.append(reduction["bucket"])
    assert widths == [1, 4, 64, 128]


def test_the_same_request_gives_the_same_bytes(client: httpx.Client, database: Database, experiment_id: str) -> None:
    run = Run(database, experiment_id)
    run.flush(drawn())
    paths = [
        f"/experiments/{experiment_id}/{part}" for part in ("gradients?max_points=77", "gradients?max_points=7000")
    ]
    running = [client.get(path).content for path in paths]
    assert running == [client.get(path).content for path in paths]
    measured.finish(database, run.lease)
    for path in paths:
        assert len({client.get(path).content for _ in range(3)}) == 1


@pytest.mark.parametrize("every", [3, 100])
def test_seldom_recorded_steps_are_told_where_they_are(
    client: httpx.Client, database: Database, experiment_id: str, every: int
) -> None:
    spec = {"training": {"iterations": STEPS}, "recording": {"every": every}, "network": {"depth": 2, "width": 4}}
    other = client.post("/experiments", json=spec).json()["id"]
    block = drawn(-(-STEPS // every))
    block = StatisticsBlock(block.steps * every, block.values)
    Run(database, other).flush(block)

    body = read(client, other, "max_points=60&statistics=mean_abs")

    assert body["reduction"]["of_points"] == len(block.steps)
    assert len(body["steps"]) <= 60
    assert set(body["steps"]) <= set(block.steps.tolist())
    assert body["steps"] == sorted(set(body["steps"]))
    finite = block.values[0, 0]
    assert np.float32(max(column(body))) == finite.max()  # type: ignore[type-var]
    assert np.float32(min(column(body))) == finite.min()  # type: ignore[type-var]


def test_what_is_not_finite_is_named_with_its_bucket_and_hides_nothing(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    block = drawn()
    block.values[0, 0, 300:303] = np.nan
    block.values[0, 0, 310] = np.inf
    block.values[0, 1, 512:1024] = np.nan
    Run(database, experiment_id).flush(block)

    body = read(client, experiment_id, "max_points=80&statistics=mean_abs")

    assert body["reduction"]["bucket"] == 256
    common = {"statistic": "mean_abs"}
    assert body["nonfinite"] == [
        {"layer": "layer1", "step": 256, "value": "nan", "count": 3, **common},
        {"layer": "layer1", "step": 256, "value": "inf", "count": 1, **common},
        {"layer": "layer2", "step": 512, "value": "nan", "count": 256, **common},
        {"layer": "layer2", "step": 767, "value": "nan", "count": 256, **common},
        {"layer": "layer2", "step": 768, "value": "nan", "count": 256, **common},
        {"layer": "layer2", "step": 1023, "value": "nan", "count": 256, **common},
    ]
    assert column(body, 0)[2:4] != [None, None]
    assert column(body, 1)[4:8] == [None] * 4
    arrays = Series.of_document(SeriesDocument.model_validate(body))
    assert np.isfinite(arrays["layer1"]["mean_abs"]).all()
    assert np.isnan(arrays["layer2"]["mean_abs"]).sum() == 4


@pytest.mark.parametrize("part", ["weights", "activations"])
def test_the_other_tensors_are_reduced_too(
    client: httpx.Client, database: Database, experiment_id: str, part: str
) -> None:
    block = drawn()
    columns = 8 if part == "weights" else 4
    whole = StatisticsBlock(block.steps, np.resize(block.values, (columns, 2, STEPS)))
    Run(database, experiment_id, part).flush(whole)

    body = read(client, experiment_id, "max_points=500&statistics=std", part)

    told = np.float32(column(body, 1, "std"))
    cuts = np.arange(0, STEPS, body["reduction"]["bucket"])
    place = 2 if part == "weights" else 1
    np.testing.assert_array_equal(told[1::2], np.maximum.reduceat(whole.values[place, 1], cuts))


def test_metrics_and_evaluations_are_reduced_each_by_itself(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    record, _ = measured.claim(database, experiment_id)
    block = measured.write_statistics(database, record, "metrics", range(STEPS))
    measured.write_statistics(database, record, "evaluation", range(0, STEPS + 1, 500))

    body = read(client, experiment_id, "max_points=30", "metrics")

    assert body["reduction"]["of_points"] == STEPS
    assert len(body["steps"]) == len(body["metrics"]["loss"]) <= 30
    assert np.float32(max(body["metrics"]["loss"])) == block.values[0, 0].max()
    assert body["evaluation"]["reduction"] == {"method": "none", "points": 21, "of_points": 21, "bucket": 1}
    few = read(client, experiment_id, "max_points=10", "metrics")["evaluation"]
    assert few["reduction"]["method"] == "minmax"
    assert len(few["steps"]) == len(few["test_loss"]) <= 10


def test_a_range_of_nothing_is_nothing(client: httpx.Client, database: Database, experiment_id: str) -> None:
    empty = {"method": "none", "points": 0, "of_points": 0, "bucket": 1}
    assert read(client, experiment_id, "max_points=5")["reduction"] == empty
    Run(database, experiment_id).flush(drawn(500))
    for query in ("start=600&max_points=5", "start=600&stop=9000&max_points=5"):
        body = read(client, experiment_id, query)
        assert (body["steps"], column(body), body["reduction"]["of_points"]) == ([], [], 0)
