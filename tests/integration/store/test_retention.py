"""What is deleted because it is old, on both databases; and the command that does it."""

import json

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.engine import make_url

from gradprobe.cli import run
from gradprobe.errors import ExperimentNotFound
from gradprobe.state import Status
from gradprobe.store import idempotency, leases, retention
from gradprobe.store.idempotency import Repetition
from gradprobe.store.tables import blocks, experiments, idempotency_keys, now, tags
from tests.integration.service import measured
from tests.integration.store.plans import plan
from tests.integration.store.transactions import Store

DAY = 86_400.0


def ended(store: Store, days: float, status: Status = Status.SUCCEEDED) -> str:
    """An experiment with a tag and a block that ended so many days ago."""
    made = store.create({"tags": {"a": "b"}, "network": {"depth": 2, "width": 2}})
    claimed = store.claim(made.id)
    assert claimed is not None
    measured.write_statistics(store.database, claimed[0], "weights", range(2))
    store.write(leases.finish, claimed[1], status)
    store.set(made.id, finished_at=now() - days * DAY)
    return made.id


def counts(store: Store) -> list[int]:
    with store.database.read() as connection:
        return [
            connection.scalar(select(func.count()).select_from(table)) or 0 for table in (experiments, tags, blocks)
        ]


def remember(store: Store, key: str, hours: float) -> None:
    store.write(idempotency.remember, Repetition("alice", key, "digest", DAY), "exp_1")
    with store.database.write() as connection:
        mine = idempotency_keys.c.key == key
        connection.execute(update(idempotency_keys).where(mine).values(created_at=now() - hours * 3600))


def test_only_what_ended_long_enough_ago_is_deleted_with_all_it_has(store: Store) -> None:
    old = [ended(store, 31, status) for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)]
    young = ended(store, 29)
    waiting, running = store.create({"tags": {"a": "b"}}).id, store.running().experiment_id
    store.set(waiting, created_at=now() - 99 * DAY)
    store.set(running, created_at=now() - 99 * DAY)

    assert store.read(retention.count_old, 30 * DAY) == 3
    assert store.write(retention.delete_old, 30 * DAY) == 3
    assert store.write(retention.delete_old, 30 * DAY) == 0

    for identifier in old:
        with pytest.raises(ExperimentNotFound):
            store.get(identifier)
    assert {store.get(identifier).id for identifier in (young, waiting, running)} == {young, waiting, running}
    assert counts(store) == [3, 2, 1]


def test_what_is_old_is_looked_up_in_an_index_however_much_there_is(store: Store) -> None:
    looked_up = ("(finished_at<?)", "Index Cond: ((finished_at <")
    for action in (retention.count_old, retention.delete_old):
        _clock, steps = plan(store.database, action, DAY)[:2]
        assert any(part in step for step in steps for part in looked_up), steps
        assert not any("TEMP B-TREE FOR ORDER BY" in step for step in steps), steps
    _clock, steps = plan(store.database, retention.count_forgotten, DAY)
    assert any("(created_at<?)" in step or "Index Cond: (created_at <" in step for step in steps), steps


def test_a_transaction_deletes_a_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(3):
        ended(store, 2)

    assert [store.write(retention.delete_old, DAY) for _ in range(3)] == [2, 1, 0]


def test_requests_are_remembered_for_their_time(store: Store) -> None:
    for key, hours in (("old", 25.0), ("young", 23.0)):
        remember(store, key, hours)

    assert store.read(retention.count_forgotten, DAY) == 1
    assert store.write(retention.delete_forgotten, DAY) == 1
    assert store.write(retention.delete_forgotten, DAY) == 0


def test_the_command_says_what_it_would_do_and_does_it_when_told(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(store.database.url).render_as_string(hide_password=False)
    monkeypatch.setenv("GRADPROBE_DATABASE_URL", url)
    ended(store, 40)
    ended(store, 10)
    remember(store, "old", 25.0)

    assert run(["purge"]) == 0
    assert "GRADPROBE_RETENTION_DAYS" in capsys.readouterr().out
    assert run(["purge", "--older-than", "soon"]) == 2
    monkeypatch.setenv("GRADPROBE_RETENTION_DAYS", "30")

    capsys.readouterr()
    assert run(["purge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"experiments": 1, "idempotency_keys": 1, "deleted": False}
    assert counts(store)[0] == 2
    assert run(["purge", "--older-than", "1w", "--yes"]) == 0
    assert "2 experiments" in capsys.readouterr().out
    assert counts(store) == [0, 0, 0]
    assert run(["purge", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"experiments": 0, "idempotency_keys": 0, "deleted": True}
