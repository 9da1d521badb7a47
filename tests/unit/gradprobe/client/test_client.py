import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from gradprobe import Client, Spec
from gradprobe.client import ProblemError, Retries, ServerUnreachable, UnexpectedAnswer, WaitTimeout
from gradprobe.errors import ExperimentNotFound, GradprobeError
from gradprobe.resources import (
    Experiment,
    ExperimentPage,
    FieldError,
    LayerQuantiles,
    Nonfinite,
    PredictionDocument,
    Quantiles,
    Readiness,
    Reduction,
)
from gradprobe.state import Status
from gradprobe.theory import predict
from tests.unit.gradprobe.prepared import PreparedServer

QUICK = Retries(first=0.001)


@pytest.fixture
def client(server: PreparedServer) -> Iterator[Client]:
    with Client(server.url, retries=QUICK) as client:
        yield client


@pytest.mark.parametrize(
    ("spec", "sent"),
    [
        (None, {}),
        ({"network": {"depth": 3}}, {"network": {"depth": 3}}),
        (Spec(name="a"), Spec(name="a").model_dump(mode="json")),
    ],
)
def test_create_sends_what_was_given_and_returns_the_experiment(
    server: PreparedServer, client: Client, spec: Any, sent: dict[str, Any]
) -> None:
    expected = server.experiment(1, Status.QUEUED)
    server.prepare("POST", "/experiments", (202, expected))
    assert client.create(spec, idempotency_key="k1") == expected
    assert server.requests[0].body == sent
    assert server.requests[0].headers["idempotency-key"] == "k1"


def test_list_follows_cursors_and_keeps_the_filters(server: PreparedServer, client: Client) -> None:
    first, second, third = (server.experiment(number) for number in (3, 2, 1))
    server.prepare(
        "GET",
        "/experiments",
        (200, ExperimentPage(items=[first, second], next_cursor="c1")),
        (200, ExperimentPage(items=[third], next_cursor=None)),
    )
    assert list(client.list(status=Status.SUCCEEDED, tag="course:dl-101")) == [first, second, third]
    assert [request.query for request in server.requests] == [
        {"status": "succeeded", "tag": "course:dl-101", "limit": "100"},
        {"status": "succeeded", "tag": "course:dl-101", "limit": "100", "cursor": "c1"},
    ]


def test_list_asks_for_no_page_beyond_its_limit(server: PreparedServer, client: Client) -> None:
    page = ExperimentPage(items=[server.experiment(number) for number in (3, 2)], next_cursor="more")
    server.prepare("GET", "/experiments", (200, page))
    assert [experiment.id for experiment in client.list(limit=3)] == [
        page.items[0].id,
        page.items[1].id,
        page.items[0].id,
    ]
    assert [request.query["limit"] for request in server.requests] == ["3", "1"]
    assert list(client.list(limit=0)) == []


def test_wait_returns_the_ended_experiment_and_reports_each_look(server: PreparedServer, client: Client) -> None:
    waiting, running, ended = (
        server.experiment(1, status) for status in (Status.QUEUED, Status.RUNNING, Status.FAILED)
    )
    server.prepare("GET", f"/experiments/{ended.id}", (200, waiting), (200, running), (200, ended))
    seen: list[Experiment] = []
    assert client.wait(ended.id, on_progress=seen.append, poll_seconds=0.0) == ended
    assert seen == [waiting, running, ended]


def test_wait_lets_the_server_hold_the_answer_where_nobody_needs_progress(
    server: PreparedServer, client: Client
) -> None:
    ended = server.experiment(1)
    server.prepare("GET", f"/experiments/{ended.id}", (200, ended))
    client.wait(ended.id)
    assert server.requests[0].query == {"wait": "30.0"}


