"""The diagnosis over HTTP: live and afterwards, by other thresholds and as other tools, from the store alone."""

from typing import Any

import httpx
import numpy as np
import pytest
from httpx_sse import EventSource, ServerSentEvent

from gradprobe.blocks import StatisticsBlock
from gradprobe.client import Client
from gradprobe.diagnosis import VERSION
from gradprobe.resources import DiagnosisDocument, FindingEvent, PredictionDocument
from gradprobe.store import experiments, leases
from gradprobe.store.database import Database
from tests.integration.service import measured
from tests.unit.gradprobe.diagnosis.made import Made, spec_of

SIGMOID = {"depth": 6, "width": 10, "activation": "sigmoid", "initialization": "xavier_uniform"}


def trained(database: Database, made: Made, end: bool = True) -> str:
    """An experiment of the made run's spec with what it measured, stored as a worker stores it."""
    with database.write() as connection:
        created = experiments.create(connection, made.spec, 3)
    record, lease = measured.claim(database, created.id)
    for tensor, values in made.values.items():
        measured.store(
            database, record, tensor, StatisticsBlock(made.steps.astype(np.int64), values.astype(np.float32))
        )
    with database.write() as connection:
        leases.renew(connection, lease, iteration=len(made.steps))
    if end:
        measured.finish(database, lease)
    return created.id


def diagnosis(client: httpx.Client, identifier: str, query: str = "") -> dict[str, Any]:
    response = client.get(f"/experiments/{identifier}/diagnosis{query}")
    assert response.status_code == 200, response.text
    DiagnosisDocument.model_validate(response.json())
    return dict(response.json())


def test_a_sigmoid_net_is_told_to_vanish_with_its_cause_and_remedy(client: httpx.Client, database: Database) -> None:
    document = diagnosis(client, trained(database, Made(spec_of(SIGMOID))))
    assert (document["verdict"], document["at_initialization"]) == ("vanishing", "vanishing")
    assert (document["cause"], document["version"], document["preset"]) == ("activation_derivative", VERSION, None)
    finding = document["findings"][0]
    assert (finding["first_step"], finding["ongoing"]) == (0, True)
    assert finding["remedies"][0]["patch"]["network"]["activation"] == {"name": "relu"}
    assert finding["evidence"]["predicted"] == pytest.approx(finding["evidence"]["log_delta_ratio"], abs=2.0)
    assert document["prediction"]["phase"] == "ordered"
    assert [layer["name"] for layer in document["attribution"]["layers"]] == [f"layer{n}" for n in range(1, 6)]


def test_a_healthy_net_has_no_finding(client: httpx.Client, database: Database) -> None:
    document = diagnosis(client, trained(database, Made(spec_of())))
    assert (document["verdict"], document["findings"]) == ("healthy", [])
    assert document["summary"] == "Healthy: gradients reach every layer."


def test_it_is_there_while_the_experiment_runs(client: httpx.Client, database: Database) -> None:
    identifier = trained(database, Made(spec_of(SIGMOID), steps=3), end=False)
    document = diagnosis(client, identifier)
    assert (document["status"], document["verdict"], document["in_training"]) == ("running", "vanishing", "undecided")


def test_the_same_measurements_by_other_thresholds(client: httpx.Client, database: Database) -> None:
    identifier = trained(database, Made(spec_of(SIGMOID)))
    document = diagnosis(client, identifier, "?depth_limit=20")
    assert (document["verdict"], document["thresholds"]["depth_limit"]) == ("healthy", 20.0)
    assert diagnosis(client, identifier)["verdict"] == "vanishing"


@pytest.mark.parametrize("preset", ["smdebug", "autotrainer", "mindinsight"])
def test_the_same_measurements_as_other_tools_judge_them(client: httpx.Client, database: Database, preset: str) -> None:
    made = Made(spec_of({"depth": 20, "width": 128, "initialization": "xavier_normal"}))
    identifier = trained(database, made)
    assert diagnosis(client, identifier)["verdict"] == "vanishing"
    document = diagnosis(client, identifier, f"?preset={preset}")
    assert (document["verdict"], document["preset"], document["thresholds"]) == ("healthy", preset, {})


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("depth_limit=0", "/query/depth_limit"),
        ("band=nan", "/query/band"),
        ("lost=2", "/query/lost"),
        ("preset=debugger", "/query/preset"),
        ("threshold=1", "/query/threshold"),
        ("preset=smdebug&band=2", "/query/band"),
    ],
)
def test_what_means_nothing_is_refused(client: httpx.Client, experiment_id: str, query: str, pointer: str) -> None:
    response = client.get(f"/experiments/{experiment_id}/diagnosis?{query}")
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]


def test_it_is_unchanged_until_more_is_stored(client: httpx.Client, database: Database) -> None:
    path = f"/experiments/{trained(database, Made(spec_of()))}/diagnosis"
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path).content == first.content


def test_a_prediction_needs_no_experiment(client: httpx.Client) -> None:
    response = client.post("/predictions", json={"network": {"activation": "relu", "initialization": "he_normal"}})
    assert response.status_code == 200
    found = PredictionDocument.model_validate(response.json())
    assert (found.phase, found.depth_limit, found.critical_gain) == ("critical", None, pytest.approx(1.0))
    assert client.post("/predictions", json={"network": {"depth": 0}}).status_code == 422


def told(client: httpx.Client, identifier: str, query: str = "", last: str = "") -> list[ServerSentEvent]:
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", f"/experiments/{identifier}/events{query}", headers=headers) as response:
        assert response.status_code == 200
        return [event for event in EventSource(response).iter_sse() if event.event != "message"]


def test_each_finding_is_told_at_the_end_and_after_each_the_rest(client: httpx.Client, database: Database) -> None:
    identifier = trained(database, Made(spec_of(SIGMOID)))
    document = diagnosis(client, identifier)
    events = told(client, identifier)
    kinds = [event.event for event in events]
    found = [event for event in events if event.event == "finding"]
    assert found
    assert kinds == ["progress", "statistics", "status", *["finding"] * len(found), "end"]
    assert [FindingEvent.model_validate_json(event.data).experiment_id for event in found] == [identifier] * len(found)
    assert [event.json() for event in found] == [
        {**finding, "experiment_id": identifier} for finding in document["findings"]
    ]
    assert len({event.id for event in events}) == len(events)
    for position, event in enumerate(events[:-1]):
        rest = told(client, identifier, last=event.id)
        assert [(one.event, one.id, one.data) for one in rest] == [
            (one.event, one.id, one.data) for one in events[position + 1 :]
        ]

    assert [event.event for event in told(client, identifier, "?kinds=finding")] == kinds[3:]
    assert [event.event for event in told(client, identifier, "?kinds=status")] == ["status", "end"]
    with Client(str(client.base_url)) as follower:
        heard = list(follower.events(identifier, kinds=["finding"]))
    assert [event.id for event in heard[:-1]] == [event.id for event in told(client, identifier, "?kinds=finding")[:-1]]
    assert all(isinstance(event.data, FindingEvent) for event in heard[:-1])


def test_a_healthy_end_is_told_without_a_finding(client: httpx.Client, database: Database) -> None:
    assert [event.event for event in told(client, trained(database, Made(spec_of())), "?kinds=finding")] == ["end"]
