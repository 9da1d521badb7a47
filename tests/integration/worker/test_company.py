"""Experiments that are trained side by side, in this process, against the real databases."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from benchmarks.chaos.series import read_series
from gradprobe.errors import WorkerStopping
from gradprobe.resources import Provenance, Result
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.statistics import names
from gradprobe.store import checkpoints, experiments, leases, series
from gradprobe.store.tables import checkpoints as table
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.store.transactions import Store
from tests.integration.worker.company import ITERATIONS, LONG, Killed, document, queue, statuses
from tests.processes import eventually
from worker import company as module
from worker import execute as execution
from worker.company import claim
from worker.execute import execute

pytestmark = pytest.mark.usefixtures("few_images")


def test_all_that_wait_and_are_alike_are_trained_with_the_first(store: Store, settings: Settings) -> None:
    identifiers = queue(store, 5)
    other = store.create(document(network={"depth": 3, "width": 9, "activation": "tanh"})).id
    urgent = store.create(document(queue={"priority": 1})).id
    assert execute(identifiers[0], settings, store.database) == Status.SUCCEEDED
    assert statuses(store, identifiers) == [Status.SUCCEEDED] * 5
    assert statuses(store, [other, urgent]) == [Status.QUEUED] * 2
    for seed, identifier in enumerate(identifiers):
        record = store.get(identifier)
        assert (record.iteration, record.attempt, record.error) == (ITERATIONS, 1, None)
        assert record.verdict is not None
        assert Result.model_validate(record.result).seconds > 0
        provenance = Provenance.model_validate(record.provenance)
        assert (provenance.stacked, provenance.seed, provenance.threads) == (5, seed, 1)
        found = read_series(store.database, identifier)
        assert found.faults(ITERATIONS) == []
        assert store.read(checkpoints.load, identifier) is None


@POSTGRESQL_AT_LENGTH
def test_its_series_is_that_of_a_run_by_itself_to_float_tolerance(store: Store, settings: Settings) -> None:
    by_itself = settings.model_copy(update={"stack_members": 1})
    identifiers = queue(store, 3)
    execute(identifiers[0], settings, store.database)
    for seed, identifier in enumerate(identifiers):
        alone = store.create(document(seed)).id
        execute(alone, by_itself, store.database)
        assert Provenance.model_validate(store.get(alone).provenance).stacked is None
        found, expected = (store.read(series.read_statistics, name, "weight_gradients") for name in (identifier, alone))
        assert found is not None
        assert expected is not None
        norm = names("weight_gradients").index("norm")
        np.testing.assert_allclose(found.values[norm], expected.values[norm], rtol=2e-3)
        assert store.get(identifier).verdict == store.get(alone).verdict


@POSTGRESQL_AT_LENGTH
def test_one_by_itself_is_not_stacked(store: Store, settings: Settings) -> None:
    (identifier,) = queue(store, 1)
    execute(identifier, settings, store.database)
    assert Provenance.model_validate(store.get(identifier).provenance).stacked is None
    assert store.column(identifier, "stack_key") is None


@pytest.mark.parametrize(("waiting", "taken"), [(1, 1), (20, 16), (40, 21), (150, 64)])
def test_half_of_them_are_taken_along(waiting: int, taken: int, store: Store, settings: Settings) -> None:
    identifiers = sorted(queue(store, waiting))  # of one millisecond ids come in any order
    attempts = claim(identifiers[0], settings, store.database)
    assert [attempt.record.id for attempt in attempts] == identifiers[:taken]
    assert statuses(store, identifiers).count(Status.RUNNING) == taken


@POSTGRESQL_AT_LENGTH
def test_no_more_than_fit(store: Store, settings: Settings) -> None:
    identifiers = queue(store, 20, network={"depth": 3, "width": 100, "activation": "tanh"})
    little = settings.model_copy(update={"stack_memory_mebibytes": 16})
    assert 2 < len(claim(identifiers[0], little, store.database)) < 16


def test_two_workers_at_once_take_each_its_own(store: Store, settings: Settings) -> None:
    identifiers = sorted(queue(store, 60))
    taken: dict[str, list[str]] = {}
    together = threading.Barrier(2)

    def take(head: str) -> None:
        together.wait()
        attempts = claim(head, settings, store.database)
        taken[head] = [attempt.record.id for attempt in attempts]

    threads = [in_background(lambda head=head: take(head)) for head in (identifiers[0], identifiers[40])]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    first, second = taken.values()
    assert not set(first) & set(second)
    assert sorted(status for status in statuses(store, identifiers) if status == Status.RUNNING) == [Status.RUNNING] * (
        len(first) + len(second)
    )


def in_background(action: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_one_is_cancelled_and_the_others_go_on(store: Store, settings: Settings) -> None:
    identifiers = queue(store, 2)
    long = store.create(document(9, LONG)).id

    def cancel() -> None:
        eventually(lambda: store.get(long).iteration > ITERATIONS)
        store.write(experiments.request_cancel, long)

    thread = in_background(cancel)
    execute(identifiers[0], settings, store.database)
    thread.join()
    assert statuses(store, [*identifiers, long]) == [Status.SUCCEEDED] * 2 + [Status.CANCELLED]
    record = store.get(long)
    assert ITERATIONS < record.iteration < LONG
    assert read_series(store.database, long).faults(record.iteration) == []


def test_one_is_taken_over_and_the_others_go_on(store: Store, settings: Settings) -> None:
    identifiers = [*queue(store, 2), store.create(document(9, LONG)).id]
    lost = identifiers[-1]

    def take_over() -> None:
        eventually(lambda: store.get(lost).iteration > 0)
        with store.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE experiments SET lease_until = 0 WHERE id = '{lost}'")
            assert leases.claim(connection, lost, "worker-2", 60.0) is not None

    thread = in_background(take_over)
    execute(identifiers[0], settings, store.database)
    thread.join()
    assert statuses(store, identifiers) == [Status.SUCCEEDED, Status.SUCCEEDED, Status.RUNNING]
    assert store.get(lost).attempt == 2


@POSTGRESQL_AT_LENGTH
def test_time_is_up_for_each_by_its_share(store: Store, settings: Settings) -> None:
    hasty = settings.model_copy(update={"maximum_seconds": 0.2})
    identifiers = queue(store, 2, iterations=LONG)
    assert execute(identifiers[0], hasty, store.database) == Status.FAILED
    for identifier in identifiers:
        record = store.get(identifier)
        assert record.error is not None
        assert record.error["code"] == "TIME_LIMIT_EXCEEDED"


@pytest.mark.parametrize("how", [Killed, WorkerStopping])
@POSTGRESQL_AT_LENGTH
def test_what_goes_on_in_other_company_comes_out_the_same(
    how: type[BaseException], store: Store, settings: Settings, end_at: Callable[..., None]
) -> None:
    undisturbed, disturbed = queue(store, 6), []
    execute(undisturbed[0], settings, store.database)
    disturbed = queue(store, 6)
    for turn, iterations in enumerate((70, 20, 1, 60, 0)):
        end_at(iterations, how)
        try:
            execute(disturbed[turn], settings, store.database)
        except Killed:
            for identifier in disturbed:
                store.lose_worker(identifier)
            store.write(leases.recover)
        assert statuses(store, disturbed) == [Status.QUEUED] * 6
    end_at(None)
    few = settings.model_copy(update={"stack_members": 4})
    for identifier in disturbed:
        execute(identifier, few, store.database)
    for identifier, expected in zip(disturbed, undisturbed, strict=True):
        assert store.get(identifier).status == Status.SUCCEEDED
        found = read_series(store.database, identifier)
        assert found.differences(read_series(store.database, expected)) == []
        assert found.faults(ITERATIONS) == []


@POSTGRESQL_AT_LENGTH
def test_the_last_of_a_stack_goes_on_in_a_stack_of_one(
    store: Store, settings: Settings, end_at: Callable[..., None]
) -> None:
    identifiers = queue(store, 2)
    end_at(50, WorkerStopping)
    execute(identifiers[0], settings, store.database)
    end_at(None)
    by_itself = settings.model_copy(update={"stack_members": 1})
    assert execute(identifiers[1], by_itself, store.database) == Status.SUCCEEDED
    assert Provenance.model_validate(store.get(identifiers[1]).provenance).stacked == 1
    assert read_series(store.database, identifiers[1]).faults(ITERATIONS) == []


@POSTGRESQL_AT_LENGTH
def test_one_that_began_by_itself_is_not_taken_along(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()
    monkeypatch.setattr(execution, "stopping", stopping)
    (alone,) = queue(store, 1, iterations=LONG)
    thread = in_background(lambda: execute(alone, settings, store.database))
    eventually(lambda: store.get(alone).iteration > 0)
    stopping.set()
    thread.join()
    stopping.clear()
    others = queue(store, 2)
    execute(others[0], settings, store.database)
    assert statuses(store, [alone, *others]) == [Status.QUEUED, Status.SUCCEEDED, Status.SUCCEEDED]


@POSTGRESQL_AT_LENGTH
def test_a_stack_that_fails_lets_each_train_by_itself(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no room for a stack")

    identifiers = queue(store, 3)
    monkeypatch.setattr(module, "train_stack", fail)
    assert execute(identifiers[0], settings, store.database) is None
    assert statuses(store, identifiers) == [Status.QUEUED] * 3
    for identifier in identifiers:
        assert execute(identifier, settings, store.database) == Status.SUCCEEDED
        assert Provenance.model_validate(store.get(identifier).provenance).stacked is None


@POSTGRESQL_AT_LENGTH
def test_from_a_checkpoint_that_can_t_be_used_a_member_begins_anew(
    store: Store, settings: Settings, end_at: Callable[..., None]
) -> None:
    identifiers = queue(store, 3)
    end_at(60, WorkerStopping)
    execute(identifiers[0], settings, store.database)
    end_at(None)
    with store.database.write() as connection:
        connection.execute(update(table).where(table.c.experiment_id == identifiers[1]).values(checksum=0))
    execute(identifiers[0], settings, store.database)
    assert statuses(store, identifiers) == [Status.SUCCEEDED] * 3
    for identifier in identifiers:
        assert read_series(store.database, identifier).faults(ITERATIONS) == []
