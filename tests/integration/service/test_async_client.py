"""`AsyncClient` against the real service: many at once, cancelled in the middle, through a restart."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradprobe import AsyncClient, Client
from gradprobe.client import Event, ProblemError, Retries, ServerUnreachable, WaitTimeout
from gradprobe.resources import Experiment
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import leases
from gradprobe.store.database import Database
from tests.databases import POSTGRESQL_AT_LENGTH
from tests.integration.service import measured
from tests.integration.service.serving import environment_of

ROOT = Path(__file__).parents[3]
QUICK = Retries(first=0.01, longest=0.02)
SPEC: dict[str, Any] = {"network": {"depth": 3, "width": 4}, "training": {"iterations": 20, "batch_size": 5}}


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    return service_settings.model_copy(update={"watch_seconds": 0.02, "keepalive_seconds": 0.2})


@pytest.fixture
def url(client: httpx.Client) -> str:
    return str(client.base_url)


def played(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def finished(database: Database, experiment_id: str, after: float = 0.0) -> None:
    """A worker's part, beside the event loop."""

    def work() -> None:
        record, lease = measured.claim(database, experiment_id)
        for tensor in ("weight_gradients", "output_gradients", "metrics"):
            measured.write_statistics(database, record, tensor, range(20))  # type: ignore[arg-type]
        with database.write() as connection:
            leases.renew(connection, lease, 20)
        measured.finish(database, lease)

    await asyncio.sleep(after)
    await asyncio.to_thread(work)


def test_what_one_client_makes_the_other_reads(url: str, database: Database) -> None:
    async def story() -> None:
        async with AsyncClient(url) as client:
            assert client.url == url
            made = await client.create(SPEC | {"tags": {"a": "b"}}, idempotency_key="one")
            assert await client.create(SPEC | {"tags": {"a": "b"}}, idempotency_key="one") == made
            await finished(database, made.id)
            with Client(url) as blocking:
                assert await client.get(made.id) == blocking.get(made.id)
                assert [one async for one in client.list(tag="a:b")] == list(blocking.list(tag="a:b"))
                for of in ("weights", "outputs"):
                    mine = await client.gradients(made.id, of, statistics=["norm"], max_points=10)  # type: ignore[arg-type]
                    theirs = blocking.gradients(made.id, of, statistics=["norm"], max_points=10)  # type: ignore[arg-type]
                    assert mine.tensor == {"weights": "weight_gradients", "outputs": "output_gradients"}[of]
                    assert (mine.matrix("norm") == theirs.matrix("norm")).all()
                assert (await client.metrics(made.id))["loss"].shape == (20,)
                assert (await client.diagnosis(made.id)) == blocking.diagnosis(made.id)
                assert (await client.ready()).status == blocking.ready().status
            assert (await client.update(made.id, notes="n")).notes == "n"
            await client.delete(made.id)
            with pytest.raises(ProblemError) as caught:
                await client.get(made.id)
            assert (caught.value.code, caught.value.status) == ("EXPERIMENT_NOT_FOUND", 404)

    played(story())


def test_pages_are_fetched_as_they_are_consumed(url: str) -> None:
    async def story() -> None:
        async with AsyncClient(url) as client:
            made = [await client.create(SPEC | {"name": str(number)}) for number in range(5)]
            assert [one.name async for one in client.list(limit=3)] == ["4", "3", "2"]
            sweep = await client.sweep({"/training/seed": [0, 1]}, SPEC, name="s")
            assert [one.id async for one in client.list_sweeps()] == [sweep.id]
            assert (await client.cancel_sweep(sweep.id)).status == "ended"
            assert (await client.wait_sweep(sweep.id)).counts.cancelled == 2
            assert (await client.compare_sweep(sweep.id)).columns["status"] == ["cancelled"] * 2
            found = await client.compare([one.id for one in made[:2]], of="outputs", include=["metrics"])
            assert [item.experiment_id for item in found.items] == [one.id for one in made[:2]]

    played(story())


@POSTGRESQL_AT_LENGTH
def test_two_hundred_wait_at_once_in_the_time_of_one(url: str, database: Database) -> None:
    async def story() -> None:
        async with AsyncClient(url) as client:
            made = await asyncio.gather(*(client.create(SPEC) for _ in range(4)))
            waits = [asyncio.create_task(client.wait(made[number % 4].id)) for number in range(200)]
            await asyncio.sleep(1.0)
            assert not any(wait.done() for wait in waits)
            # While they wait there is still room for others.
            began = time.monotonic()
            assert (await client.get(made[0].id)).status is Status.QUEUED
            assert time.monotonic() - began < 5
            for one in made:
                await finished(database, one.id)
            ended = await asyncio.gather(*waits)
            assert {one.status for one in ended} == {Status.SUCCEEDED}
            assert [one.id for one in ended] == [made[number % 4].id for number in range(200)]

    played(story())


