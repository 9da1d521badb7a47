"""What ended experiments measured in a real object store: moved, read as before, moved back, removed."""

import json

import httpx
import pytest
from sqlalchemy import func, select, update

from gradprobe.cli import run
from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store.database import Database
from gradprobe.store.tables import experiments, now, objects
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.objects.archived import (
    FEW,
    SPEC,
    answers,
    archive,
    ended,
    everything,
    names,
    stored,
)
from tests.integration.service import measured
from tests.integration.service.serving import serving
from tests.servers import ACCESS_KEY, SECRET_KEY


def test_what_was_moved_is_read_as_before(
    client: httpx.Client,
    database: Database,
    store: ObjectStore,
    service_settings: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    identifier = ended(client, database)
    before, size = answers(client, identifier), stored(database)
    assert size > 100_000

    assert archive("--json") == 0

    assert json.loads(capsys.readouterr().out) == {"experiments": 1, "bytes": size, "removed": 0}
    assert stored(database) == 0
    [name] = names(store)
    assert name.startswith(f"{identifier}/")
    with serving(service_settings) as another:  # that has nothing in its cache
        assert answers(another, identifier) == before
    with serving(service_settings.model_copy(update={"cache_mebibytes": 0})) as another:
        assert answers(another, identifier, FEW) == {path: before[path] for path in FEW}
        etag = before["gradients"][1]
        path = f"/experiments/{identifier}/gradients"
        assert another.get(path, headers={"If-None-Match": etag}).status_code == 304
        compared = another.get(
            "/comparisons", params={"experiments": identifier, "include": "series,histograms,metrics"}
        )
        assert compared.status_code == 200, compared.text
    assert archive("--json") == 0
    assert json.loads(capsys.readouterr().out) == {"experiments": 0, "bytes": 0, "removed": 0}


def test_all_of_it_can_be_moved_back(client: httpx.Client, database: Database, store: ObjectStore) -> None:
    identifier = ended(client, database)
    before = everything(database)
    assert archive() == 0
    assert everything(database) != before

    assert archive("--back") == 0

    assert everything(database) == before
    assert names(store) == set()
    assert archive() == 0
    assert len(names(store)) == 1
    assert client.get(f"/experiments/{identifier}/gradients").status_code == 200


@POSTGRESQL_AT_LENGTH
def test_what_runs_waits_or_may_report_again_stays(client: httpx.Client, database: Database) -> None:
    waiting = client.post("/experiments", json=SPEC).json()["id"]
    running = client.post("/experiments", json=SPEC).json()["id"]
    record, _ = measured.claim(database, running)
    measured.write_statistics(database, record, "weights", range(5))
    lost = ended(client, database, Status.FAILED, steps=5)
    with database.write() as connection:
        connection.execute(update(experiments).where(experiments.c.id == lost).values(source="watched"))
    young = ended(client, database, steps=5)
    before = stored(database)

    assert run(["archive"]) == 0  # what ended an hour ago

    assert stored(database) == before
    assert archive() == 0
    with database.read() as connection:
        found = dict(connection.execute(select(experiments.c.id, experiments.c.object)).all())
    assert (found[waiting], found[running], found[lost]) == (None, None, None)
    assert found[young] is not None


def test_deleting_and_purging_remove_the_object(client: httpx.Client, database: Database, store: ObjectStore) -> None:
    deleted, purged, kept = (ended(client, database, steps=5) for _ in range(3))
    assert archive() == 0
    assert len(names(store)) == 3

    assert client.delete(f"/experiments/{deleted}").status_code == 204
    assert archive() == 0
    assert {name.partition("/")[0] for name in names(store)} == {purged, kept}

    with database.write() as connection:
        long_ago = now() - 40 * 86_400.0
        connection.execute(update(experiments).where(experiments.c.id == purged).values(finished_at=long_ago))
    assert run(["purge", "--older-than", "30d", "--yes"]) == 0
    assert {name.partition("/")[0] for name in names(store)} == {kept}
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(objects)) == 1


def test_what_is_tried_again_begins_empty(client: httpx.Client, database: Database, store: ObjectStore) -> None:
    identifier = ended(client, database, Status.FAILED, steps=5)
    assert archive() == 0

    assert client.post(f"/experiments/{identifier}/retry").status_code == 202
    assert archive() == 0

    assert names(store) == set()
    record, lease = measured.claim(database, identifier)
    measured.write_statistics(database, record, "weights", range(3))
    measured.finish(database, lease)
    before = client.get(f"/experiments/{identifier}/gradients").json()
    assert archive() == 0
    assert len(names(store)) == 1
    assert client.get(f"/experiments/{identifier}/gradients").json() == before


@POSTGRESQL_AT_LENGTH
def test_a_service_that_was_not_told_of_the_store_says_so(
    client: httpx.Client, database: Database, service_settings: Settings
) -> None:
    identifier = ended(client, database, steps=5)
    assert archive() == 0
    with serving(service_settings.model_copy(update={"object_store": ""})) as served:
        answer = served.get(f"/experiments/{identifier}/gradients")
        assert (answer.status_code, answer.json()["code"]) == (503, "OBJECT_STORE_UNAVAILABLE")
        assert "GRADPROBE_OBJECT_STORE" in answer.json()["detail"]


@POSTGRESQL_AT_LENGTH
def test_the_usual_variables_say_who_asks(
    client: httpx.Client, database: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(client, database, steps=5)
    for name in ("ACCESS_KEY", "SECRET_KEY"):
        monkeypatch.delenv(f"GRADPROBE_OBJECT_STORE_{name}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert archive() == 0
    assert len(names(store)) == 1


@POSTGRESQL_AT_LENGTH
def test_without_a_store_or_with_options_that_exclude_each_other_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert archive("--check", "--back") == 2
    assert archive("--yes") == 2
    monkeypatch.delenv("GRADPROBE_OBJECT_STORE")
    capsys.readouterr()
    assert archive() == 2
    assert "set GRADPROBE_OBJECT_STORE=s3://BUCKET/PREFIX" in capsys.readouterr().err
