"""Several services behind a proxy are one: events go on in whichever is asked, keys, ETags and cursors hold in each.

Real processes, real PostgreSQL, real nginx with the lines that the documents give.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from typing import Any

import httpx
import psutil
import pytest

from gradprobe.settings import Settings
from tests.acceptance.conftest import until
from tests.acceptance.proxy import SERVED_BY, site
from tests.acceptance.several import KEEPALIVE_SECONDS, Reader, Several, answering, several
from tests.conftest import PostgreSQL

pytestmark = pytest.mark.thorough

#: Longer than any machine trains until it is cancelled.
ENDLESS = {
    "dataset": "synthetic",
    "training": {"iterations": 1_000_000, "batch_size": 64, "seed": 1, "device": "cpu"},
    "recording": {"every": 50, "evaluate_every": 1_000_000, "histograms_every": 1_000_000},
}
#: Waits for ever: there is no worker that listens for it.
WAITING = {"training": {"device": "cuda"}}
#: As the page has it.
READ_TIMEOUT = "proxy_read_timeout 60s;"
#: What breaks a stream's silence.
PING = b": ping\n\n"
SHORT = {"dataset": "synthetic", "training": {"iterations": 40, "device": "cpu"}}


@pytest.fixture(scope="module")
def running(postgresql: PostgreSQL, valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    directory = tmp_path_factory.mktemp("several")
    with postgresql.database() as url:
        address = url.render_as_string(hide_password=False)
        with several(address, f"{valkey}/0", directory) as found:
            yield found


@pytest.fixture
def client(running: Several) -> Iterator[httpx.Client]:
    with running.client() as opened:
        yield opened


def create(client: httpx.Client, spec: dict[str, Any]) -> str:
    answer = client.post("/experiments", json=spec)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    return str(answer.json()["id"])


def disturbed(running: Several, reader: Reader) -> None:
    """Connections are cut, most of them within an event; one service is stopped, and later the other is killed."""
    for _ in range(8):
        reader.read(events=3)
    assert all(one != other for one, other in pairwise(reader.served)), "no connection goes on where the last one was"

    reader.read(events=2, meanwhile=lambda reader: running.stop(reader.served[-1]))
    stopped = reader.served[-1]
    for _ in range(3):
        reader.read(events=3)
    assert stopped not in reader.served[-3:]
    running.start(stopped)
    running.until_asked(stopped)

    reader.read(events=2, meanwhile=lambda reader: running.kill(reader.served[-1]))
    killed = reader.served[-1]
    reader.read(events=3)
    assert reader.served[-1] != killed
    running.start(killed)
    running.until_asked(killed)
    for _ in range(4):
        reader.read(events=3)


def test_events_come_once_each_over_cut_connections_and_services_that_go(
    running: Several, client: httpx.Client
) -> None:
    reader = Reader(client, create(client, ENDLESS), random.Random(1))
    disturbed(running, reader)
    assert reader.told[-1].kind != "end"
    client.post(f"/experiments/{reader.experiment_id}/cancel")
    while not reader.ended:
        assert len(reader.served) < 100, "it is told the same again and again"
        reader.read(events=4)
    path = f"/experiments/{reader.experiment_id}"
    again = client.get(f"{path}/events", headers={"Last-Event-ID": reader.told[-1].id})
    assert again.status_code == httpx.codes.NO_CONTENT

    assert reader.cut_within >= 5
    assert len(set(reader.served)) == 2
    told = {kind: [json.loads(one.data) for one in reader.told if one.kind == kind] for kind in _kinds(reader)}
    assert [one["status"] for one in told["status"]] == ["queued", "running", "cancelled"]
    assert {one["attempt"] for one in told["status"]} == {0, 1}
    iterations = [one["iteration"] for one in told["progress"]]
    assert all(one < other for one, other in pairwise(iterations))
    assert [one["start"] for one in told["statistics"]] == [0, *(one["stop"] for one in told["statistics"][:-1])]
    experiment = client.get(path).json()
    assert told["end"] == [experiment]
    assert iterations[-1] == told["statistics"][-1]["stop"] == experiment["progress"]["iteration"]
    findings = client.get(f"{path}/diagnosis").json()["findings"]
    assert told.get("finding", []) == [{"experiment_id": reader.experiment_id, **one} for one in findings]
    assert_every_number_was_told_once(client, path, told["statistics"])


def _kinds(reader: Reader) -> set[str]:
    return {one.kind for one in reader.told}


def assert_every_number_was_told_once(client: httpx.Client, path: str, told: list[dict[str, Any]]) -> None:
    """Put together, the events' numbers are the series that reading it whole gives."""
    for of in ("weights", "outputs"):
        whole = client.get(f"{path}/gradients", params={"of": of, "statistics": "mean_abs"}).json()
        parts = [one["weight_gradients" if of == "weights" else "output_gradients"] for one in told]
        assert [step for part in parts for step in part["steps"]] == whole["steps"]
        for number, layer in enumerate(whole["layers"]):
            values = [part["layers"][number]["statistics"]["mean_abs"] for part in parts]
            assert [value for part in values for value in part] == layer["statistics"]["mean_abs"]
    whole = client.get(f"{path}/metrics").json()
    assert len(whole["steps"]) > 50
    assert [step for one in told for step in one["metrics"]["steps"]] == whole["steps"]


