"""One HTTP request to one document, and every way that can fail as one of this package's errors."""

import itertools
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx
from pydantic import BaseModel, ValidationError

from gradprobe.client.errors import ProblemError, ServerUnreachable, UnexpectedAnswer, UnusableKey
from gradprobe.client.retries import PERHAPS_DONE, REFUSED_FOR_NOW, Retries, may_pass, nothing_was_sent
from gradprobe.resources import Problem

DEFAULT_URL = "http://127.0.0.1:8000"
_EXCERPT = 120
_LONGEST_SILENCE = 90.0  # seconds; a server breaks a stream's silence at least every 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATIENT = Retries()

Document = TypeVar("Document", bound=BaseModel)
Parameters = Mapping[str, str | int | float | None]


class Request(TypedDict, total=False):
    """What a request may carry besides its path; `patience` is seconds more than the timeout.

    `repeatable`: whether sending it twice does what once does; by default true of every method but POST.
    """

    parameters: Parameters
    body: Any
    headers: Mapping[str, str]
    patience: float
    repeatable: bool


class Transport:
    """Connections to one server. Safe to share between threads, as httpx's client is."""

    def __init__(
        self, url: str | None, timeout: float, api_key: str | None = None, retries: Retries = _PATIENT
    ) -> None:
        self.url = (url or os.environ.get("GRADPROBE_URL") or DEFAULT_URL).rstrip("/")
        self.timeout = timeout
        self.retries = retries
        key = _key(api_key)
        try:
            parsed = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ServerUnreachable(f"{self.url!r} is not a URL ({error}); give one like {DEFAULT_URL}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ServerUnreachable(f"{self.url!r} is not an http(s) URL; give one like {DEFAULT_URL}")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            headers={"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            trust_env=parsed.host not in _LOOPBACK,  # a proxy from the environment can't reach this machine's loopback
        )

    def read(
        self, document: type[Document], path: str, parameters: Parameters | None = None, patience: float = 0.0
    ) -> Document:
        """GET one document. `patience`: seconds that the server may hold the answer back."""
        return parse(document, self.send("GET", path, parameters=parameters or {}, patience=patience))

    def send(self, method: str, path: str, **request: Unpack[Request]) -> httpx.Response:
        """Send one request; only a success comes back.

        Raises:
            ServerUnreachable: nothing answers at this URL, or not in time.
            ProblemError: the server answered with problem details.
            UnexpectedAnswer: another error's page, such as a proxy's.
        """
        return checked(self.request(method, path, **request))

    def delete(self, path: str) -> None:
        """DELETE; a repetition that finds nothing any more has done what was asked. Raises as `send` does."""
        answer, lost = self._repeated("DELETE", path)
        if not (lost and answer.status_code == HTTPStatus.NOT_FOUND):
            checked(answer)

    def request(self, method: str, path: str, **request: Unpack[Request]) -> httpx.Response:
        """Send one request; any answer comes back. Parameters that are None are left out.

        It is sent again, after a pause, where that can help and do no harm: see `gradprobe.client.retries`.

        Raises:
            ServerUnreachable: nothing answers at this URL, or not in time.
        """
        return self._repeated(method, path, **request)[0]

    def once(self, method: str, path: str, **request: Unpack[Request]) -> httpx.Response:
        """As `request`, but never sent again."""
        seconds = self.timeout + request.get("patience", 0.0)
        try:
            return self._send(method, path, request, seconds)
        except httpx.RequestError as error:
            raise self._unreachable(error, seconds) from error

    def post(self, path: str, content: bytes | None, document: Any, headers: Mapping[str, str]) -> httpx.Response:
        """POST JSON, written already (`content`) or not (`document`), once. Raises ServerUnreachable."""
        kind = {"Content-Type": "application/json"} if content is not None else {}
        try:
            return self._http.post(path, content=content, json=document, headers={**kind, **headers})
        except httpx.RequestError as error:
            raise self._unreachable(error, self.timeout) from error

    def _repeated(self, method: str, path: str, **request: Unpack[Request]) -> tuple[httpx.Response, int]:
        """The answer, and how many before it may have been lost on their way."""
        seconds = self.timeout + request.get("patience", 0.0)
        repeatable = request.get("repeatable", method != "POST")
        # What is left of the time for one answer bounds the repetitions too: a caller who gives a second, waits one.
        deadline = time.monotonic() + seconds
        lost = 0
        for repetition in itertools.count():
            last = repetition >= self.retries.number
            try:
                answer = self._send(method, path, request, seconds)
            except httpx.RequestError as error:
                sent = not nothing_was_sent(error)
                lost += sent
                pause = self.retries.pause(repetition)
                harmful = (sent and not repeatable) or not may_pass(error)
                if last or harmful or time.monotonic() + pause > deadline:
                    raise self._unreachable(error, seconds) from error
            else:
                pause = self.retries.pause(repetition, answer.headers)
                again = REFUSED_FOR_NOW | (PERHAPS_DONE if repeatable else frozenset())
                if last or answer.status_code not in again or time.monotonic() + pause > deadline:
                    return answer, lost
                lost += answer.status_code in PERHAPS_DONE
            time.sleep(pause)
        raise AssertionError("the last repetition returns or raises")

    def _send(self, method: str, path: str, request: Request, seconds: float) -> httpx.Response:
        given = {name: value for name, value in request.get("parameters", {}).items() if value is not None}
        body, headers = request.get("body"), request.get("headers")
        return self._http.request(method, path, params=given, json=body, headers=headers, timeout=seconds)

    def _unreachable(self, error: httpx.RequestError, seconds: float) -> ServerUnreachable:
        if isinstance(error, httpx.TimeoutException):
            return ServerUnreachable(
                f"{self.url} did not answer within {seconds:g} s; see whether {self.url}/readyz answers, "
                "or allow a longer timeout"
            )
        return ServerUnreachable(
            f"No server answers at {self.url} ({_reason(error)}); start one with `gradprobe up`, "
            "or say where one runs with --url or GRADPROBE_URL"
        )

    @contextmanager
    def stream(self, path: str, parameters: Parameters, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """GET an answer that comes bit by bit; raises what `send` does, also while it is read."""
        given = {name: value for name, value in parameters.items() if value is not None}
        timeout = httpx.Timeout(self.timeout, read=max(self.timeout, _LONGEST_SILENCE))
        try:
            with self._http.stream("GET", path, params=given, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                yield checked(answer)
        except httpx.RequestError as error:
            raise ServerUnreachable(f"{self.url} is gone ({_reason(error)}); see whether it still runs") from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse(document: type[Document], answer: httpx.Response) -> Document:
    """The document in a successful answer.

    Raises:
        UnexpectedAnswer: the body is something else, so this is not a Gradprobe server, or one from another age.
    """
    try:
        return document.model_validate_json(answer.content)
    except ValidationError as error:
        raise UnexpectedAnswer(
            f"{answer.url} did not answer with a document of a Gradprobe server; is this the right URL? "
            f"The answer begins: {_excerpt(answer)}",
            answer.status_code,
        ) from error


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is a success; see `Transport.send` for what it raises."""
    if not answer.is_success:
        raise _failure(answer)
    return answer


def _failure(answer: httpx.Response) -> ProblemError | UnexpectedAnswer:
    try:
        return ProblemError(Problem.model_validate_json(answer.content))
    except ValidationError:
        return UnexpectedAnswer(
            f"{answer.request.method} {answer.url} was answered {answer.status_code} {answer.reason_phrase} "
            f"by something other than a Gradprobe server (a proxy?): {_excerpt(answer)}",
            answer.status_code,
        )


def _excerpt(answer: httpx.Response) -> str:
    words = " ".join(answer.text.split())
    return (words[:_EXCERPT] + "…" if len(words) > _EXCERPT else words) or "(nothing)"


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