def test_wait_gives_up_at_its_timeout_and_says_that_the_experiment_goes_on(
    server: PreparedServer, client: Client
) -> None:
    running = server.experiment(1, Status.RUNNING)
    server.prepare("GET", f"/experiments/{running.id}", (200, running))
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=r"running and goes on") as caught:
        client.wait(running.id, timeout=0.2, poll_seconds=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert 0.2 <= time.monotonic() - began < 5


def test_update_sends_only_what_is_given(server: PreparedServer, client: Client) -> None:
    expected = server.experiment(1, name="new", notes="")
    server.prepare("PATCH", f"/experiments/{expected.id}", (200, expected))
    assert client.update(expected.id, name="new", notes="") == expected
    assert server.requests[0].body == {"name": "new", "notes": ""}


def test_cancel_retry_and_delete_reach_their_resources(server: PreparedServer, client: Client) -> None:
    cancelled, queued = server.experiment(1, Status.CANCELLED), server.experiment(1, Status.QUEUED)
    own = f"/experiments/{cancelled.id}"
    server.prepare("POST", f"{own}/cancel", (200, cancelled))
    server.prepare("POST", f"{own}/retry", (202, queued))
    server.prepare("DELETE", own, (204, None))
    assert client.cancel(cancelled.id) == cancelled
    assert client.retry(cancelled.id) == queued
    client.delete(cancelled.id)
    assert [request.method for request in server.requests] == ["POST", "POST", "DELETE"]


def test_a_selection_travels_as_query_parameters(server: PreparedServer, client: Client) -> None:
    server.prepare("GET", "/experiments/exp_1/gradients", (200, server.series({"layer1": [1.0]})))
    client.gradients("exp_1", "outputs", layers=["layer1", "layer2"], statistics=("mean_abs",), start=0, stop=9)
    assert server.requests[0].query == {
        "of": "outputs",
        "layers": "layer1,layer2",
        "statistics": "mean_abs",
        "start": "0",
        "stop": "9",
    }


def test_quantiles_are_asked_for_by_share_and_come_as_arrays(server: PreparedServer, client: Client) -> None:
    reduction = Reduction(method="none", points=2, of_points=2, bucket=1)
    told = Quantiles(
        steps=[0, 25],
        layers=[LayerQuantiles(name="layer1", values={"0.5": [0.25, None], "0.99": [1.0, None]})],
        reduction=reduction,
    )
    mark = Nonfinite(layer="layer1", step=25, statistic="quantile_0.99", value="inf")
    document = server.series({"layer1": [1.0]}, nonfinite=[mark]).model_copy(update={"quantiles": told})
    server.prepare("GET", "/experiments/exp_1/gradients", (200, document))

    series = client.gradients("exp_1", quantiles=(0.5, 0.99), max_points=10)

    assert server.requests[0].query == {"of": "weights", "quantiles": "0.5,0.99", "max_points": "10"}
    assert series.quantiles is not None
    assert series.quantiles.steps.tolist() == [0, 25]
    np.testing.assert_array_equal(series.quantiles["layer1"][0.5], [0.25, np.nan])
    np.testing.assert_array_equal(series.quantiles["layer1"][0.99], [1.0, np.inf])


@pytest.mark.parametrize("part", ["weights", "activations"])
def test_the_other_tensors_have_resources_of_their_own(server: PreparedServer, client: Client, part: str) -> None:
    server.prepare("GET", f"/experiments/exp_1/{part}", (200, server.series({"layer1": [1.0]})))
    assert getattr(client, part)("exp_1", max_points=5).names == ("layer1",)
    assert server.requests[0].query == {"max_points": "5"}


@pytest.mark.parametrize("given", ["../experiments", "a/b", "a?status=failed", "a#b", "..", "a%2Fb"])
def test_an_id_can_not_reach_another_resource(server: PreparedServer, client: Client, given: str) -> None:
    with pytest.raises(ProblemError):
        client.delete(given)
    assert [request.path for request in server.requests] == [f"/experiments/{given}"]


def test_an_experiment_is_not_its_id_and_a_text_is_no_spec(server: PreparedServer, client: Client) -> None:
    experiment: Any = server.experiment(1, Status.QUEUED)
    with pytest.raises(TypeError, match=r"such as experiment\.id, not Experiment"):
        client.gradients(experiment)
    text: Any = '{"network": {}}'
    with pytest.raises(TypeError, match="a Spec or a mapping, not str"):
        client.create(text)
    assert server.requests == []


def test_an_empty_id_is_no_experiment(server: PreparedServer, client: Client) -> None:
    with pytest.raises(ExperimentNotFound):
        client.delete("")
    assert server.requests == []


def test_a_problem_keeps_its_code_its_status_and_every_fault(server: PreparedServer, client: Client) -> None:
    faults = [
        FieldError(pointer=f"/network/{name}", message="is too large", code="range") for name in ("depth", "width")
    ]
    server.prepare("POST", "/experiments", (422, server.problem(422, "INVALID_SPEC", "The spec is refused.", *faults)))
    with pytest.raises(ProblemError) as caught:
        client.create({})
    assert (caught.value.code, caught.value.status) == ("INVALID_SPEC", 422)
    assert caught.value.problem.errors == faults
    assert caught.value.message == ("The spec is refused: /network/depth: is too large; /network/width: is too large")


@pytest.mark.parametrize("body", [b"<html><h1>502 Bad Gateway</h1></html>", b"", b'{"detail": "Not Found"}', b"[]"])
def test_an_error_that_is_no_problem_document_is_shown_as_it_is(
    server: PreparedServer, client: Client, body: bytes
) -> None:
    server.prepare("GET", "/experiments/exp_1", (502, body))
    with pytest.raises(UnexpectedAnswer, match="502 Bad Gateway") as caught:
        client.get("exp_1")
    assert caught.value.status == 502
    assert (body.decode() or "(nothing)") in caught.value.message


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b'{"status": "ready"}', b""])
def test_a_success_that_is_no_document_asks_whether_the_url_is_right(
    server: PreparedServer, client: Client, body: bytes
) -> None:
    server.prepare("GET", "/experiments/exp_1", (200, body))
    with pytest.raises(UnexpectedAnswer, match="is this the right URL"):
        client.get("exp_1")


