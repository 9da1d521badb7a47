"""Remedies that are tried, over HTTP and on both databases: from the diagnosis to paired experiments and a ranking."""

from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gradprobe.group_resources import Remedies, RemediesList
from gradprobe.queue import Doorbell
from gradprobe.settings import Settings
from gradprobe.state import Status
from gradprobe.store import experiments, leases, sweeps
from gradprobe.store.database import Database
from gradprobe.store.listing import Filters
from gradprobe.store.tables import experiments as table
from gradprobe.trial import stages
from tests.integration.service import measured
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.test_diagnosis import SIGMOID, trained
from tests.unit.gradprobe.diagnosis.made import Made, spec_of

SEED = 7


@pytest.fixture
def sigmoid(database: Database) -> str:
    """An experiment that vanishes, with its measurements."""
    return trained(database, Made(spec_of(SIGMOID, training={"seed": SEED}), steps=150))


def post(client: httpx.Client, identifier: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/experiments/{identifier}/remedies", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def finish(database: Database, identifier: str, accuracy: float, mended: bool) -> None:
    """As a worker ends a member of a trial."""
    _, lease = measured.claim(database, identifier)
    result = measured.RESULT | {"test_accuracy": accuracy, "final_loss": 0.3 if mended else 2.2}
    verdict = "healthy" if mended else "vanishing"
    with database.write() as connection:
        leases.note_summary(connection, lease, {"delta_ratio_initial": 1.0 if mended else 0.01})
        leases.finish(connection, lease, Status.SUCCEEDED, result=result, verdict=verdict)


def finish_all(database: Database, document: dict[str, Any], mending: tuple[str, ...]) -> None:
    for member in document["members"]:
        mended = member["change"] in mending
        if member["status"] == "queued":
            finish(database, member["experiment_id"], 0.9 if mended else 0.3, mended)


def advance(database: Database, settings: Settings) -> list[str]:
    with database.write() as connection:
        return stages.advance(connection, settings)


def test_all_remedies_run_beside_the_plain_spec_and_random_changes(
    client: httpx.Client, sigmoid: str, service_settings: Settings
) -> None:
    answer = client.post(f"/experiments/{sigmoid}/remedies", json={})
    document = answer.json()
    Remedies.model_validate(document)
    assert answer.headers["location"] == f"/remedies/{document['id']}"
    assert (document["experiment_id"], document["rule"], document["status"]) == (sigmoid, "vanishing", "queued")
    assert document["seeds"] == [SEED, SEED + 1, SEED + 2]

    told = client.get(f"/experiments/{sigmoid}/diagnosis").json()["findings"]
    proposed = {remedy["id"]: remedy["patch"] for finding in told for remedy in finding["remedies"]}
    changes = document["ranking"]["changes"]
    assert {one["id"]: one["patch"] for one in changes if one["arm"] == "remedy"} == proposed
    assert sum(one["arm"] == "control" for one in changes) == len(proposed)
    assert len(document["members"]) == 3 * (1 + 2 * len(proposed)) == document["counts"]["queued"]
    assert Doorbell(service_settings).depth("any") == len(document["members"])

    members = client.get("/experiments", params={"sweep": document["id"], "limit": 500}).json()["items"]
    base = client.get(f"/experiments/{sigmoid}").json()["spec"]
    for member in members:
        place, changed = member["member"], member["spec"]
        assert changed["training"]["seed"] == place["seed"]
        changed["training"]["seed"] = base["training"]["seed"]
        different = {part for part in changed if changed[part] != base[part]} - {"name"}
        assert bool(different) == (place["arm"] != "plain")
        # A random change may be one of how long is trained; a remedy's never is.
        assert place["arm"] == "control" or "training" not in different
    assert client.get(f"/remedies/{document['id']}").json() == document
    listed = RemediesList.model_validate(client.get(f"/experiments/{sigmoid}/remedies").json())
    assert [one.id for one in listed.items] == [document["id"]]
    assert client.get("/sweeps").json()["items"] == []  # a trial is none of the sweeps


def test_the_ranking_says_which_change_is_enough_and_nothing_more_is_tried(
    client: httpx.Client, database: Database, sigmoid: str, service_settings: Settings
) -> None:
    document = post(client, sigmoid, remedies=["relu", "batch_normalization"], seeds=2)
    finish_all(database, document, ("relu", "batch_normalization"))
    path = f"/remedies/{document['id']}"
    assert client.get(path).json()["status"] == "running"  # until it is known that nothing is to be added
    assert advance(database, service_settings) == []

    found = client.get(path).json()
    assert (found["status"], found["enough"]) == ("ended", "batch_normalization")
    ranking = found["ranking"]
    effect = ranking["changes"][0]["effects"]["test_accuracy"]
    assert (effect["mean"], effect["pairs"]) == (pytest.approx(0.6), 2)
    assert ranking["changes"][0]["against_control"]["mean"] == pytest.approx(0.6)
    assert ranking["changes"][0]["effects"]["log_delta_ratio"]["mean"] == pytest.approx(4.605, abs=0.001)
    assert ranking["plain"]["verdicts"] == {"vanishing": 2}
    assert "alone is enough" in ranking["conclusion"]
    assert advance(database, service_settings) == []


def test_the_best_are_combined_where_no_single_one_is_enough(
    client: httpx.Client, database: Database, sigmoid: str, service_settings: Settings
) -> None:
    document = post(client, sigmoid, remedies=["relu", "batch_normalization"], seeds=2, controls=1)
    finish_all(database, document, ())
    tight = service_settings.model_copy(update={"maximum_active": 1})
    assert advance(database, tight) == []  # no room: they wait
    assert client.get(f"/remedies/{document['id']}").json()["status"] == "running"
    assert advance(database, service_settings) == [document["id"]]
    assert advance(database, service_settings) == []

    grown = client.get(f"/remedies/{document['id']}").json()
    added = [member for member in grown["members"] if member["arm"] == "combination"]
    assert {member["change"] for member in added} <= {
        "relu+batch_normalization", "batch_normalization+relu",
    }  # fmt: skip
    assert [member["seed"] for member in added] == [SEED, SEED + 1]
    spec = client.get(f"/experiments/{added[0]['experiment_id']}").json()["spec"]
    assert (spec["network"]["activation"]["name"], spec["network"]["normalization"]) == ("relu", "batch")
    finish_all(database, grown, (added[0]["change"],))
    ended = client.get(f"/remedies/{document['id']}").json()
    assert (ended["status"], ended["enough"]) == ("ended", added[0]["change"])


def test_a_cancelled_trial_is_not_gone_on_with(
    client: httpx.Client, database: Database, sigmoid: str, service_settings: Settings
) -> None:
    document = post(client, sigmoid, seeds=1)
    path = f"/remedies/{document['id']}"
    answer = client.post(f"{path}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "ended")
    assert client.post(f"{path}/cancel").status_code == 200
    assert advance(database, service_settings) == []
    assert client.get(path).json()["counts"]["cancelled"] == len(document["members"])
    assert client.delete(path).status_code == 204
    assert_problem(client.get(path), 404, "REMEDIES_NOT_FOUND")
    assert client.get(f"/experiments/{sigmoid}").status_code == 200
    assert client.get("/experiments").json()["items"][0]["id"] == sigmoid


def test_what_was_tried_outlives_the_experiment(client: httpx.Client, sigmoid: str) -> None:
    document = post(client, sigmoid, seeds=1, controls=0)
    assert client.delete(f"/experiments/{sigmoid}").status_code == 204
    assert client.get(f"/remedies/{document['id']}").json()["experiment_id"] == sigmoid


def test_a_repeated_request_tries_once(client: httpx.Client, database: Database, sigmoid: str) -> None:
    request = {"url": f"/experiments/{sigmoid}/remedies", "json": {"seeds": 1}, "headers": {"Idempotency-Key": "k"}}
    first, again = client.post(**request), client.post(**request)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    with database.read() as connection:
        number = connection.scalar(select(func.count()).select_from(table))
    assert number == 1 + len(first.json()["members"])


def test_what_can_not_be_tried_says_why(client: httpx.Client, database: Database, sigmoid: str) -> None:
    path = f"/experiments/{sigmoid}/remedies"
    problem = assert_problem(client.post(path, json={"remedies": ["clipping"]}), 422, "UNKNOWN_REMEDY")
    assert problem["errors"][0]["pointer"] == "/remedies"
    assert "it has relu, leaky_relu" in problem["detail"]
    for body, pointer in (({"seeds": 0}, "/seeds"), ({"seeds": 21}, "/seeds"), ({"remedy": []}, "/remedy")):
        fault = assert_problem(client.post(path, json=body), 422, "VALIDATION_FAILED")["errors"][0]
        assert fault["pointer"] == pointer
    healthy = trained(database, Made(spec_of()))
    assert_problem(client.post(f"/experiments/{healthy}/remedies", json={}), 409, "NOTHING_TO_REMEDY")
    waiting = client.post("/experiments", json={}).json()["id"]
    assert_problem(client.post(f"/experiments/{waiting}/remedies", json={}), 409, "NOTHING_TO_REMEDY")
    unknown = "exp_" + "0" * 26
    assert_problem(client.post(f"/experiments/{unknown}/remedies", json={}), 404, "EXPERIMENT_NOT_FOUND")
    assert_problem(client.get("/remedies/swp_" + "0" * 26), 404, "REMEDIES_NOT_FOUND")


def test_two_that_move_a_trial_on_do_it_once(
    client: httpx.Client, database: Database, sigmoid: str, service_settings: Settings
) -> None:
    """A reconciler that read the group before another one moved it on."""
    document = post(client, sigmoid, remedies=["relu", "batch_normalization"], seeds=1, controls=0)
    finish_all(database, document, ())
    with database.read() as connection:
        (read_before,) = sweeps.finished_stages(connection)
    assert advance(database, service_settings) == [document["id"]]
    with database.write() as connection:
        assert not sweeps.advance(connection, read_before, sweeps.COMPLETE)
        assert len(experiments.page(connection, Filters(sweep=document["id"]), None, 50)) == 4
