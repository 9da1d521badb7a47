"""The event stream: complete, resumable after every event, in any process, and bounded."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from gradprobe.client import Client, Event, ProblemError, ServerUnreachable
from gradprobe.resources import Experiment, ProgressEvent, StatisticsEvent, StatusEvent
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import leases
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from service.events import Known, news
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import environment_of, serving

ROOT = Path(__file__).parents[3]
SPEC: dict[str, Any] = {
    "network": {"depth": 3, "width": 4},
    "training": {"iterations": 20, "batch_size": 5},
    "recording": {"evaluate_every": 10},
}
TENSORS: tuple[Any, ...] = ("weight_gradients", "output_gradients", "metrics")


@pytest.fixture
def service_settings(service_settings: Settings) -> Settings:
    changes = {"watch_seconds": 0.02, "keepalive_seconds": 0.2, "maximum_streams": 3}
    return service_settings.model_copy(update=changes)


@pytest.fixture
def experiment_id(client: httpx.Client) -> str:
    return str(client.post("/experiments", json=SPEC).json()["id"])


@contextmanager
def opened(client: httpx.Client, experiment_id: str, query: str = "", **headers: str) -> Iterator[httpx.Response]:
    with client.stream("GET", f"/experiments/{experiment_id}/events{query}", headers=headers) as response:
        yield response


def events(response: httpx.Response) -> Iterator[ServerSentEvent]:
    assert response.status_code == 200, response.read()
    yield from (event for event in EventSource(response).iter_sse() if event.event != "message")


def read(client: httpx.Client, experiment_id: str, query: str = "", **headers: str) -> list[ServerSentEvent]:
    """Up to the end."""
    with opened(client, experiment_id, query, **headers) as response:
        return list(events(response))


def flush(database: Database, attempt: tuple[Any, leases.Lease], first: int, beyond: int) -> None:
    """What a worker stores of the iterations first ≤ t < beyond."""
    record, lease = attempt
    for tensor in TENSORS:
        measured.write_statistics(database, record, tensor, range(first, beyond))
    with database.write() as connection:
        leases.renew(connection, lease, beyond)


def finish(database: Database, attempt: tuple[Any, leases.Lease]) -> None:
    record, lease = attempt
    measured.write_statistics(database, record, "evaluation", range(0, 21, 10))
    measured.finish(database, lease)


def trained(database: Database, experiment_id: str) -> None:
    attempt = measured.claim(database, experiment_id)
    for first in (0, 7, 14):
        flush(database, attempt, first, min(first + 7, 20))
    finish(database, attempt)


def test_a_watcher_is_told_everything_as_it_happens(
    client: httpx.Client, database: Database, experiment_id: str
) -> None:
    told: list[ServerSentEvent] = []
    with opened(client, experiment_id) as response:
        stream = events(response)

        def expect(*kinds: str) -> None:
            received = [next(stream) for _ in kinds]
            assert [event.event for event in received] == list(kinds)
            told.extend(received)

        expect("status", "progress")
        attempt = measured.claim(database, experiment_id)
        expect("status")
        flush(database, attempt, 0, 7)
        expect("progress", "statistics")
        flush(database, attempt, 7, 20)
        expect("progress", "statistics")
        finish(database, attempt)
        expect("statistics", "status")
        *found, end = stream
        assert {event.event for event in found} <= {"finding"}
        assert end.event == "end"
        told.append(end)

    assert [StatusEvent.model_validate_json(event.data).status for event in told if event.event == "status"] == [
        Status.QUEUED,
        Status.RUNNING,
        Status.SUCCEEDED,
    ]
    assert [ProgressEvent.model_validate_json(event.data).iteration for event in told if event.event == "progress"] == [
        0,
        7,
        20,
    ]
    summaries = [StatisticsEvent.model_validate_json(event.data) for event in told if event.event == "statistics"]
    assert [(summary.start, summary.stop) for summary in summaries] == [(0, 7), (7, 20), (20, 21)]
    assert summaries[2].metrics.evaluation.steps == [20]
    path = f"/experiments/{experiment_id}"
    assert Experiment.model_validate_json(told[-1].data) == Experiment.model_validate_json(client.get(path).content)
    for summary in summaries[:2]:
        query = {"start": summary.start, "stop": summary.stop, "max_points": 100, "statistics": "mean_abs"}
        for of, document in (("weights", summary.weight_gradients), ("outputs", summary.output_gradients)):
            found = client.get(f"{path}/gradients", params={**query, "of": of}).json()
            assert document is not None
            assert document.model_dump(mode="json") | {"status": 0} == found | {"status": 0}


def test_after_every_event_the_rest_can_be_had_from_any_process(
    client: httpx.Client, database: Database, experiment_id: str, service_settings: Settings
) -> None:
    attempt = measured.claim(database, experiment_id)
    before: list[ServerSentEvent] = []
    with opened(client, experiment_id) as response:
        stream = events(response)
        before += [next(stream), next(stream)]
        flush(database, attempt, 0, 7)
        before += [next(stream), next(stream)]
    flush(database, attempt, 7, 14)
    flush(database, attempt, 14, 20)
    finish(database, attempt)

    with serving(service_settings) as other:
        for position, last in enumerate(before):
            after = read(other, experiment_id, **{"Last-Event-ID": last.id})
            ranges = [
                (document["start"], document["stop"])
                for event in (*before[: position + 1], *after)
                if event.event == "statistics" and (document := event.json())
            ]
            assert ranges[0][0] == 0, last.id
            assert [stop for _, stop in ranges[:-1]] == [start for start, _ in ranges[1:]], last.id
            assert ranges[-1][1] == 21
            assert [event.event for event in after if event.event != "finding"][-2:] == ["status", "end"]
            for following, event in enumerate(after[:-1]):
                again = read(client, experiment_id, **{"Last-Event-ID": event.id})
                assert [(one.event, one.data, one.id) for one in again] == [
                    (one.event, one.data, one.id) for one in after[following + 1 :]
                ]


def test_after_the_end_there_is_nothing_to_come_until_it_is_tried_again(
    client: httpx.Client, experiment_id: str
) -> None:
    client.post(f"/experiments/{experiment_id}/cancel")
    told = read(client, experiment_id)
    assert [event.event for event in told] == ["progress", "status", "end"]
    path = f"/experiments/{experiment_id}/events"

    ended = client.get(path, headers={"Last-Event-ID": told[-1].id})
    assert (ended.status_code, ended.content) == (204, b"")

    client.post(f"/experiments/{experiment_id}/retry")
    with opened(client, experiment_id, **{"Last-Event-ID": told[-1].id}) as response:
        assert next(events(response)).json()["status"] == "queued"


def test_those_who_come_after_the_end_are_told_what_was_read_once(
    client: httpx.Client, database: Database, experiment_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A diagnosis and all series are read for the first of them; and again where anything has changed since."""
    readings: list[str] = []

    def read_and_counted(known: Known, record: Record, *arguments: Any) -> Iterator[Any]:
        readings.append(record.id)
        return news(known, record, *arguments)

    monkeypatch.setattr("service.streams.news", read_and_counted)
    trained(database, experiment_id)
    first, second = (read(client, experiment_id) for _ in range(2))
    assert [(event.event, event.data, event.id) for event in first] == [
        (event.event, event.data, event.id) for event in second
    ]
    assert readings == [experiment_id]
    client.patch(f"/experiments/{experiment_id}", json={"name": "another"})
    assert read(client, experiment_id)[-1].json()["name"] == "another"
    assert len(readings) == 2


