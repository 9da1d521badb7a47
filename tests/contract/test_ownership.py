"""Another's experiment is not there: every operation of the OpenAPI document, asked with somebody else's key.

An operation on an `{experiment_id}`, a `{sweep_id}` or `{remedies_id}` is covered by itself. Any other has to be named
in `PROBES` or `TELLS_OF_NOBODY`, with what shows that it keeps owners apart; one that is not named fails here.
"""

import base64
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from gradprobe.access import Scope
from gradprobe.identifiers import new_remedies_id, new_sweep_id
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS
from gradprobe.store import experiments, sweeps, tables
from gradprobe.store.database import Database
from gradprobe.store.experiments import Member, Record
from gradprobe.store.sweeps import Group
from gradprobe.trial.design import PLAIN, Design
from service.authentication import READING_POSTS
from tests.integration.service import measured
from tests.integration.service.keyed import bearer
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_text())
MARK = "never-told-to-bob"
#: What has an owner, by the parameter of the paths to it: its kind of id, and the code where there is none.
KINDS = {
    "experiment_id": ("exp_", "EXPERIMENT_NOT_FOUND"),
    "sweep_id": ("swp_", "SWEEP_NOT_FOUND"),
    "remedies_id": ("rem_", "REMEDIES_NOT_FOUND"),
}
#: Headers that name what is somebody else's, or that other servers let change what is asked for.
TRICKS: tuple[dict[str, str], ...] = (
    {},
    {"If-None-Match": "*"},
    {"If-Match": "*"},
    {"Last-Event-ID": "0"},
    {"Range": "bytes=0-"},
    {"Idempotency-Key": "alices"},
    {"X-HTTP-Method-Override": "GET"},
    {"X-Original-URL": "/experiments"},
)


@dataclass(frozen=True)
class Operation:
    """One path and method of the document."""

    method: str
    path: str
    id: str
    security: list[Any] | None
    has_body: bool

    def ask(self, client: httpx.Client, identifier: str, headers: dict[str, str]) -> httpx.Response:
        """The answer; of a stream, that it began."""
        path = re.sub(r"\{\w+\}", identifier, self.path)
        body = BODIES.get(self.id, {}) if self.has_body else None
        with client.stream(self.method, path, json=body, headers=headers) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return httpx.Response(response.status_code, headers=response.headers)
            response.read()
        return response

    @property
    def kind(self) -> str | None:
        """The parameter of its path, where it is of a single thing."""
        return next((name for name in KINDS if f"{{{name}}}" in self.path), None)


#: What a request needs besides defaults.
RUN: dict[str, Any] = {
    "network": {"measured": [{"name": "only", "weight_shape": [2, 3], "output_shape": [2]}]},
    "optimizer": {"name": "SGD", "learning_rate": 0.1},
}
BODIES: dict[str, Any] = {
    "create_sweep": {"axes": {"/training/seed": [0]}},
    "create_run": RUN,
    "report_statistics": {"start": 0, "stop": 1},
}

