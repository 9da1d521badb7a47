"""The prepared server as a fixture."""

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from tests.unit.gradprobe.prepared import PreparedServer, handler


@pytest.fixture
def server() -> Iterator[PreparedServer]:
    """A server on a free port of the loopback interface, with nothing prepared."""
    prepared = PreparedServer()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(prepared)) as listener:
        listener.daemon_threads = True
        prepared.url = f"http://127.0.0.1:{listener.server_address[1]}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield prepared
        listener.shutdown()
        thread.join()