def test_another_attempt_is_told_from_the_start(client: httpx.Client, database: Database, experiment_id: str) -> None:
    record, lease = measured.claim(database, experiment_id)
    with opened(client, experiment_id, "?kinds=statistics") as response:
        stream = events(response)
        flush(database, (record, lease), 0, 14)
        assert next(stream).json()["stop"] == 14
        with database.write() as connection:
            leases.give_back(connection, lease)
        again = measured.claim(database, experiment_id)
        flush(database, again, 0, 7)
        flush(database, again, 7, 20)
        told = [next(stream).json()]
        while told[-1]["stop"] < 20:
            told.append(next(stream).json())
    assert told[0]["start"] == 0
    assert all(one["stop"] == following["start"] for one, following in pairwise(told))


def test_a_watcher_chooses_kinds_and_points(client: httpx.Client, database: Database, experiment_id: str) -> None:
    trained(database, experiment_id)

    assert [event.event for event in read(client, experiment_id, "?kinds=end")] == ["end"]
    assert [event.event for event in read(client, experiment_id, "?kinds=progress,status")] == [
        "progress",
        "status",
        "end",
    ]
    [summary, _] = read(client, experiment_id, "?kinds=statistics&max_points=4")
    assert StatisticsEvent.model_validate_json(summary.data).metrics.reduction.points <= 4
    assert_problem(client.get(f"/experiments/{experiment_id}/events?kinds=stat"), 422, "VALIDATION_FAILED")
    assert_problem(client.get(f"/experiments/{experiment_id}/events?max_points=0"), 422, "VALIDATION_FAILED")


@pytest.mark.parametrize("identifier", ["x", "0-queued-0", "1-running-2-3-", "١-queued-0-0", "9" * 99])
def test_an_id_that_no_stream_gave_is_refused(client: httpx.Client, experiment_id: str, identifier: str) -> None:
    headers = {"Last-Event-ID": identifier.encode()}
    response = client.get(f"/experiments/{experiment_id}/events", headers=httpx.Headers(headers))
    assert assert_problem(response, 422, "INVALID_EVENT_ID")["errors"][0]["pointer"] == "/header/Last-Event-ID"


