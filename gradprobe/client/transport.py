"""Requests that their sender repeats by rules of its own: a watched loop's reports."""

from collections.abc import Mapping
from typing import Any

import httpx

from gradprobe.client.retries import Retries
from gradprobe.client.server import Server


class Transport:
    """Connections to one server. Safe to share between threads, as httpx's client is."""

    def __init__(self, url: str | None, timeout: float, api_key: str | None = None) -> None:
        self.server = Server.found(url, timeout, api_key, Retries(number=0))
        self._http = httpx.Client(**self.server.options())

    def post(self, path: str, content: bytes | None, document: Any, headers: Mapping[str, str]) -> httpx.Response:
        """POST JSON, written already (`content`) or not (`document`), once. Raises ServerUnreachable."""
        kind = {"Content-Type": "application/json"} if content is not None else {}
        try:
            return self._http.post(path, content=content, json=document, headers={**kind, **headers})
        except httpx.RequestError as error:
            raise self.server.unreachable(error, self.server.timeout) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
