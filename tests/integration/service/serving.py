"""The service behind a real socket: an answer that leaves too early can be seen only there."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from gradprobe.settings import Settings
from service.app import create_app


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server of its own, which is stopped afterwards."""
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, ws="none", timeout_keep_alive=60))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server ended while it started"
                time.sleep(0.01)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            # Reading the certificates that httpx trusts would cost each of a thousand tests 20 ms.
            with httpx.Client(base_url=url, timeout=60, verify=False) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def environment_of(settings: Settings) -> dict[str, str]:
    """What a server as a process of its own reads these settings from."""
    return {
        "PATH": os.environ["PATH"],
        "GRADPROBE_DATABASE_URL": settings.database_url,
        "GRADPROBE_REDIS_URL": settings.redis_url,
        "GRADPROBE_DATA_DIRECTORY": str(settings.data_directory),
    }
