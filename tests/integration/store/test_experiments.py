"""What a user does to an experiment: create, read, change, cancel, retry, delete."""

import json
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import ExperimentNotEnded, ExperimentNotFound, ExperimentRunning
from gradprobe.spec import SCHEMA_VERSION, Spec
from gradprobe.state import Status
from gradprobe.store import experiments, leases, series
from gradprobe.store.tables import blocks, tags
from tests.integration.store.transactions import Store

DOCUMENT: dict[str, Any] = {
    "name": "Ärger mit „σ“ 🙂",
    "tags": {"course": "dl-101", "a/b.c-d_e": "50 % of 'it' \\ \"all\""},
    "network": {"depth": 3, "width": 16, "activation": "tanh"},
    "training": {"iterations": 40, "batch_size": 7, "seed": 2**63 - 1, "device": "cuda"},
    "queue": {"priority": 4},
}


def block_of(steps: int) -> StatisticsBlock:
    return StatisticsBlock(np.arange(steps), np.zeros((7, 3, steps), np.float32))


def rows_of(store: Store, identifier: str) -> tuple[int, int]:
    """How many (tags, blocks) an experiment has."""
    with store.database.read() as connection:
        counts = [
            connection.scalar(select(func.count()).where(table.c.experiment_id == identifier))
            for table in (tags, blocks)
        ]
    return counts[0] or 0, counts[1] or 0


def ended(store: Store, status: Status) -> str:
    """An experiment that a worker brought to its end."""
    lease = store.running()
    if status == Status.CANCELLED:
        store.write(experiments.request_cancel, lease.experiment_id)
    store.write(leases.finish, lease, status, error={"code": "X", "message": "y"})
    return lease.experiment_id


def test_what_is_created_is_read_back_whole(store: Store) -> None:
    before = store.clock()
    created = store.create(DOCUMENT)
    assert store.get(created.id) == created
    assert created.spec == json.loads(Spec.model_validate(DOCUMENT).model_dump_json())
    assert created.name == DOCUMENT["name"]
    assert created.tags == DOCUMENT["tags"]
    assert (created.status, created.attempt, created.row_version) == (Status.QUEUED, 0, 1)
    assert (created.iteration, created.iterations, created.queue, created.priority) == (0, 40, "gpu", 4)
    assert [layer.name for layer in created.layers] == ["layer1", "layer2", "layer3"]
    assert [layer.weight_shape for layer in created.layers] == [(16, 784), (16, 16), (10, 16)]
    assert [layer.output_shape for layer in created.layers] == [(7, 16), (7, 16), (7, 10)]
    assert before - 0.01 <= created.created_at <= store.clock() + 0.01
    unset = (created.started_at, created.finished_at, created.result, created.error, created.verdict)
    assert unset == (None,) * 5
    assert store.column(created.id, "schema_version") == SCHEMA_VERSION


@pytest.mark.parametrize(("device", "queue"), [("auto", "any"), ("cpu", "cpu"), ("cuda", "gpu")])
def test_the_device_chooses_the_queue(store: Store, device: str, queue: str) -> None:
    assert store.create({"training": {"device": device}}).queue == queue


def test_the_request_is_remembered(store: Store) -> None:
    created = store.write(experiments.create, Spec(), 3, request_id="req-1")
    assert store.get(created.id).request_id == "req-1"


@pytest.mark.parametrize("identifier", ["exp_" + 26 * "0", "", "exp_", "' OR 1=1 --", "exp_\0", "x" * 5000, "é"])
def test_an_experiment_that_is_not_there(store: Store, identifier: str) -> None:
    store.create()
    for action in (experiments.get, experiments.remove, experiments.request_cancel):
        with pytest.raises(ExperimentNotFound, match="GET /experiments"):
            store.write(action, identifier)
    with pytest.raises(ExperimentNotFound):
        store.write(experiments.change, identifier, {"name": "x"})
    with pytest.raises(ExperimentNotFound):
        store.write(experiments.retry, identifier, 3)


def test_a_change_sets_what_is_named_and_leaves_the_rest(store: Store) -> None:
    created = store.create(DOCUMENT)
    changed = store.write(experiments.change, created.id, {"notes": "line\nline"})
    assert (changed.name, changed.notes, changed.tags) == (created.name, "line\nline", created.tags)
    assert changed.row_version > created.row_version
    renamed = store.write(experiments.change, created.id, {"name": None, "tags": {"new": ""}})
    assert (renamed.name, renamed.notes, renamed.tags) == (None, "line\nline", {"new": ""})
    assert store.write(experiments.change, created.id, {"tags": {}}).tags == {}
    assert store.get(created.id).spec == created.spec


