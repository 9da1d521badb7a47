"""One request can be followed through the logs of all processes."""

import json
from pathlib import Path
from typing import Any

from gradprobe import Client
from gradprobe.embedded import Stack
from tests.acceptance.conftest import SYNTHETIC, curl, until


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ended_in(stack: Stack, identifier: str) -> bool:
    told = [line for line in lines(stack.logs / "worker.log") if line.get("experiment_id") == identifier]
    return "ended: succeeded" in [line["message"] for line in told]


def test_a_request_id_stands_in_the_lines_of_service_and_worker(stack: Stack, client: Client) -> None:
    status, _, posted = curl(
        "-X", "POST", f"{stack.url}/experiments", "-H", "Cookie: name=sesame", "-H", "X-Request-ID: follow-me-1",
        "-H", "Content-Type: application/json", "-d", json.dumps(SYNTHETIC | {"name": "between-us"}),
    )  # fmt: skip
    assert status == 202
    identifier = posted["id"]
    client.wait(identifier, timeout=60)
    until(lambda: ended_in(stack, identifier), 10, "the worker's last line")

    # Whole files: a line of uvicorn's or Celery's that is not JSON would not be read.
    service, worker = lines(stack.logs / "service.log"), lines(stack.logs / "worker.log")
    assert {"uvicorn.error", "service.middleware"} <= {line["logger"] for line in service}
    mine = [line for line in service if line.get("request_id") == "follow-me-1"]
    [access] = [line for line in mine if "milliseconds" in line]
    assert (access["method"], access["route"], access["status"]) == ("POST", "/experiments", 202)
    assert 0 < access["milliseconds"] < 60_000
    assert identifier in [line.get("experiment_id") for line in mine]
    reads = [line for line in service if line.get("experiment_id") == identifier and line.get("method") == "GET"]
    assert {line["route"] for line in reads} >= {"/experiments/{experiment_id}"}
    assert len({line["request_id"] for line in reads}) == len(reads)

    trained = [line for line in worker if line.get("experiment_id") == identifier and "attempt" in line]
    assert trained[0]["message"] == "begins at iteration 0 of 300"
    assert {line["request_id"] for line in trained} == {"follow-me-1"}
    assert {line["attempt"] for line in trained} == {1}
    provenance = client.get(identifier).provenance
    assert provenance is not None
    assert {line["worker"] for line in trained} == {provenance.worker}
    told = (stack.logs / "service.log").read_text() + (stack.logs / "worker.log").read_text()
    assert "sesame" not in told
    assert "between-us" not in told
