"""A client that submits experiments while the service comes and goes, and knows which of them were accepted."""

import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from gradprobe import Client
from gradprobe.client import ProblemError, ServerUnreachable, UnexpectedAnswer

_PAUSE = 0.2


class Submission(threading.Thread):
    """Posts one experiment of each of `kinds` in turn, never more than `allowed()` says.

    `accepted`: the kind under the name that each was posted with. Where the answer was lost it is posted again under
    the same idempotency key, so that it is accepted once.
    """

    def __init__(
        self, url: str, documents: dict[str, dict[str, Any]], kinds: Sequence[str], allowed: Callable[[], int]
    ) -> None:
        super().__init__(name="submission", daemon=True)
        self.accepted: dict[str, str] = {}
        self.refused = 0
        self.failure: ProblemError | None = None
        self._url = url
        self._documents = documents
        self._kinds = kinds
        self._allowed = allowed

    def run(self) -> None:
        """Until all are accepted."""
        for number, kind in enumerate(self._kinds):
            while number >= self._allowed():
                time.sleep(_PAUSE)
            name = f"chaos {number:04d}"
            document = {**self._documents[kind], "name": name, "queue": {"priority": number % 10}}
            while not self._post(name, document):
                self.refused += 1
                time.sleep(_PAUSE)
            self.accepted[name] = kind

    def _post(self, name: str, document: dict[str, Any]) -> bool:
        try:
            with Client(self._url, timeout=15.0) as client:
                client.create(document, idempotency_key=name.replace(" ", "-"))
        except ProblemError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR and error.status != HTTPStatus.TOO_MANY_REQUESTS:
                self.failure = error  # a refusal for good: this command's own fault
                raise
            return False
        except (ServerUnreachable, UnexpectedAnswer):
            return False
        return True
