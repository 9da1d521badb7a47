"""An archive that is killed, paused or not alone; objects that are damaged, lost or strange; a store that is away."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from gradprobe import archiving
from gradprobe.cli import run
from gradprobe.objects import ObjectStore
from gradprobe.settings import Settings
from gradprobe.store import objects as rows
from gradprobe.store.database import Database
from gradprobe.store.tables import experiments, objects
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.objects.archived import (
    FEW,
    answers,
    archive,
    ended,
    everything,
    names,
    stored,
)
from tests.integration.service.serving import serving

KILLED = """
import os, signal, sys
from gradprobe import archiving
from gradprobe.cli import run

def killing(action, afterwards):
    def act(*arguments):
        if afterwards:
            action(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
    return act

where, name, afterwards = sys.argv[1:]
place = {"store": archiving.ObjectStore, "rows": archiving.rows}[where]
setattr(place, name, killing(getattr(place, name), afterwards == "after"))
run(["archive", "--older-than", "0h"])
"""


@POSTGRESQL_AT_LENGTH
@pytest.mark.parametrize(
    ("moment", "left"),
    [
        (("store", "put", "before"), 0),
        (("store", "put", "after"), 1),
        (("rows", "move_out", "before"), 1),
        (("rows", "move_out", "after"), 1),  # before it is committed
    ],
    ids=["before the object", "after the object", "before the rows", "before the commit"],
)
def test_a_kill_loses_nothing_and_what_it_left_is_removed(
    client: httpx.Client,
    database: Database,
    store: ObjectStore,
    service_settings: Settings,
    moment: tuple[str, str, str],
    left: int,
) -> None:
    identifier = ended(client, database, steps=300)
    before, rows_before = answers(client, identifier, FEW), everything(database)

    killed = subprocess.run([sys.executable, "-c", KILLED, *moment], check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    assert len(names(store)) == left
    assert everything(database) == rows_before

    assert archive() == 0
    assert len(names(store)) == left + 1  # what may be on its way stays for an hour
    with database.write() as connection:
        connection.execute(update(objects).values(condemned_at=objects.c.condemned_at - rows.UNDER_WAY_SECONDS))
    assert archive() == 0
    assert len(names(store)) == 1
    assert stored(database) == 0
    with serving(service_settings) as another:
        assert answers(another, identifier, FEW) == before


@POSTGRESQL_AT_LENGTH
def test_one_that_was_paused_for_an_hour_moves_nothing(
    client: httpx.Client, database: Database, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its object may have been removed meanwhile."""
    ended(client, database, steps=5)
    before = everything(database)
    monkeypatch.setattr(rows, "UNDER_WAY_SECONDS", -1.0)
    assert archive() == 0
    assert everything(database) == before
    assert names(store) == set()


def test_several_at_once_move_each_experiment_once(
    client: httpx.Client, database: Database, store: ObjectStore
) -> None:
    identifiers = {ended(client, database, steps=5) for _ in range(6)}

    def move() -> list[str]:
        return [moved.experiment_id for moved in archiving.move_all(database, store, 0.0)]

    with ThreadPoolExecutor(3) as threads:
        told = [threads.submit(move) for _ in range(3)]
        moved = [identifier for future in told for identifier in future.result()]
    assert sorted(moved) == sorted(identifiers)
    with database.write() as connection:
        connection.execute(update(objects).values(condemned_at=objects.c.condemned_at - rows.UNDER_WAY_SECONDS))
    archiving.remove_condemned(database, store)
    assert {name.partition("/")[0] for name in names(store)} == identifiers
    assert len(names(store)) == 6


@POSTGRESQL_AT_LENGTH
def test_damage_is_told_and_what_is_lost_is_found(
    client: httpx.Client, database: Database, store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = ended(client, database, steps=300)
    assert archive() == 0
    [name] = names(store)
    path = f"/experiments/{identifier}/gradients"
    content = b"\0" * 10_000_000
    store.put(name, BytesIO(content))
    assert (client.get(path).status_code, client.get(path).json()["code"]) == (500, "CORRUPT_BLOCK")

    store.remove([name])
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (503, "OBJECT_STORE_UNAVAILABLE")
    assert "archive --check" in answer.json()["detail"]
    assert client.get(f"/experiments/{identifier}").status_code == 200
    capsys.readouterr()
    assert archive("--check") == 1
    assert f"1 objects are missing: {name}" in capsys.readouterr().out


def test_objects_that_nothing_knows_are_found_and_removed(
    client: httpx.Client,
    database: Database,
    store: ObjectStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a database that was restored, or of an older release that deleted without knowing of objects."""
    kept, forgotten = ended(client, database, steps=5), ended(client, database, steps=5)
    assert archive() == 0
    store.put("exp_0/of-another-time", BytesIO(b"x"))
    with database.write() as connection:
        connection.execute(experiments.delete().where(experiments.c.id == forgotten))

    def compared(*arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        assert archive("--check", "--json", *arguments) == 0
        return dict(json.loads(capsys.readouterr().out))

    assert compared() == {"missing": [], "strangers": [], "deleted": False}  # it may be on its way
    monkeypatch.setattr(rows, "UNDER_WAY_SECONDS", -5.0)
    assert compared("--yes") == {"missing": [], "strangers": ["exp_0/of-another-time"], "deleted": True}
    assert archive() == 0
    assert {name.partition("/")[0] for name in names(store)} == {kept}


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator["Server"]:
    server = Server(tmp_path / "objects")
    yield server
    server.stop()


class Server:
    """A server that can be stopped, and started again with what it holds."""

    def __init__(self, directory: Path) -> None:
        from tests import servers  # noqa: PLC0415 - here alone

        directory.mkdir()
        self._started = servers.s3(directory)
        self.address = self._started.__enter__()

    def stop(self) -> None:
        if self._started is not None:
            self._started.__exit__(None, None, None)
        self._started = None


@POSTGRESQL_AT_LENGTH
def test_a_store_that_is_away_costs_what_is_in_it_and_nothing_else(
    client: httpx.Client,
    database: Database,
    service_settings: Settings,
    own_server: "Server",
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRADPROBE_OBJECT_STORE_ENDPOINT", own_server.address)
    moved = ended(client, database, steps=300)
    assert archive() == 0
    here = ended(client, database, steps=300)
    with serving(service_settings.model_copy(update={"object_store_endpoint": own_server.address})) as served:
        assert served.get(f"/experiments/{moved}/metrics").status_code == 200
        own_server.stop()
        for path in ("gradients", "gradients/histograms", "export?format=csv", "diagnosis"):
            answer = served.get(f"/experiments/{moved}/{path}")
            assert answer.status_code == 503, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "OBJECT_STORE_UNAVAILABLE"
            assert int(answer.headers["Retry-After"]) > 0
        assert answers(served, here, FEW)
        assert served.get(f"/experiments/{moved}").json()["status"] == "succeeded"
        assert served.get("/experiments").status_code == 200
        assert served.get("/readyz").status_code == 200
        with served.stream("GET", f"/experiments/{moved}/events"):
            events = served.get(f"/experiments/{here}/events").text  # that ends, beside one that waits
            assert "event: end" in events, events[-500:]
        assert archive() == 1
        assert stored(database) > 0
        assert run(["purge", "--older-than", "1y", "--yes"]) == 0


@POSTGRESQL_AT_LENGTH
def test_a_key_that_is_not_let_in_is_told_to_the_operator(
    client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended(client, database, steps=5)
    monkeypatch.setenv("GRADPROBE_OBJECT_STORE_SECRET_KEY", "another")
    before = stored(database)
    assert archive() == 1
    assert "OBJECT_STORE_UNAVAILABLE" in capsys.readouterr().err
    assert stored(database) == before
