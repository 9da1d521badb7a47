"""Clients that post and poll while others watch: the whole stack with a worker, `python -m benchmarks.load`.

Two hundred event streams are opened: half of them on one long training, the others each on every tenth of what is
posted. Then fifty clients, one after the other within a second, post experiments, read them, their series and lists,
as fast as they are answered but for a pause of `_PAUSE_SECONDS`; streams whose experiment ends go on to the next one
all the while. One process of the service, two workers, on this machine.
"""

import argparse
import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.results import Goal, Result, Row, Table, perform
from gradprobe.embedded.stack import Stack
from gradprobe.settings import Settings

_PAUSE_SECONDS: Final = 1.0
_READ_GOAL: Final = Goal("ms, p99", "≤", 250.0, "ms")
_NO_ERROR: Final = Goal("errors", "≤", 0.0, "")
_SPEC: Final[dict[str, Any]] = {"dataset": {"name": "synthetic"}, "training": {"iterations": 2000}}
_POST_EVERY: Final = 20
#: Clients read one of so many that were posted last.
_NEWEST: Final = 10
_LONG: Final[dict[str, Any]] = {"dataset": {"name": "synthetic"}, "training": {"iterations": 1_000_000}}
_GROUPS: Final = 10
_UNENCRYPTED: Final = ssl.create_default_context()  # made once: a client would make its own, slowly, for nothing


@dataclass(slots=True)
class Found:
    """Milliseconds by kind of request, and what went wrong."""

    times: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    events: int = 0
    reconnects: int = 0
    ended: int = 0
    open: int = 0
    opening_seconds: float = 0.0

    def note(self, kind: str, began: float, answer: httpx.Response | None) -> None:
        """One request."""
        self.times.setdefault(kind, []).append((time.perf_counter() - began) * 1e3)
        # A full queue says so, with 429 and when to come again: that is an answer, not an error.
        if answer is None or (answer.is_error and answer.status_code != httpx.codes.TOO_MANY_REQUESTS):
            self.errors[kind] = self.errors.get(kind, 0) + 1


def run(quick: bool, seconds: float = 300.0, clients: int = 50, watchers: int = 200) -> Result:
    """The whole stack under load, for so many seconds."""
    if quick:
        seconds, clients, watchers = 5.0, 5, 10
    with TemporaryDirectory(prefix="gradprobe-bench-", ignore_cleanup_errors=True) as directory:
        settings = Settings(data_directory=Path(directory), maximum_streams=max(500, watchers))
        with Stack(settings, workers=2) as stack:
            found = asyncio.run(_load(stack.url, seconds, clients, watchers))
    reads = [value for kind, values in found.times.items() if kind != "post" for value in values]
    rows = [_row(kind, values, found.errors.get(kind, 0), ()) for kind, values in sorted(found.times.items())]
    rows.append(_row("all reads", reads, sum(found.errors.values()), (_READ_GOAL, _NO_ERROR)))
    streams = {
        "open": watchers,
        "seconds to open them": found.opening_seconds,
        "events": found.events,
        "connected again": found.reconnects,
        "runs seen to end": found.ended,
    }
    title = f"{clients} clients for {seconds:g} s, {os.cpu_count()} cores, {watchers} event streams, two workers"
    return Result("load", [Table(title, rows), Table("event streams", [Row("watchers", dict(streams))])])


async def _load(url: str, seconds: float, clients: int, watchers: int) -> Found:
    found, posted = Found(), []
    async with AsyncExitStack() as stack:
        # Each has connections of its own, as different people have: one pool for all of them would look through all
        # connections for every request, and what is measured were the pool.
        people = [await stack.enter_async_context(_person(url)) for _ in range(clients + watchers + 1)]
        client, using, looking = people[0], people[1 : clients + 1], people[clients + 1 :]
        long = (await client.post("/experiments", json=_LONG)).json()["id"]
        for _ in range(_GROUPS):
            posted.append((await client.post("/experiments", json=_SPEC)).json()["id"])
        began = time.monotonic()
        watching = [
            asyncio.create_task(_watch(one, found, _experiments(long, posted, number)))
            for number, one in enumerate(looking)
        ]
        while found.open < watchers:
            await asyncio.sleep(0.01)
        found.opening_seconds = time.monotonic() - began
        until = time.monotonic() + seconds
        await asyncio.gather(
            *(_use(one, found, posted, number, until, number / clients) for number, one in enumerate(using))
        )
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    return found


def _person(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60.0, trust_env=False, verify=_UNENCRYPTED)


async def _use(
    client: httpx.AsyncClient, found: Found, posted: list[str], number: int, until: float, later: float
) -> None:
    """One client: posts now and then, and reads what it and the others posted."""
    await asyncio.sleep(later * _PAUSE_SECONDS)  # fifty people don't press a key at the same instant
    asks: list[tuple[str, Callable[[str], str]]] = [
        ("one", lambda identifier: f"/experiments/{identifier}"),
        ("gradients", lambda identifier: f"/experiments/{identifier}/gradients?statistics=mean_abs&max_points=500"),
        ("list", lambda _: "/experiments?status=succeeded"),
        ("metrics", lambda identifier: f"/experiments/{identifier}/metrics?max_points=500"),
    ]
    turn = number
    while time.monotonic() < until:
        if turn % _POST_EVERY == 0:
            answer = await _timed(found, "post", partial(client.post, "/experiments", json=_SPEC))
            if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                posted.append(answer.json()["id"])
        kind, path = asks[turn % len(asks)]
        await _timed(found, kind, partial(client.get, path(posted[-1 - turn % min(len(posted), _NEWEST)])))
        turn += 1
        await asyncio.sleep(_PAUSE_SECONDS)


async def _timed(found: Found, kind: str, send: Callable[[], Any]) -> httpx.Response | None:
    began, answer = time.perf_counter(), None
    with suppress(httpx.HTTPError):
        answer = await send()
    found.note(kind, began, answer)
    return answer


async def _experiments(long: str, posted: list[str], number: int) -> AsyncIterator[str]:
    """What a watcher watches: every other one the long training, the rest each tenth of what is posted."""
    if number % 2 == 0:
        while True:
            yield long
    place = number // 2 % _GROUPS
    while True:
        while place >= len(posted):
            await asyncio.sleep(0.1)
        yield posted[place]
        place += _GROUPS


async def _watch(client: httpx.AsyncClient, found: Found, wanted: AsyncIterator[str]) -> None:
    """Watches one experiment after the other, each to its end."""
    first = True
    async for identifier in wanted:
        try:
            async with client.stream("GET", f"/experiments/{identifier}/events", timeout=None) as answer:
                found.open += first
                first = False
                if answer.is_error:
                    found.errors["events"] = found.errors.get("events", 0) + 1
                async for line in answer.aiter_lines():
                    found.events += line.startswith("event: ")
                    found.ended += line == "event: end"
        except httpx.HTTPError:
            found.errors["events"] = found.errors.get("events", 0) + 1
        found.reconnects += 1
        await asyncio.sleep(0.5)


def _row(kind: str, milliseconds: list[float], errors: int, goals: tuple[Goal, ...]) -> Row:
    median, high = (float(value) for value in np.percentile(milliseconds, [50, 99]))
    figures = {"requests": len(milliseconds), "errors": errors, "ms, median": median, "ms, p99": high}
    return Row(kind, {**figures, "ms, most": max(milliseconds)}, goals)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and few: shows that it runs, measures nothing")
    parser.add_argument("--seconds", type=float, default=300.0)
    arguments = parser.parse_args()
    perform(partial(run, seconds=arguments.seconds), arguments.quick)


if __name__ == "__main__":
    main()