def test_a_change_can_not_touch_the_state(store: Store) -> None:
    created = store.create()
    changed = store.write(experiments.change, created.id, {"status": "succeeded", "attempt": 9})
    assert (changed.status, changed.attempt) == (Status.QUEUED, 0)


def test_cancelling_what_waits_ends_it_at_once(store: Store) -> None:
    record, active = store.write(experiments.request_cancel, store.create().id)
    assert (record.status, active) == (Status.CANCELLED, True)
    assert record.finished_at is not None
    assert store.claim(record.id) is None


def test_cancelling_what_runs_asks_its_worker(store: Store) -> None:
    lease = store.running()
    record, active = store.write(experiments.request_cancel, lease.experiment_id)
    assert (record.status, active) == (Status.RUNNING, True)
    assert store.write(leases.renew, lease) is True
    again, _ = store.write(experiments.request_cancel, lease.experiment_id)
    assert again.row_version == record.row_version


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_cancelling_what_ended_changes_nothing(store: Store, status: Status) -> None:
    before = store.get(ended(store, status))
    assert store.write(experiments.request_cancel, before.id) == (before, False)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_retry_starts_afresh(store: Store, status: Status) -> None:
    identifier = ended(store, status)
    store.write(series.write, identifier, "weights", block_of(5))
    record = store.write(experiments.retry, identifier, 2)
    assert (record.status, record.iteration, record.attempt) == (Status.QUEUED, 0, 1)
    assert (record.started_at, record.finished_at, record.error, record.result) == (None,) * 4
    assert rows_of(store, identifier) == (0, 0)
    assert [waiting.id for waiting in store.read(experiments.waiting, 30.0)] == [identifier]

    for attempt in (2, 3):  # as many more as the retry allows
        claimed = store.claim(identifier)
        assert claimed is not None
        assert claimed[1].attempt == attempt
        assert store.write(leases.renew, claimed[1]) is False  # a cancel request of before is forgotten
        store.lose_worker(identifier)
    assert store.claim(identifier) is None


def test_only_what_failed_or_was_cancelled_can_be_tried_again(store: Store) -> None:
    reasons = ("waits for a worker already", "cancel it first", "succeeded, .* submit its spec as a new experiment")
    identifiers = (store.create().id, store.running().experiment_id, ended(store, Status.SUCCEEDED))
    for identifier, reason in zip(identifiers, reasons, strict=True):
        before = store.get(identifier)
        with pytest.raises(ExperimentNotEnded, match=reason):
            store.write(experiments.retry, identifier, 3)
        assert store.get(identifier) == before


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_deleting_takes_everything_along(store: Store, status: Status) -> None:
    identifier, other = ended(store, status), store.create(DOCUMENT).id
    store.write(experiments.change, identifier, {"tags": {"a": "b"}})
    for owner in (identifier, other):
        store.write(series.write, owner, "weights", block_of(5))
    assert rows_of(store, identifier) == (1, 1)
    store.write(experiments.remove, identifier)
    assert rows_of(store, identifier) == (0, 0)
    assert rows_of(store, other) == (2, 1)
    with pytest.raises(ExperimentNotFound):
        store.get(identifier)


def test_deleting_what_waits(store: Store) -> None:
    identifier = store.create().id
    store.write(experiments.remove, identifier)
    assert store.claim(identifier) is None


def test_what_runs_is_not_deleted(store: Store) -> None:
    lease = store.running()
    with pytest.raises(ExperimentRunning, match="cancel it first"):
        store.write(experiments.remove, lease.experiment_id)
    assert store.get(lease.experiment_id).status == Status.RUNNING


def test_what_waits_for_a_message(store: Store) -> None:
    plain, urgent, sent = store.create().id, store.create({"queue": {"priority": 9}}).id, store.create().id
    store.running()
    store.write(experiments.request_cancel, store.create().id)
    store.write(experiments.mark_sent, sent)
    assert [record.id for record in store.read(experiments.waiting, 30.0)] == [urgent, plain]
    store.set(sent, message_sent_at=store.clock() - 31.0)
    assert [record.id for record in store.read(experiments.waiting, 30.0)] == [urgent, plain, sent]
    assert [record.id for record in store.read(experiments.waiting, 30.0, limit=1)] == [urgent]
