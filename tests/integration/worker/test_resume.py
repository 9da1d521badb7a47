"""Workers that die or stop on the way: the next goes on, and what is stored in the end is an undisturbed run's."""

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from benchmarks.chaos.series import Series, read_series
from gradprobe.errors import WorkerStopping
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import checkpoints, leases, tails
from gradprobe.store.tables import checkpoints as table
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.store.transactions import Store
from tests.numerics.replay import small_dataset
from tests.processes import eventually
from worker import execute as module
from worker.execute import execute

ITERATIONS = 400
SPECS: dict[str, dict[str, Any]] = {
    "everything": {
        "network": {"depth": 4, "width": 8, "activation": "prelu", "normalization": "batch", "dropout": 0.2},
        "gradient_clipping": {"kind": "norm", "max_norm": 0.5},
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "schedule": {"name": "cosine"}},
        "training": {"precision": "float16"},
    },
    "seldom": {"recording": {"every": 3, "histograms_every": 7, "evaluate_every": 50}},
    "very seldom": {"recording": {"every": 150, "histograms_every": 60, "evaluate_every": 100}},
    "dropout": {"network": {"depth": 3, "width": 8, "activation": "relu", "dropout": 0.5}},
}


class Killed(BaseException):
    """As near to SIGKILL as one process comes: nothing handles it."""


def document(name: str, iterations: int = ITERATIONS) -> dict[str, Any]:
    whole = {
        "dataset": "synthetic",
        "network": {"depth": 3, "width": 8, "activation": "tanh"},
        "training": {"iterations": iterations, "batch_size": 16, "device": "cpu", "seed": 3},
        "recording": {"histograms_every": 20, "evaluate_every": 100},
    }
    changes = {**SPECS[name]}
    changes["training"] = {**whole["training"], **changes.get("training", {})}
    return {**whole, **changes}


@pytest.fixture
def settings(worker_settings: Settings) -> Settings:
    """Flushed and saved all the time, so that a run of a second has many of both."""
    changes = {"flush_seconds": 0.05, "checkpoint_seconds": 0.1, "maximum_attempts": 50}
    return worker_settings.model_copy(update=changes)


Ends = Callable[..., None]


@pytest.fixture
def end_at(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """The next attempts end before this many iterations of their own; None: they don't."""

    keeper = module._keeper

    def arrange(iterations: int | None, how: type[BaseException] = Killed) -> None:
        looks = itertools.count()

        def keep_going() -> None:
            if next(looks) == iterations:
                raise how

        monkeypatch.setattr(module, "_keeper", keeper if iterations is None else lambda *_: keep_going)

    return arrange


def attempt(store: Store, identifier: str, settings: Settings) -> Status | None:
    try:
        return execute(identifier, settings, store.database)
    except Killed:
        store.lose_worker(identifier)
        store.write(leases.recover)
        return None


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the synthetic set takes a second, and there are many attempts."""
    monkeypatch.setattr(module, "_dataset", lambda *_: small_dataset())


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "SEALED_STEPS", 64)
    monkeypatch.setattr(tails, "SEALED_BUCKETS", 3)


@pytest.fixture
def undisturbed(store: Store, settings: Settings) -> Callable[[str], Series]:
    def run(name: str) -> Series:
        identifier = store.create(document(name)).id
        assert execute(identifier, settings, store.database) == Status.SUCCEEDED
        return read_series(store.database, identifier)

    return run


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("how", [Killed, WorkerStopping])
@POSTGRESQL_AT_LENGTH
def test_the_series_is_an_undisturbed_run_s(
    name: str,
    how: type[BaseException],
    store: Store,
    settings: Settings,
    end_at: Ends,
    undisturbed: Callable[[str], Series],
) -> None:
    expected = undisturbed(name)
    identifier = store.create(document(name), attempts=10).id
    begun = []
    for iterations in (137, 30, 1, 90, 0):
        end_at(iterations, how)
        assert attempt(store, identifier, settings) is None
        begun.append(store.get(identifier).iteration)
    end_at(None)
    assert execute(identifier, settings, store.database) == Status.SUCCEEDED
    record = store.get(identifier)
    assert (record.attempt, record.iteration) == (6, ITERATIONS)
    if how is WorkerStopping:
        assert begun == [137, 167, 168, 258, 258]
    assert read_series(store.database, identifier).differences(expected) == []
    assert store.read(checkpoints.load, identifier) is None


def test_a_worker_asked_to_stop_saves_what_it_has(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(module, "stopping", stopping)
    identifier = store.create(document("dropout", 100_000)).id
    later = settings.model_copy(update={"checkpoint_seconds": 3600.0})
    worker = threading.Thread(target=execute, args=(identifier, later, store.database))
    worker.start()
    eventually(lambda: store.get(identifier).iteration > 50)
    assert store.read(checkpoints.load, identifier) is None
    stopping.set()
    worker.join(10)
    assert not worker.is_alive()
    record = store.get(identifier)
    assert record.status == Status.QUEUED
    claimed = store.claim(identifier)
    assert claimed is not None
    assert claimed[0].iteration == record.iteration > 50


def test_a_worker_that_stops_takes_nothing_new(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    stopping.set()
    monkeypatch.setattr(module, "stopping", stopping)
    identifier = store.create(document("dropout")).id
    assert execute(identifier, settings, store.database) is None
    assert (store.get(identifier).status, store.get(identifier).attempt) == (Status.QUEUED, 0)


@pytest.mark.parametrize("damage", ["bytes", "form", "network"])
def test_from_a_checkpoint_that_can_t_be_used_it_begins_anew(
    damage: str, store: Store, settings: Settings, end_at: Ends, undisturbed: Callable[[str], Series]
) -> None:  # fmt: skip
    expected = undisturbed("dropout")
    other, identifier = store.create(document("everything")).id, store.create(document("dropout")).id
    for one in (other, identifier):
        end_at(20, WorkerStopping)
        assert attempt(store, one, settings) is None
    with store.database.write() as connection:
        if damage == "bytes":
            connection.execute(update(table).where(table.c.experiment_id == identifier).values(checksum=1))
        else:
            state = checkpoints.load(connection, other) if damage == "network" else b"no checkpoint"
            assert state is not None
            checkpoints.save(connection, identifier, 1, 20, state)
    end_at(None)
    assert execute(identifier, settings, store.database) == Status.SUCCEEDED
    assert read_series(store.database, identifier).differences(expected) == []


@POSTGRESQL_AT_LENGTH
def test_time_is_limited_over_all_attempts(store: Store, settings: Settings, end_at: Ends) -> None:
    identifier = store.create(document("dropout", 1_000_000)).id
    short = settings.model_copy(update={"maximum_seconds": 3.0})
    end_at(100, WorkerStopping)
    assert attempt(store, identifier, short) is None
    end_at(None)
    assert execute(identifier, short, store.database) == Status.FAILED
    record = store.get(identifier)
    assert record.error is not None
    assert record.error["code"] == "TIME_LIMIT_EXCEEDED"
    assert "fewer iterations" in record.error["message"]
    assert record.iteration > 100
