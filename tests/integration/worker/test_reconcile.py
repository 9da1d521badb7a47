"""The reconciler brings database and broker in step, with a real broker."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gradprobe.queue import Doorbell, celery_app
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import experiments, names
from gradprobe.store.tables import now
from tests.integration.store.transactions import Store
from tests.processes import eventually
from worker.reconcile import Reconciler

ON_CPU = {"training": {"device": "cpu"}}


@pytest.fixture
def settings(redis_url: str, database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        redis_url=redis_url,
        database_url=database_url,
        data_directory=tmp_path,
        reconcile_seconds=0.1,
        liveness_file=tmp_path / "alive",
    )


@pytest.fixture
def make(settings: Settings) -> Iterator[Callable[..., Reconciler]]:
    """Reconcilers that are stopped after the test."""
    made: list[Reconciler] = []

    def build(**changes: str) -> Reconciler:
        made.append(Reconciler(settings.model_copy(update=changes)))
        return made[-1]

    yield build
    for reconciler in made:
        reconciler.stop()


@pytest.fixture
def reconciler(make: Callable[..., Reconciler]) -> Reconciler:
    return make()


def messages(settings: Settings, queue: str) -> list[list[str]]:
    """The arguments of all messages in a queue, which is empty afterwards."""
    found = []
    with celery_app(settings).connection_for_read() as connection:
        while (message := connection.default_channel.basic_get(queue, no_ack=True)) is not None:
            arguments, _, _ = message.decode()
            found.append(arguments)
    return found


def test_what_waits_without_a_message_is_rung_for_once(
    store: Store, settings: Settings, reconciler: Reconciler
) -> None:
    plain, on_cpu = store.create().id, store.create(ON_CPU).id
    assert sorted(reconciler.once()) == sorted([plain, on_cpu])
    assert reconciler.once() == []
    assert messages(settings, "any") == [[plain]]
    assert messages(settings, "cpu") == [[on_cpu]]
    assert abs(store.column(plain, "message_sent_at") - store.clock()) < 5


def test_names_that_a_service_of_an_older_release_wrote_are_taken_in(store: Store, reconciler: Reconciler) -> None:
    identifier = store.create().id
    store.set(identifier, name="Old", folded_name="old")
    reconciler.once()
    assert store.column(identifier, "searched_name") == "old"
    assert store.write(names.mend, 1) == 0


def test_the_most_urgent_is_rung_for_first(store: Store, reconciler: Reconciler) -> None:
    identifiers = {priority: store.create({"queue": {"priority": priority}}).id for priority in (0, 9, 5)}
    assert reconciler.once() == [identifiers[9], identifiers[5], identifiers[0]]


def test_a_message_that_was_lost_is_sent_again(store: Store, settings: Settings, reconciler: Reconciler) -> None:
    identifier = store.create().id
    assert reconciler.once() == [identifier]
    assert messages(settings, "any") == [[identifier]]
    assert reconciler.once() == []
    store.set(identifier, message_sent_at=now() - settings.resend_seconds - 1)
    assert reconciler.once() == [identifier]


def test_a_queue_that_still_holds_messages_is_left_alone(
    store: Store, settings: Settings, reconciler: Reconciler
) -> None:
    identifier = store.create().id
    reconciler.once()
    store.set(identifier, message_sent_at=now() - 3600)
    later, on_cpu = store.create().id, store.create(ON_CPU).id
    assert reconciler.once() == [on_cpu]
    assert Doorbell(settings).depth("any") == 1
    messages(settings, "any")
    assert reconciler.once() == [identifier, later]


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_only_what_is_queued_is_rung_for(status: Status, store: Store, reconciler: Reconciler) -> None:
    identifier = store.create().id
    store.set(identifier, status=status)
    assert reconciler.once() == []
    assert store.get(identifier).status == status


def test_what_lost_its_worker_is_queued_again_and_rung_for(
    store: Store, settings: Settings, reconciler: Reconciler
) -> None:
    lease, healthy = store.running(), store.running()
    store.set(lease.experiment_id, message_sent_at=now())
    store.lose_worker(lease.experiment_id)
    assert reconciler.once() == [lease.experiment_id]
    assert store.get(lease.experiment_id).status == Status.QUEUED
    assert store.get(healthy.experiment_id).status == Status.RUNNING
    assert messages(settings, "any") == [[lease.experiment_id]]


def test_what_lost_its_last_worker_has_failed(store: Store, reconciler: Reconciler) -> None:
    lease = store.running(attempts=1)
    store.lose_worker(lease.experiment_id)
    assert reconciler.once() == []
    record = store.get(lease.experiment_id)
    assert record.status == Status.FAILED
    assert record.error is not None
    assert record.error["code"] == "WORKER_LOST"


def test_what_was_to_be_cancelled_when_its_worker_was_lost_is_cancelled(store: Store, reconciler: Reconciler) -> None:
    lease = store.running()
    store.write(experiments.request_cancel, lease.experiment_id)
    store.lose_worker(lease.experiment_id)
    assert reconciler.once() == []
    assert store.get(lease.experiment_id).status == Status.CANCELLED


def test_with_the_broker_away_it_waits(store: Store, make: Callable[..., Reconciler]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    identifier = store.create().id
    lease = store.running()
    store.lose_worker(lease.experiment_id)
    assert make(redis_url=f"redis://127.0.0.1:{port}/0").once() == []
    assert store.column(identifier, "message_sent_at") is None
    assert store.get(lease.experiment_id).status == Status.QUEUED
    assert sorted(make().once()) == sorted([identifier, lease.experiment_id])


def test_its_thread_goes_on_round_after_round(store: Store, settings: Settings, reconciler: Reconciler) -> None:
    assert settings.liveness_file is not None
    reconciler.start()
    for _ in range(2):
        identifier = store.create().id
        eventually(lambda: Doorbell(settings).depth("any") == 1)
        assert messages(settings, "any") == [[identifier]]
    assert settings.liveness_file.exists()
    reconciler.stop()
    identifier = store.create().id
    assert store.column(identifier, "message_sent_at") is None