def test_what_is_not_there_can_not_be_watched(client: httpx.Client, experiment_id: str) -> None:
    with opened(client, experiment_id) as response:
        stream = events(response)
        next(stream)
        client.delete(f"/experiments/{experiment_id}")
        assert [event.event for event in stream] == ["progress"]
    assert_problem(client.get(f"/experiments/{experiment_id}/events"), 404, "EXPERIMENT_NOT_FOUND")


def test_a_stream_is_never_compressed_nor_kept_and_breaks_its_silence(client: httpx.Client, experiment_id: str) -> None:
    with opened(client, experiment_id, **{"Accept-Encoding": "zstd, gzip"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in response.headers
        assert response.headers["cache-control"] == "no-cache"
        lines = response.iter_lines()
        assert next(lines).startswith("retry: ")
        began = time.monotonic()
        silent = [line for line in (next(lines) for _ in range(14)) if line.startswith(":")]
        assert silent
        assert time.monotonic() - began < 5


def test_streams_are_bounded(client: httpx.Client, experiment_id: str) -> None:
    with opened(client, experiment_id) as first, opened(client, experiment_id) as second:
        assert (first.status_code, second.status_code) == (200, 200)
        with opened(client, experiment_id) as third:
            assert third.status_code == 200
            refused = client.get(f"/experiments/{experiment_id}/events")
            assert_problem(refused, 503, "TOO_MANY_STREAMS")
            assert int(refused.headers["retry-after"]) > 0
        deadline = time.monotonic() + 10
        status = 0
        while status != 200:
            assert time.monotonic() < deadline
            with opened(client, experiment_id) as fourth:
                status = fourth.status_code


def test_watchers_hold_no_thread_and_no_connection(service_settings: Settings, database: Database) -> None:
    watchers = 60
    settings = service_settings.model_copy(update={"maximum_streams": watchers, "database_pool": 2})
    with serving(settings) as client:
        experiment_id = client.post("/experiments", json=SPEC).json()["id"]
        before = threading.active_count()
        with httpx.Client(base_url=client.base_url, timeout=60, limits=httpx.Limits(max_connections=None)) as many:
            request = many.build_request("GET", f"/experiments/{experiment_id}/events")
            streams = [many.send(request, stream=True) for _ in range(watchers)]
            assert threading.active_count() - before <= 2
            assert client.get(f"/experiments/{experiment_id}").status_code == 200
            trained(database, experiment_id)
            ended = [list(events(response)) for response in streams]
        assert {told[-1].event for told in ended} == {"end"}
        assert {told[-1].data for told in ended} == {ended[0][-1].data}


@contextmanager
def process(settings: Settings, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server as a process of its own, which answers."""
    environment = environment_of(settings) | {"GRADPROBE_WATCH_SECONDS": "0.05"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "service.app:create_app", "--port", str(port)]
    with subprocess.Popen(command, env=environment, cwd=ROOT) as server:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=7)) as client:
                assert client.get(f"http://127.0.0.1:{port}/livez", timeout=60).status_code == 200
            yield server
        finally:
            server.kill()


# Once: what is slow here are the processes, and the other tests hold the databases alike.
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_client_follows_over_restarts_and_a_server_that_stops_lets_watchers_go_at_once(
    service_settings: Settings, database: Database
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told: list[Event] = []
    with Client(f"http://127.0.0.1:{port}") as client:
        with process(service_settings, port) as server:
            experiment_id = client.create(SPEC).id
            attempt = measured.claim(database, experiment_id)
            stream = client.events(experiment_id)
            flush(database, attempt, 0, 7)
            while not told or told[-1].kind != "statistics":
                told.append(next(stream))
            began = time.monotonic()
            server.terminate()
            reader = threading.Thread(target=lambda: told.extend(stream))
            reader.start()
            server.wait(20)
            assert time.monotonic() - began < 5
        flush(database, attempt, 7, 20)
        finish(database, attempt)
        with process(service_settings, port):
            reader.join(60)
            assert told[-1].kind == "end"
            assert list(client.events(experiment_id, last_event_id=told[-1].id)) == []
            with pytest.raises(ProblemError, match="There is no experiment"):
                next(client.events("exp_nothing"))
        with pytest.raises(ServerUnreachable):
            next(client.events(experiment_id, patience=0.0))
    summaries = [event.data for event in told if isinstance(event.data, StatisticsEvent)]
    assert [(summary.start, summary.stop) for summary in summaries] == [(0, 7), (7, 21)]
    assert isinstance(told[-1].data, Experiment)
    assert told[-1].data.status is Status.SUCCEEDED
