"""Every committed example is true of a running service, and of the OpenAPI document."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from jsonschema import Draft202012Validator

from gradprobe.settings import Settings
from gradprobe.spec import Spec
from gradprobe.store.database import Database
from tests.contract.matching import differences
from tests.integration.service.serving import serving
from tests.integration.service.test_diagnosis import trained
from tests.unit.gradprobe.diagnosis.made import Made

FOLDER = Path(__file__).parents[2] / "openapi"
EVENTS = "text/event-stream"
SCHEMAS = {
    event: {"$ref": f"#/components/schemas/{schema}"}
    for event, schema in {
        "status": "StatusEvent",
        "progress": "ProgressEvent",
        "statistics": "StatisticsEvent",
        "finding": "FindingEvent",
        "end": "Experiment",
    }.items()
}
FILES = sorted((FOLDER / "examples").glob("*.json"))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDER / "openapi.json").read_text(encoding="utf-8"))
    return loaded


#: Answers with an id of their own, by the path that was posted to, and what stands for it in the examples.
MADE = {"/experiments": "{id}", "/sweeps": "{sweep}", "/remedies": "{remedies}"}
FIRST_MEASURED = 60


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    chosen = Settings(data_directory=tmp_path, redis_url="redis://127.0.0.1:1/0")
    shutil.copy(sqlite_template, str(chosen.database.database))
    return chosen


@pytest.fixture
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serving(settings) as client:
        yield client


def measured_experiment(settings: Settings) -> str:
    """An experiment of the classic net as a worker leaves it."""
    database = Database(settings.database)
    identifier = trained(database, Made(Spec(), steps=150))
    database.close()
    return identifier


def filled(part: Any, known: dict[str, str]) -> Any:
    text = json.dumps(part)
    for placeholder, identifier in known.items():
        text = text.replace(placeholder, identifier)
    return json.loads(text)


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def send(client: httpx.Client, request: dict[str, Any]) -> httpx.Response:
    content = json.dumps(request["body"]) if "body" in request else request.get("text")
    headers = ({"Content-Type": "application/json"} if content is not None else {}) | request.get("headers", {})
    return client.request(request["method"], request["path"], content=content, headers=headers)


def operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    for template, methods in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.split("?", maxsplit=1)[0]):
            found: dict[str, Any] | None = methods.get(method.lower())
            return found
    return None


def violations(document: dict[str, Any], schema: dict[str, Any], instance: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    return [error.message for error in Draft202012Validator(whole).iter_errors(instance)]


def body_of(response: httpx.Response) -> Any:
    """The document; of a stream its events, without what only tells when to connect again."""
    if not response.headers["content-type"].startswith(EVENTS):
        return response.json()
    return [
        {"event": event.event, "id": event.id, "data": event.json()}
        for event in EventSource(response).iter_sse()
        if event.data
    ]


def undocumented(document: dict[str, Any], response: httpx.Response) -> list[str]:
    """What the OpenAPI document does not say of this answer."""
    request = response.request
    described = operation(document, request.method, request.url.path)
    if described is None:  # no such operation: all the document can say is how errors look
        problem = {"$ref": "#/components/schemas/Problem"}
        return violations(document, problem, response.json()) if response.is_error else ["no such operation"]
    answer = described["responses"].get(str(response.status_code))
    if answer is None:
        return [f"{request.method} {request.url.path} can't answer {response.status_code}"]
    if not response.content:
        return ["a body is declared, none came"] if "content" in answer else []
    media_type = response.headers["content-type"].partition(";")[0]
    declared = answer["content"].get(media_type)
    if declared is None:
        return [f"{media_type} is not declared"]
    if media_type == EVENTS:
        return [
            message
            for event in body_of(response)
            for message in violations(document, SCHEMAS[event["event"]], event["data"])
        ]
    told = response.text if media_type.startswith("text/") else response.json()
    found = violations(document, declared["schema"], told)
    if response.is_success and request.content:
        body = described["requestBody"]["content"]["application/json"]["schema"]
        found += violations(document, body, json.loads(request.content))
    return found


def test_every_example_is_what_the_service_answers(
    client: httpx.Client, settings: Settings, document: dict[str, Any]
) -> None:
    known: dict[str, str] = {}
    for path in FILES:
        example = load(path)
        if int(path.name[:2]) == FIRST_MEASURED:  # not before: the lists of those before it have no such one
            known["{measured}"] = measured_experiment(settings)
        response = send(client, filled(example["request"], known))
        made = response.headers.get("location", "").rpartition("/")[0]
        if response.status_code in (201, 202) and made in MADE and response.request.method == "POST":
            known[MADE[made]] = response.json()["id"]
        expected = filled(example["response"], known)

        assert response.status_code == expected["status"], f"{path.name}: {response.text}"
        for name, value in expected.get("headers", {}).items():
            assert not list(differences(value, response.headers.get(name), name)), path.name
        if "body" in expected:
            assert not list(differences(expected["body"], body_of(response))), path.name
        assert not undocumented(document, response), path.name


def test_every_example_has_a_title_and_its_own_place() -> None:
    examples = [load(path) for path in FILES]

    assert len({example["title"] for example in examples}) == len(FILES)
    assert all(set(example) == {"title", "request", "response"} for example in examples)
    assert [int(path.name[:2]) for path in FILES] == list(range(1, len(FILES) + 1))


def test_every_operation_has_an_example(document: dict[str, Any]) -> None:
    shown = {
        id(operation(document, example["request"]["method"], example["request"]["path"]))
        for example in map(load, FILES)
        if example["response"]["status"] < 300
    }
    described = {
        id(operation): f"{method} {path}"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }

    assert {name for key, name in described.items() if key not in shown} == set()


def test_the_document_is_valid_json_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("expected", "found", "differs"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"b": 1}, True),
        ([1], [1, 2], True),
        ([{"a": "<number>"}], [{"a": 0.5}], False),
        ("<number>", True, True),
        ("<time>", "2026-01-01T00:00:00.000Z", False),
        ("<time>", "2026-01-01T00:00:00Z", True),
        ("<id>", "exp_1", True),
        ("<text>", "", True),
        (1, True, True),
        (None, 0, True),
        ({}, [], True),
    ],
)
def test_the_comparison_sees_what_differs(expected: Any, found: Any, differs: bool) -> None:
    assert bool(list(differences(expected, found))) == differs
