"""Experiments that are under way while something goes wrong, and what must be true of them afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.chaos.audit import Reference, audit
from benchmarks.chaos.system import System
from gradprobe import Client
from gradprobe.errors import GradprobeError
from tests.acceptance.conftest import running_past, until
from tests.acceptance.faults.conftest import DOCUMENTS


@contextmanager
def under_way(running: System, expected: dict[str, Reference], title: str) -> Iterator[list[str]]:
    """An experiment on each worker while the block runs, one more afterwards; then the audit of all there are."""
    accepted: dict[str, str] = {}
    until(lambda: running.idle_workers() == len(running.workers), what="every worker's waiting for work")
    with Client(running.stack.url) as client:
        identifiers = []
        for number, kind in enumerate(DOCUMENTS):
            name = f"{title} {number}"
            identifiers.append(client.create({**DOCUMENTS[kind], "name": name}).id)
            accepted[name] = kind
        for identifier in identifiers:
            running_past(client, identifier, 50)
        yield identifiers
        name = f"{title} afterwards"
        identifiers.append(answered(lambda: client.create({**DOCUMENTS["classic"], "name": name}).id))
        accepted[name] = "classic"
        for identifier in identifiers:
            until(lambda one=identifier: answered(lambda: client.get(one)).status.ended, 240, f"{identifier}'s end")  # type: ignore[misc]
    findings = audit(running.database, accepted, expected)
    assert findings.count == 0, findings


def answered(request: Callable[[], str]) -> str:
    """What the service answers once it is there again."""

    def attempt() -> str | None:
        try:
            return request()
        except GradprobeError:
            return None

    found: str = until(attempt, 60, "an answer")
    return found
