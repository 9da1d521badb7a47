"""A copy of a SQLite database that is in use. PostgreSQL brings its own: docs/operations.md says how."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL

from gradprobe.errors import BackupFailed


def back_up(url: URL, destination: Path) -> int:
    """Copy the database to a new file while it is being written to, and return the copy's size in bytes.

    The copy holds one state, that of its end: pages written meanwhile are copied again (SQLite's online backup).

    Raises:
        BackupFailed: it is no SQLite database, there is none, or the copy can't be written or is not whole.
    """
    if url.get_backend_name() != "sqlite" or not url.database:
        raise BackupFailed(
            "Only a SQLite database is copied like this; for PostgreSQL use pg_dump, see docs/operations.md."
        )
    if not Path(url.database).is_file():
        raise BackupFailed(f"There is no database at {url.database}; nothing was copied.")
    if destination.exists():
        raise BackupFailed(f"{destination} exists already; name a file that does not.")
    try:
        with (
            closing(sqlite3.connect(f"file:{url.database}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(destination)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole by itself
            [fault] = copy.execute("PRAGMA quick_check(1)").fetchone()
    except (sqlite3.Error, OSError) as error:
        destination.unlink(missing_ok=True)
        raise BackupFailed(f"The copy to {destination} failed ({error}); there may be no room there.") from error
    if fault != "ok":
        destination.unlink(missing_ok=True)
        raise BackupFailed(f"The database is damaged ({fault}); restore it from an earlier copy.")
    return destination.stat().st_size