def test_a_wait_that_is_cancelled_leaves_nothing_behind(url: str) -> None:
    async def story() -> None:
        async with AsyncClient(url) as client:
            made = await client.create(SPEC)
            waits = [asyncio.create_task(client.wait(made.id)) for _ in range(20)]
            await asyncio.sleep(0.3)
            began = time.monotonic()
            for wait in waits:
                wait.cancel()
            assert {type(one) for one in await asyncio.gather(*waits, return_exceptions=True)} == {
                asyncio.CancelledError
            }
            assert time.monotonic() - began < 2
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.wait(made.id), 0.2)
            with pytest.raises(WaitTimeout, match="goes on"):
                await client.wait(made.id, timeout=0.2)
            # The experiment knows nothing of it, and the connections still serve.
            assert (await client.get(made.id)).status is Status.QUEUED
            assert (await client.cancel(made.id)).status is Status.CANCELLED

    played(story())


def test_whoever_is_told_of_progress_is_told_of_each_look(url: str, database: Database) -> None:
    async def story() -> list[Experiment]:
        seen: list[Experiment] = []
        async with AsyncClient(url) as client:
            made = await client.create(SPEC)
            _, ended = await asyncio.gather(
                finished(database, made.id, after=0.3), client.wait(made.id, on_progress=seen.append, poll_seconds=0.05)
            )
            assert seen[-1] == ended
        return seen

    seen = played(story())
    assert seen[0].status is Status.QUEUED
    assert len(seen) > 2


def test_events_come_to_many_and_stop_where_they_are_left(url: str, database: Database) -> None:
    async def heard(client: AsyncClient, experiment_id: str) -> list[Event]:
        return [event async for event in client.events(experiment_id)]

    async def first(client: AsyncClient, experiment_id: str) -> Event:
        async with aclosing(client.events(experiment_id)) as events:
            async for event in events:
                return event
        raise AssertionError

    async def story() -> None:
        async with AsyncClient(url) as client:
            made = await client.create(SPEC)
            watchers = [asyncio.create_task(heard(client, made.id)) for _ in range(20)]
            assert (await first(client, made.id)).kind == "status"
            await finished(database, made.id)
            told = await asyncio.gather(*watchers)
            assert {events[-1].kind for events in told} == {"end"}
            assert all(max(event.data.stop for event in events if event.kind == "statistics") >= 20 for events in told)
            rest = [event async for event in client.events(made.id, last_event_id=told[0][-2].id)]
            assert [event.kind for event in rest] == ["end"]
            with pytest.raises(ProblemError):
                await first(client, "exp_none")

    played(story())


@POSTGRESQL_AT_LENGTH
def test_waits_and_events_outlive_a_restart(service_settings: Settings, database: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", str(port)]

    def server() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment_of(service_settings), cwd=ROOT)

    async def story() -> None:
        patient = Retries(number=60, first=0.2, longest=0.5)
        async with AsyncClient(f"http://127.0.0.1:{port}", retries=patient) as client:
            made = await client.create(SPEC)
            waits = [asyncio.create_task(client.wait(made.id)) for _ in range(10)]
            heard: list[Event] = []

            async def listen() -> None:
                async for event in client.events(made.id):
                    heard.append(event)

            listening = asyncio.create_task(listen())
            while not heard:
                await asyncio.sleep(0.05)
            running[0].kill()
            await asyncio.to_thread(running[0].wait)
            await finished(database, made.id)
            running.append(server())
            assert {one.status for one in await asyncio.gather(*waits)} == {Status.SUCCEEDED}
            await listening
            assert [event.kind for event in heard].count("end") == 1
            assert len({(event.kind, event.id) for event in heard}) == len(heard)

    running = [server()]
    try:
        played(story())
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_no_server_is_said_as_soon_as_by_the_other_client() -> None:
    async def story(url: str) -> None:
        async with AsyncClient(url, retries=QUICK) as client:
            with pytest.raises(ServerUnreachable, match="gradprobe up"):
                await client.get("exp_1")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    played(story(f"http://127.0.0.1:{port}"))
