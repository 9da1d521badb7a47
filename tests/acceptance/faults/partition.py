"""A cable between a worker and PostgreSQL that can be unplugged: bytes on the way are held, or lost with it."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from sqlalchemy.engine import make_url

_SOCKET = ".s.PGSQL.5432"
_BYTES = 65536


class Cable:
    """Listens where a client looks for PostgreSQL's socket, and passes on."""

    def __init__(self, url: str, directory: Path) -> None:
        target = make_url(url)
        self._target = Path(str(target.query["host"])) / _SOCKET
        self.url = target.update_query_dict({"host": str(directory)}).render_as_string(hide_password=False)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / _SOCKET))
        self._listener.listen(32)
        self._plugged_in = threading.Event()
        self._plugged_in.set()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def unplug(self) -> None:
        """Nothing goes through, in either direction; neither side is told."""
        self._plugged_in.clear()

    def plug_in(self, lose: bool = False) -> None:
        """What was sent meanwhile arrives now, late; or with `lose`, every connection is found to be broken."""
        if lose:
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._plugged_in.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                self._ends += [client, server]
                server.connect(str(self._target))
                for source, sink in ((client, server), (server, client)):
                    self._start(self._pass_on, source, sink)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(_BYTES):
                self._plugged_in.wait()
                sink.sendall(part)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits there, which closing does not
        self.plug_in(lose=True)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()