def test_one_key_makes_one_experiment_whichever_service_is_asked(running: Several) -> None:
    """At once, and one after the other."""

    def post(_: int) -> httpx.Response:
        with running.client() as client:
            return client.post("/experiments", json=WAITING | {"name": "once"}, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(8) as pool:
        answers = [*pool.map(post, range(8)), *map(post, range(4))]
    assert {answer.status_code for answer in answers} == {httpx.codes.ACCEPTED}
    assert {answering(answer) for answer in answers} == set(running.services)
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Counter(answer.headers.get("idempotency-replayed") for answer in answers) == {None: 1, "true": 11}
    with running.client() as client:
        assert len(client.get("/experiments", params={"name": "once"}).json()["items"]) == 1


def test_what_one_service_answered_the_other_knows_unchanged(running: Several, client: httpx.Client) -> None:
    identifier = create(client, SHORT)
    ended = {"succeeded", "failed"}
    until(lambda: client.get(f"/experiments/{identifier}").json()["status"] in ended, what="the experiment's end")
    for part in ("", "/gradients", "/metrics", "/gradients/histograms", "/diagnosis"):
        for coding in ("identity", "gzip", "zstd"):
            path, headers = f"/experiments/{identifier}{part}", {"Accept-Encoding": coding}
            first = client.get(path, headers=headers)
            second = client.get(path, headers=headers | {"If-None-Match": first.headers["etag"]})
            assert (second.status_code, second.content) == (httpx.codes.NOT_MODIFIED, b""), path
            assert answering(first) != answering(second)


def test_what_one_service_answered_is_a_condition_for_the_other(client: httpx.Client) -> None:
    path = f"/experiments/{create(client, WAITING)}"
    known = client.get(path)
    stale = {"If-Match": known.headers["etag"]}
    changed = client.patch(path, json={"name": "renamed"}, headers=stale)
    assert changed.status_code == httpx.codes.OK
    assert answering(changed) != answering(known)
    assert client.delete(path, headers=stale).status_code == httpx.codes.PRECONDITION_FAILED
    fresh = {"If-Match": changed.headers["etag"]}
    assert client.post(f"{path}/cancel", headers=fresh).status_code == httpx.codes.ACCEPTED
    ended = {"If-Match": client.get(path).headers["etag"]}
    assert client.delete(path, headers=ended).status_code == httpx.codes.NO_CONTENT


def test_pages_go_on_in_the_other_service(running: Several, client: httpx.Client) -> None:
    wanted = [create(client, WAITING | {"tags": {"list": "pages"}, "name": str(number)}) for number in range(7)]
    path, found, asked = "/experiments?tag=list:pages&limit=2", [], []
    while path:
        answer = client.get(path)
        assert answer.status_code == httpx.codes.OK, answer.text
        found += [one["id"] for one in answer.json()["items"]]
        asked.append(answering(answer))
        path = answer.links.get("next", {}).get("url", "")
    assert found == wanted[::-1]
    assert all(one != other for one, other in pairwise(asked))
    assert len(asked) == 4


def test_the_page_gives_the_proxy_the_time_that_the_service_needs() -> None:
    seconds = dict(re.findall(r"^\s*(\w+) (\d+)s;$", site(), re.MULTILINE))
    assert int(seconds["proxy_read_timeout"]) > Settings().keepalive_seconds
    assert int(seconds["keepalive_timeout"]) < Settings().idle_connection_seconds


def silent(running: Several, client: httpx.Client, *changes: tuple[str, str]) -> tuple[list[bytes], float]:
    """What comes of a stream whose experiment waits, through a proxy set up otherwise, and after how many seconds."""
    path, received = f"/experiments/{create(client, WAITING)}/events", []
    with running.behind(*changes) as url, running.client(url) as other:
        begun = time.monotonic()
        with (
            suppress(httpx.RemoteProtocolError, httpx.ReadTimeout),
            other.stream("GET", path, timeout=6 * KEEPALIVE_SECONDS) as answer,
        ):
            for part in answer.iter_raw():
                received.append(part)
                if time.monotonic() > begun + 5 * KEEPALIVE_SECONDS:
                    break
        return received, time.monotonic() - begun


def test_a_silent_stream_lasts_where_the_proxy_waits_longer_than_the_service(
    running: Several, client: httpx.Client
) -> None:
    """Both times are scaled, a second for the service's fifteen."""
    lasting, seconds = silent(
        running, client, (READ_TIMEOUT, f"proxy_read_timeout {round(3000 * KEEPALIVE_SECONDS)}ms;")
    )
    assert lasting.count(PING) >= 4
    assert seconds > 5 * KEEPALIVE_SECONDS
    broken, seconds = silent(running, client, (READ_TIMEOUT, f"proxy_read_timeout {round(500 * KEEPALIVE_SECONDS)}ms;"))
    assert broken.count(PING) == 0
    assert seconds < 2 * KEEPALIVE_SECONDS


def test_events_are_held_back_by_a_proxy_that_does_not_hear_the_service(running: Several, client: httpx.Client) -> None:
    deaf = f"{READ_TIMEOUT} proxy_ignore_headers X-Accel-Buffering;"
    assert silent(running, client, (READ_TIMEOUT, deaf))[0] == []
    received, _ = silent(running, client, (READ_TIMEOUT, f"{deaf} proxy_buffering off;"))
    assert received.count(PING) >= 4


def connections(running: Several) -> int:
    """Established at the services."""
    processes = [psutil.Process(service.pid) for service in running.services.values()]
    found = [one for process in processes for one in process.net_connections() if one.laddr.port in running.ports]
    return sum(one.status == psutil.CONN_ESTABLISHED for one in found)


def test_connections_to_the_services_are_kept_and_given_up_by_the_proxy_first(running: Several) -> None:
    before = connections(running)
    with running.behind(("keepalive_timeout 60s;", "keepalive_timeout 2s;")) as url, running.client(url) as client:
        for _ in range(10):
            client.get("/livez")
        assert connections(running) - before == 2
        until(lambda: connections(running) == before, 10, "the end of the idle connections")


def test_what_comes_through_the_proxy_needs_a_key_and_a_proxy_that_hides_lets_others_in(running: Several) -> None:
    """The services listen on loopback, where they ask this machine for no key."""
    address = next(iter(running.services))
    assert httpx.get(f"http://{address}/experiments", trust_env=False).status_code == httpx.codes.OK
    forwarded = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    for changes, expected in (((), httpx.codes.UNAUTHORIZED), (((forwarded, ""),), httpx.codes.OK)):
        with running.behind(*changes) as url, running.client(url, key="") as anybody:
            answer = anybody.get("/experiments", headers={"Host": "localhost"})
            assert answer.status_code == expected


def test_requests_go_to_the_service_that_is_there_and_for_a_while_not_to_one_that_is_back(
    running: Several, client: httpx.Client
) -> None:
    first, second = running.services
    running.stop(first)
    answers = [client.post("/experiments", json=WAITING) for _ in range(4)]
    assert {(answer.status_code, answering(answer)) for answer in answers} == {(httpx.codes.ACCEPTED, second)}
    assert any(first in answer.headers[SERVED_BY] for answer in answers), "it was tried, and found away"
    running.start(first)
    running.stop(second)
    assert client.get("/livez").status_code == httpx.codes.BAD_GATEWAY
    until(lambda: client.get("/livez").status_code == httpx.codes.OK, 15, "an answer of the service that is back")
    running.start(second)
    running.until_asked(second)
