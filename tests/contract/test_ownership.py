"""Another's experiment is not there: every operation of the OpenAPI document, asked with somebody else's key.

An operation on `{experiment_id}` is covered by itself. Any other has to be named in `PROBES` or `TELLS_OF_NOBODY`, with
what shows that it keeps owners apart; one that is not named fails here.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from gradprobe.access import Scope
from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.statistics import HISTOGRAM_TENSORS, STATISTICS
from gradprobe.store import experiments
from gradprobe.store.database import Database
from gradprobe.store.experiments import Record
from service.authentication import READING_POSTS
from tests.integration.service import measured
from tests.integration.service.keyed import bearer
from tests.integration.service.problem_shape import assert_problem
from tests.integration.service.serving import serving

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[2] / "openapi" / "openapi.json").read_text())
MARK = "never-told-to-bob"
UNKNOWN = "exp_" + "0" * 26
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
        path = self.path.replace("{experiment_id}", identifier)
        body = {} if self.has_body else None
        with client.stream(self.method, path, json=body, headers=headers) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                return httpx.Response(response.status_code, headers=response.headers)
            response.read()
        return response


OPERATIONS = [
    Operation(method.upper(), path, operation["operationId"], operation.get("security"), "requestBody" in operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
OF_ONE = [operation for operation in OPERATIONS if "{experiment_id}" in operation.path]
OTHERS = [operation for operation in OPERATIONS if "{experiment_id}" not in operation.path]
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
    record = world.alices()
    own = world.client.get(f"/experiments/{record.id}", headers=world.alice).headers["etag"]

    for trick in (*TRICKS, {"If-None-Match": own}, {"If-Match": own}):
        answers = []
        for identifier in (record.id, UNKNOWN):
            answer = operation.ask(world.client, identifier, world.bob | trick)
            problem = assert_problem(answer, 404, "EXPERIMENT_NOT_FOUND")
            del problem["request_id"]
            answers.append(json.dumps(problem).replace(identifier, "ID"))
        assert answers[0] == answers[1], trick
        assert MARK not in answers[0]
    assert world.record(record.id) == record

    # Alice's key opens it, and an admin's; without this, all of the above would be true of a typing error.
    assert operation.ask(world.client, record.id, world.root).status_code != 404
    if operation.method != "DELETE":
        assert operation.ask(world.client, record.id, world.alice).status_code != 404


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


#: What shows that an operation on no single experiment keeps owners apart.
PROBES: dict[str, Callable[[World], None]] = {"create_experiment": probe_create, "list_experiments": probe_list}
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
    assert len(OF_ONE) >= 10
    assert {operation.id for operation in OTHERS} >= {*PROBES, "live", "ready"}
    assert {operation.path for operation in OPERATIONS if operation.security == []} == {"/livez", "/readyz"}


@pytest.mark.parametrize("operation", CLOSED, ids=lambda operation: operation.id)
def test_no_operation_answers_without_a_key(world: World, operation: Operation) -> None:
    record = world.alices()

    for headers in ({}, {"Authorization": "Bearer gp_" + "A" * 43}):
        assert operation.ask(world.client, record.id, headers).status_code == 401
    assert world.record(record.id) == record


@pytest.mark.parametrize("operation", CHANGING, ids=lambda operation: operation.id)
def test_a_key_that_may_only_read_changes_nothing(world: World, operation: Operation) -> None:
    assert_problem(operation.ask(world.client, world.alices().id, world.reader), 403, "MISSING_SCOPE")
