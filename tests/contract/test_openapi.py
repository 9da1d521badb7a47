"""The committed OpenAPI document is the one the code gives, and it says all that the contract asks."""

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from service import openapi

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"
PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    generated: dict[str, Any] = json.loads(openapi.text())
    return generated


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_committed_document_is_up_to_date() -> None:
    committed = COMMITTED.read_text(encoding="utf-8").splitlines(keepends=True)
    difference = "".join(
        difflib.unified_diff(committed, openapi.text().splitlines(keepends=True), "committed", "generated")
    )

    assert not difference, f"openapi/openapi.json is not what the code gives; run `make openapi`.\n{difference}"


def test_the_document_is_the_same_every_time() -> None:
    assert openapi.text() == openapi.text()
    assert openapi.text().endswith("}\n")


def test_the_operations_are_those_of_the_contract(document: dict[str, Any]) -> None:
    assert {name: operation["operationId"] for name, operation in operations(document).items()} == {
        "POST /experiments": "create_experiment",
        "GET /experiments": "list_experiments",
        "GET /experiments/{experiment_id}": "read_experiment",
        "PATCH /experiments/{experiment_id}": "change_experiment",
        "DELETE /experiments/{experiment_id}": "delete_experiment",
        "POST /experiments/{experiment_id}/cancel": "cancel_experiment",
        "POST /experiments/{experiment_id}/retry": "retry_experiment",
        "GET /experiments/{experiment_id}/gradients": "read_gradients",
        "GET /experiments/{experiment_id}/gradients/histograms": "read_histograms",
        "GET /experiments/{experiment_id}/weights": "read_weights",
        "GET /experiments/{experiment_id}/activations": "read_activations",
        "GET /experiments/{experiment_id}/metrics": "read_metrics",
        "GET /experiments/{experiment_id}/events": "watch_experiment",
        "GET /experiments/{experiment_id}/diagnosis": "read_diagnosis",
        "GET /experiments/{experiment_id}/export": "export_experiment",
        "POST /experiments/{experiment_id}/remedies": "create_remedies",
        "GET /experiments/{experiment_id}/remedies": "list_remedies",
        "GET /remedies/{remedies_id}": "read_remedies",
        "POST /remedies/{remedies_id}/cancel": "cancel_remedies",
        "DELETE /remedies/{remedies_id}": "delete_remedies",
        "POST /runs": "create_run",
        "POST /runs/{experiment_id}/statistics": "report_statistics",
        "POST /runs/{experiment_id}/end": "end_run",
        "POST /sweeps": "create_sweep",
        "GET /sweeps": "list_sweeps",
        "GET /sweeps/{sweep_id}": "read_sweep",
        "GET /sweeps/{sweep_id}/comparison": "compare_sweep",
        "POST /sweeps/{sweep_id}/cancel": "cancel_sweep",
        "DELETE /sweeps/{sweep_id}": "delete_sweep",
        "GET /comparisons": "read_comparison",
        "POST /predictions": "create_prediction",
        "GET /metrics": "read_figures",
        "GET /livez": "live",
        "GET /readyz": "ready",
    }


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        errors = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert {"422", "500", "503"} <= set(errors), name
        if "{experiment_id}" in name:
            assert "404" in errors, name
        if "requestBody" in operation:
            assert {"400", "413", "415"} <= set(errors), name
        for status, answer in errors.items():
            if (name, status) != ("GET /readyz", "503"):
                assert answer["content"] == {"application/problem+json": PROBLEM}, (name, status)


def test_what_asks_for_a_key_says_so_and_how_it_is_refused(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["security"] == [{"key": []}, {}]
    opened = {name for name, operation in operations(document).items() if operation.get("security") == []}
    assert opened == {"GET /livez", "GET /readyz"}
    for name, operation in operations(document).items():
        assert ({"401", "403"} <= set(operation["responses"])) == (name not in opened), name


def test_what_can_be_sent_on_a_condition_says_so(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        headers = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "header"}
        # Trying its remedies changes nothing of the experiment itself; a run's reports are known by their steps.
        unconditional = {"create_remedies", "report_statistics", "end_run"}
        changes = (
            "{experiment_id}" in name and not name.startswith("GET") and operation["operationId"] not in unconditional
        )
        assert ("if-match" in headers) == ("412" in operation["responses"]) == changes, name
        if "idempotency-key" in headers:
            assert {"409", "429"} <= set(operation["responses"]), name
    assert "idempotency-key" in {
        parameter["name"] for parameter in document["paths"]["/experiments"]["post"]["parameters"]
    }


def test_headers_that_tell_where_when_and_which_version_are_documented(document: dict[str, Any]) -> None:
    told = {
        name: {status: set(answer.get("headers", {})) for status, answer in operation["responses"].items()}
        for name, operation in operations(document).items()
    }
    for name, answers in told.items():
        if name.startswith("GET /experiments") and not name.endswith("/events"):
            assert {"ETag"} <= answers["200"], name
            assert {"ETag"} <= answers["304"], name
        if "202" in answers:
            assert answers["202"] >= {"Location", "Retry-After"}, name
    assert "Link" in told["GET /experiments"]["200"]
    assert "Idempotency-Replayed" in told["POST /experiments"]["202"]
    assert "ETag" in told["PATCH /experiments/{experiment_id}"]["200"]
    assert "Retry-After" in told["GET /experiments/{experiment_id}"]["200"]
    for operation in operations(document).values():
        for answer in operation["responses"].values():
            assert all(
                header["schema"]["type"] in ("string", "integer") for header in answer.get("headers", {}).values()
            )


def test_parameters_that_reduce_have_their_bounds(document: dict[str, Any]) -> None:
    def parameter(part: str, name: str) -> dict[str, Any]:
        listed = document["paths"]["/experiments/{experiment_id}/" + part]["get"]["parameters"]
        [found] = [entry for entry in listed if entry["name"] == name]
        assert found["description"]
        bounds: dict[str, Any] = found["schema"]["anyOf"][0]
        return bounds

    for part in ("gradients", "weights", "activations", "metrics", "gradients/histograms"):
        assert (parameter(part, "max_points")["minimum"], parameter(part, "max_points")["maximum"]) == (1, 100_000)
    assert (
        parameter("gradients/histograms", "bins")["minimum"],
        parameter("gradients/histograms", "bins")["maximum"],
    ) == (
        1,
        512,
    )
    assert parameter("gradients", "quantiles")["type"] == "string"


def test_every_reference_leads_to_a_schema(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    schemas = document["components"]["schemas"]

    references = {piece.split('"')[0] for piece in text.split('"$ref": "#/components/schemas/')[1:]}
    assert references <= set(schemas)
    assert "HTTPValidationError" not in schemas


def test_everything_has_a_title_and_a_summary_and_submitting_has_examples(document: dict[str, Any]) -> None:
    assert document["info"]["title"] == "Gradprobe"
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["description"], name
    body = document["paths"]["/experiments"]["post"]["requestBody"]["content"]["application/json"]
    assert len(body["examples"]) >= 2


def test_the_command_writes_the_document_to_the_file_it_is_given(tmp_path: Path) -> None:
    openapi.main([str(tmp_path / "openapi.json")])

    assert (tmp_path / "openapi.json").read_text(encoding="utf-8") == openapi.text()