OPERATIONS = [
    Operation(method.upper(), path, operation["operationId"], operation.get("security"), "requestBody" in operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
OF_ONE = [operation for operation in OPERATIONS if operation.kind is not None]
OTHERS = [operation for operation in OPERATIONS if operation.kind is None]
CLOSED = [operation for operation in OPERATIONS if operation.security != []]
CHANGING = [
    operation for operation in CLOSED if operation.method not in ("GET", "HEAD") and operation.path not in READING_POSTS
]


@dataclass(frozen=True)
class World:
    """A server that asks for keys, and who has one."""

    client: httpx.Client
    database: Database
    alice: dict[str, str]
    bob: dict[str, str]
    reader: dict[str, str]
    root: dict[str, str]

    def alices(self) -> Record:
        """A new ended experiment of Alice with something of every tensor."""
        spec = Spec.model_validate(
            {
                "name": MARK,
                "tags": {"secret": MARK},
                "network": {"depth": 2, "width": 3},
                "training": {"iterations": 4, "batch_size": 2},
                "gradient_clipping": {"kind": "norm", "max_norm": 1.0},
            }
        )
        with self.database.write() as connection:
            made = experiments.create(connection, spec, 3, owner="alice")
        record, lease = measured.claim(self.database, made.id)
        for tensor in STATISTICS:
            measured.write_statistics(self.database, record, tensor, range(4))
        ones = [np.ones(layer.weight_shape, dtype=np.float32) for layer in record.layers]
        for tensor in HISTOGRAM_TENSORS:
            measured.write_counts(self.database, record, tensor, range(4), [ones] * 4)
        measured.finish(self.database, lease)
        return self.record(made.id)

    def alices_group(self, kind: sweeps.Kind) -> Group:
        """A new group of Alice of one experiment, which has ended."""
        design = Design("vanishing", (0,), (PLAIN,))
        definition = {"axes": {"/name": [MARK]}} if kind == "sweep" else design.document()
        place = {"values": {"/name": MARK}} if kind == "sweep" else {"arm": "plain", "change": "plain", "seed": 0}
        spec = Spec.model_validate({"name": MARK, "tags": {"secret": MARK}})
        identifier = new_sweep_id() if kind == "sweep" else new_remedies_id()
        base = spec.model_dump(mode="json")
        group = Group(identifier, kind, base, definition, MARK, experiment_id=self.alices().id, owner="alice")
        with self.database.write() as connection:
            made = sweeps.create(connection, group)
            (member,) = experiments.create_members(connection, made.id, [Member(spec, place)], 3)
        _, lease = measured.claim(self.database, member)
        measured.finish(self.database, lease)
        return made

    def alices_of(self, kind: str) -> str:
        """The id of something new of Alice, by the parameter of the paths to it."""
        if kind == "experiment_id":
            return self.alices().id
        return self.alices_group("sweep" if kind == "sweep_id" else "remedies").id

    def everything(self) -> Any:
        """All rows that somebody may see or change."""
        with self.database.read() as connection:
            return [connection.execute(select(table)).all() for table in (tables.experiments, tables.sweeps)]

    def record(self, identifier: str) -> Record:
        with self.database.read() as connection:
            return experiments.get(connection, identifier)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[World]:
    settings = Settings(
        data_directory=tmp_path_factory.mktemp("owners"), redis_url="redis://127.0.0.1:1/0", authentication="required"
    )
    shutil.copy(sqlite_template, str(settings.database.database))
    database = Database(settings.database)
    scopes = {
        "alice": (Scope.READ, Scope.WRITE),
        "bob": (Scope.READ, Scope.WRITE),
        "reader": (Scope.READ,),
        "root": (Scope.ADMIN,),
    }
    headers = {name: bearer(database, name, scope).headers for name, scope in scopes.items()}
    with serving(settings) as client:
        yield World(client, database, **headers)
    database.close()


@pytest.mark.parametrize("operation", OF_ONE, ids=lambda operation: operation.id)
def test_anothers_experiment_is_not_found_in_the_words_of_one_that_is_not_there(
    world: World, operation: Operation
) -> None:
    assert operation.kind is not None
    hers = world.alices_of(operation.kind)
    prefix, code = KINDS[operation.kind]
    folder = {"exp_": "experiments", "swp_": "sweeps", "rem_": "remedies"}[prefix]
    own = world.client.get(f"/{folder}/{hers}", headers=world.alice).headers["etag"]
    before = world.everything()

    for trick in (*TRICKS, {"If-None-Match": own}, {"If-Match": own}):
        answers = []
        for identifier in (hers, prefix + "0" * 26):
            answer = operation.ask(world.client, identifier, world.bob | trick)
            problem = assert_problem(answer, 404, code)
            del problem["request_id"]
            answers.append(json.dumps(problem).replace(identifier, "ID"))
        assert answers[0] == answers[1], trick
        assert MARK not in answers[0]
    assert world.everything() == before

    # Alice's key opens it, and an admin's; without this, all of the above would be true of a typing error.
    assert operation.ask(world.client, hers, world.root).status_code != 404
    if operation.method != "DELETE":
        assert operation.ask(world.client, hers, world.alice).status_code != 404


def probe_create(world: World) -> None:
    """Alice's key for a repeated request is nobody else's."""
    repeated = {"Idempotency-Key": "probe"}
    first = world.client.post("/experiments", json={"name": MARK}, headers=world.alice | repeated)
    second = world.client.post("/experiments", json={}, headers=world.bob | repeated)

    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["owner"] == "bob"
    assert first.json()["id"] != second.json()["id"]
    assert MARK not in second.text


def probe_list(world: World) -> None:
    """A list holds one's own, whatever it is narrowed to; a cursor of Alice's, or one made up, leads nowhere else."""
    hers = [world.alices() for _ in range(2)]
    world.client.post("/experiments", json={}, headers=world.bob)
    for query in ({}, {"name": MARK}, {"status": "succeeded"}, {"tag": f"secret:{MARK}"}, {"limit": "500"}):
        answer = world.client.get("/experiments", params=query, headers=world.bob)
        assert answer.status_code == 200
        assert {item["owner"] for item in answer.json()["items"]} <= {"bob"}
        assert MARK not in answer.text
        assert world.client.get("/experiments", params=query, headers=world.root).text.count(MARK)

    cursor = world.client.get("/experiments", params={"limit": 1}, headers=world.alice).json()["next_cursor"]
    refused = world.client.get("/experiments", params={"cursor": cursor}, headers=world.bob)
    assert_problem(refused, 422, "INVALID_CURSOR")

    world.client.post("/experiments", json={}, headers=world.bob)
    mine = world.client.get("/experiments", params={"limit": 1}, headers=world.bob).json()["next_cursor"]
    last, fingerprint = json.loads(base64.urlsafe_b64decode(mine + "=="))
    assert last not in {record.id for record in hers}
    made_up = base64.urlsafe_b64encode(json.dumps(["exp_" + "z" * 26, fingerprint]).encode()).decode().rstrip("=")
    answer = world.client.get("/experiments", params={"cursor": made_up}, headers=world.bob)
    assert {item["owner"] for item in answer.json()["items"]} == {"bob"}


def probe_create_sweep(world: World) -> None:
    """As of an experiment: Alice's key for a repeated request is nobody else's, and members are their maker's."""
    repeated = {"Idempotency-Key": "probe-sweep"}
    body = {"axes": {"/training/seed": [0]}}
    first = world.client.post("/sweeps", json=body | {"name": MARK}, headers=world.alice | repeated)
    second = world.client.post("/sweeps", json=body, headers=world.bob | repeated)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json()["owner"] == "bob"
    assert MARK not in second.text
    member = second.json()["members"][0]["experiment_id"]
    assert world.record(member).owner == "bob"


def probe_list_sweeps(world: World) -> None:
    """A list holds one's own; no filter of experiments leads to the members of another's sweep."""
    hers = world.alices_group("sweep")
    world.client.post("/sweeps", json=BODIES["create_sweep"], headers=world.bob)
    answer = world.client.get("/sweeps", headers=world.bob)
    assert {item["owner"] for item in answer.json()["items"]} == {"bob"}
    assert MARK not in answer.text
    assert MARK in world.client.get("/sweeps", headers=world.root).text
    members = {"params": {"sweep": hers.id}}
    assert world.client.get("/experiments", **members, headers=world.bob).json()["items"] == []
    assert len(world.client.get("/experiments", **members, headers=world.alice).json()["items"]) == 1
    cursor = world.client.get("/sweeps", params={"limit": 1}, headers=world.root).json()["next_cursor"]
    refused = world.client.get("/sweeps", params={"cursor": cursor}, headers=world.bob)
    assert_problem(refused, 422, "INVALID_CURSOR")


def probe_comparison(world: World) -> None:
    """One that is another's among one's own is not there, in the words of one that is not there at all."""
    hers = world.alices().id
    own = world.client.post("/experiments", json={}, headers=world.bob).json()["id"]
    told = []
    for identifier in (hers, "exp_" + "0" * 26):
        query = {"experiments": f"{own},{identifier}"}
        answer = world.client.get("/comparisons", params=query, headers=world.bob)
        problem = assert_problem(answer, 404, "EXPERIMENT_NOT_FOUND")
        told.append(problem["detail"].replace(identifier, "ID"))
        assert MARK not in answer.text
    assert told[0] == told[1]
    assert world.client.get("/comparisons", params={"experiments": hers}, headers=world.alice).status_code == 200
    assert world.client.get("/comparisons", params={"experiments": own}, headers=world.bob).status_code == 200


#: What shows that an operation on no single experiment keeps owners apart.
def probe_create_run(world: World) -> None:
    """A run is its maker's, and a key of one's idempotent requests says nothing of another's."""
    headers = {"Idempotency-Key": "one run"}
    hers = world.client.post("/runs", json=RUN, headers=world.alice | headers).json()
    his = world.client.post("/runs", json=RUN, headers=world.bob | headers).json()
    assert (hers["owner"], his["owner"]) == ("alice", "bob")
    assert hers["id"] != his["id"]
    report = {"start": 0, "stop": 1}
    answer = world.client.post(f"/runs/{hers['id']}/statistics", json=report, headers=world.bob)
    assert_problem(answer, 404, "EXPERIMENT_NOT_FOUND")
    assert world.client.post(f"/runs/{hers['id']}/statistics", json=report, headers=world.alice).status_code == 200


PROBES: dict[str, Callable[[World], None]] = {
    "create_experiment": probe_create,
    "create_run": probe_create_run,
    "list_experiments": probe_list,
    "create_sweep": probe_create_sweep,
    "list_sweeps": probe_list_sweeps,
    "read_comparison": probe_comparison,
}
#: Operations that read nothing of anybody's.
TELLS_OF_NOBODY = {"live", "ready", "create_prediction", "read_figures"}


@pytest.mark.parametrize("operation", OTHERS, ids=lambda operation: operation.id)
def test_every_other_operation_keeps_owners_apart(world: World, operation: Operation) -> None:
    if operation.id in TELLS_OF_NOBODY:
        world.alices()
        answer = operation.ask(world.client, "", world.bob)
        assert MARK not in answer.text
        assert "exp_" not in answer.text
        return
    assert operation.id in PROBES, "say in PROBES or TELLS_OF_NOBODY how this operation keeps owners apart"
    PROBES[operation.id](world)


def test_some_operation_is_of_every_kind() -> None:
    assert len(OF_ONE) >= 20
    assert {operation.kind for operation in OF_ONE} == set(KINDS)
    assert {operation.id for operation in OTHERS} >= {*PROBES, "live", "ready"}
    assert {operation.path for operation in OPERATIONS if operation.security == []} == {"/livez", "/readyz"}


@pytest.mark.parametrize("operation", CLOSED, ids=lambda operation: operation.id)
def test_no_operation_answers_without_a_key(world: World, operation: Operation) -> None:
    hers = world.alices_of(operation.kind or "experiment_id")
    before = world.everything()

    for headers in ({}, {"Authorization": "Bearer gp_" + "A" * 43}):
        assert operation.ask(world.client, hers, headers).status_code == 401
    assert world.everything() == before


@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.id)
def test_a_key_that_may_only_read_changes_nothing(world: World, operation: Operation) -> None:
    hers = world.alices_of(operation.kind or "experiment_id")
    assert_problem(operation.ask(world.client, hers, world.reader), 403, "MISSING_SCOPE")