@pytest.mark.parametrize(("http", "status"), [(200, "ready"), (200, "degraded"), (503, "unavailable")])
def test_a_server_that_is_not_ready_says_what_is_missing(
    server: PreparedServer, client: Client, http: int, status: Any
) -> None:
    server.prepare("GET", "/readyz", (http, Readiness(status=status, checks={"database": "down"})))
    assert client.ready() == Readiness(status=status, checks={"database": "down"})


def test_no_server_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=QUICK) as client, pytest.raises(ServerUnreachable) as caught:
        client.ready()
    for hint in (str(port), "gradprobe up", "--url", "GRADPROBE_URL"):
        assert hint in caught.value.message


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(ServerUnreachable, match=r"within 0\.2 s"):
            client.ready()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:port"])
def test_what_is_no_http_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ServerUnreachable, match="URL"):
        Client(url)


def test_the_url_comes_from_the_environment_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Client().url == "http://127.0.0.1:8000"
    monkeypatch.setenv("GRADPROBE_URL", "http://elsewhere:9/")
    assert Client().url == "http://elsewhere:9"
    assert Client("http://given:1").url == "http://given:1"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: PreparedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    server.prepare("GET", "/readyz", (200, Readiness(status="ready", checks={})))
    with Client(server.url) as client:
        assert client.ready().status == "ready"
    with pytest.raises(httpx.ConnectError):  # the proxy would have been asked
        httpx.get(f"{server.url}/readyz")


def test_an_older_client_survives_new_fields(server: PreparedServer, client: Client) -> None:
    document = server.experiment(1).model_dump_json().replace('{"id"', '{"invented": {"later": 1}, "id"', 1)
    server.prepare("GET", "/experiments/exp_1", (200, document.encode()))
    assert client.get("exp_1") == server.experiment(1)


def test_every_error_of_the_client_is_one_of_the_package() -> None:
    for kind in (ProblemError, ServerUnreachable, UnexpectedAnswer, WaitTimeout):
        assert issubclass(kind, GradprobeError)


def test_a_prediction_is_asked_for_with_a_spec(server: PreparedServer, client: Client) -> None:
    expected = PredictionDocument.model_validate(predict(Spec()).document())
    server.prepare("POST", "/predictions", (200, expected))
    assert client.predict(Spec()) == client.predict({"name": "x"}) == expected
    assert server.requests[0].body == Spec().model_dump(mode="json")
    assert server.requests[1].body == {"name": "x"}
