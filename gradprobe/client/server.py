"""Where a server is, with which key, and how patient its caller is."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from gradprobe.client.errors import ServerUnreachable, UnusableKey
from gradprobe.client.retries import Retries

DEFAULT_URL = "http://127.0.0.1:8000"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Server:
    """One server, and `timeout`: seconds to wait for one answer, repetitions included."""

    url: str
    timeout: float
    retries: Retries
    key: str | None = field(repr=False)

    @classmethod
    def found(cls, url: str | None, timeout: float, api_key: str | None, retries: Retries) -> Self:
        """What was given, else what the environment says.

        Raises:
            ServerUnreachable: that is no URL.
            UnusableKey: that is no key, or its file can't be read.
        """
        chosen = (url or os.environ.get("GRADPROBE_URL") or DEFAULT_URL).rstrip("/")
        key = _key(api_key)
        try:
            parsed = httpx.URL(chosen)
        except httpx.InvalidURL as error:
            raise ServerUnreachable(f"{chosen!r} is not a URL ({error}); give one like {DEFAULT_URL}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ServerUnreachable(f"{chosen!r} is not an http(s) URL; give one like {DEFAULT_URL}")
        return cls(chosen, timeout, retries, key)

    def options(self) -> dict[str, Any]:
        """What httpx's clients, of either kind, are made with."""
        return {
            "base_url": self.url,
            "timeout": self.timeout,
            "headers": {"Accept": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {}),
            # A proxy from the environment can't reach this machine's loopback.
            "trust_env": httpx.URL(self.url).host not in _LOOPBACK,
        }

    def unreachable(self, error: httpx.RequestError, seconds: float) -> ServerUnreachable:
        """The error to raise where no answer came."""
        if isinstance(error, httpx.TimeoutException):
            return ServerUnreachable(
                f"{self.url} did not answer within {seconds:g} s; see whether {self.url}/readyz answers, "
                "or allow a longer timeout"
            )
        return ServerUnreachable(
            f"No server answers at {self.url} ({_reason(error)}); start one with `gradprobe up`, "
            "or say where one runs with --url, url=… or GRADPROBE_URL"
        )

    def gone(self, error: httpx.RequestError) -> ServerUnreachable:
        """The error to raise where an answer broke off."""
        return ServerUnreachable(f"{self.url} is gone ({_reason(error)}); see whether it still runs")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _key(given: str | None) -> str | None:
    """The key to send: the one given ("": none), `$GRADPROBE_API_KEY`, or what `$GRADPROBE_API_KEY_FILE` holds."""
    key = os.environ.get("GRADPROBE_API_KEY") if given is None else given
    file = os.environ.get("GRADPROBE_API_KEY_FILE")
    if given is None and not key and file:
        try:
            key = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnusableKey(f"The key's file can't be read: {error}") from error
    key = (key or "").strip()
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise UnusableKey
    return key or None
