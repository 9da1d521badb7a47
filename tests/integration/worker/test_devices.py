"""Stacks on more than one kind of device, as far as one without a GPU can show it, against the real databases."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from benchmarks.chaos.series import read_series
from gradprobe.errors import WorkerStopping
from gradprobe.resources import Provenance
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import leases
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.store.transactions import Store
from tests.integration.worker.company import ITERATIONS, document, queue, statuses
from tests.numerics.replay import small_dataset
from worker import company as module
from worker.attempt import Attempt, DeviceLost
from worker.company import device_for
from worker.execute import execute
from worker.stack.device.data import on_device
from worker.stack.lane import packed

pytestmark = pytest.mark.usefixtures("few_images")


@pytest.fixture
def for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack that GPUs have, on the CPU."""
    monkeypatch.setattr(module, "_data", on_device)


@POSTGRESQL_AT_LENGTH
@pytest.mark.usefixtures("for_gpus")
def test_the_stack_of_gpus_is_to_the_store_what_the_other_is(
    store: Store, settings: Settings, end_at: Callable[..., None]
) -> None:
    identifiers = queue(store, 3)
    end_at(60, WorkerStopping)
    execute(identifiers[0], settings, store.database)
    assert statuses(store, identifiers) == [Status.QUEUED] * 3
    end_at(None)
    execute(identifiers[1], settings, store.database)
    assert statuses(store, identifiers) == [Status.SUCCEEDED] * 3
    others = queue(store, 3)
    execute(others[0], settings, store.database)
    for identifier, other in zip(identifiers, others, strict=True):
        found = read_series(store.database, identifier)
        assert found.faults(ITERATIONS) == []
        assert found.differences(read_series(store.database, other)) == []
        assert Provenance.model_validate(store.get(identifier).provenance).stacked == 3


@POSTGRESQL_AT_LENGTH
def test_what_began_on_the_cpu_goes_on_there_on_a_worker_with_a_gpu(
    store: Store, settings: Settings, end_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = queue(store, 3)
    execute(undisturbed[0], settings, store.database)
    identifiers = queue(store, 3)
    end_at(60, WorkerStopping)
    execute(identifiers[0], settings, store.database)
    end_at(None)
    begun, new = store.get(identifiers[0]), store.create(document(7))
    monkeypatch.setattr(module, "device_of", lambda _: torch.device("cuda"))
    assert (device_for(begun).type, device_for(new).type) == ("cpu", "cuda")
    execute(identifiers[0], settings, store.database)
    assert statuses(store, [*identifiers, new.id]) == [Status.SUCCEEDED] * 4
    for identifier, other in zip(identifiers, undisturbed, strict=True):
        assert read_series(store.database, identifier).differences(read_series(store.database, other)) == []


@POSTGRESQL_AT_LENGTH
@pytest.mark.usefixtures("for_gpus")
def test_one_that_began_on_another_kind_of_device_waits_for_its_turn(
    store: Store, settings: Settings, end_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with a GPU takes it along with one that is new, sees where it began, and gives it back."""
    begun = store.create(document(1), attempts=50).id
    other = store.create(document(2), attempts=50).id
    end_at(60, WorkerStopping)
    execute(begun, settings, store.database)
    end_at(None)
    new = store.create(document(3), attempts=50).id
    kinds = {begun: "cpu", other: "cpu", new: "meta"}
    monkeypatch.setattr(module, "device_for", lambda record: torch.device(kinds[record.id]))
    lanes: list[str] = []
    monkeypatch.setattr(module, "train_stack", lambda found, *_: lanes.extend(lane.identifier for lane in found))
    with store.database.write() as connection:
        taken = [leases.claim(connection, one, "worker", 60.0) for one in (new, begun, other)]
    attempts = [Attempt(*found, settings, store.database, stacked=True) for found in taken if found is not None]
    module.train_together(attempts, lambda *_: small_dataset())
    assert lanes == [new]
    assert statuses(store, [begun, other]) == [Status.QUEUED] * 2
    assert all(store.get(one).iteration for one in (begun, other))


@POSTGRESQL_AT_LENGTH
def test_a_device_that_is_lost_ends_the_worker_and_no_experiment(
    store: Store, settings: Settings, end_at: Callable[..., None]
) -> None:
    identifiers = queue(store, 3)
    end_at(60, torch.AcceleratorError)
    with pytest.raises(DeviceLost):
        execute(identifiers[0], settings, store.database)
    assert statuses(store, identifiers) == [Status.RUNNING] * 3
    for identifier in identifiers:
        store.lose_worker(identifier)
    store.write(leases.recover)
    assert all(store.column(identifier, "stack_key") for identifier in identifiers)
    end_at(None)
    execute(identifiers[0], settings, store.database)
    assert statuses(store, identifiers) == [Status.SUCCEEDED] * 3
    for identifier in identifiers:
        assert read_series(store.database, identifier).faults(ITERATIONS) == []


@POSTGRESQL_AT_LENGTH
def test_what_was_saved_on_another_kind_of_device_begins_anew(
    store: Store, settings: Settings, end_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    identifiers = queue(store, 2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("worker.stack.stack.packed", partial(packed, device="cuda"))
        end_at(60, WorkerStopping)
        execute(identifiers[0], settings, store.database)
    end_at(None)
    execute(identifiers[0], settings, store.database)
    assert statuses(store, identifiers) == [Status.SUCCEEDED] * 2
    undisturbed = queue(store, 2)
    execute(undisturbed[0], settings, store.database)
    for identifier, other in zip(identifiers, undisturbed, strict=True):
        assert read_series(store.database, identifier).differences(read_series(store.database, other)) == []
