"""A request and the training that it asked for are one trace, in whatever collects OpenTelemetry's."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from gradprobe import Client, telemetry
from gradprobe.embedded import Stack
from gradprobe.errors import TelemetryUnavailable
from gradprobe.settings import Settings
from tests.acceptance.conftest import SYNTHETIC, until
from tests.acceptance.test_logs import lines

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Collector:
    """What a collector got: each span with the name of the service that sent it."""

    url: str = ""
    spans: list[tuple[str, Any]] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            known = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(known["service.name"], span) for span in scope.spans]

    def named(self, name: str) -> Any:
        return next((span for _, span in self.spans.copy() if span.name == name), None)


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def traced(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with Stack(Settings(data_directory=tmp_path / "data", telemetry=True, log_format="json")) as running:
        yield running


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.thorough
def test_a_training_belongs_to_the_trace_of_its_request(traced: Stack, collector: Collector) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    posted = httpx.post(f"{traced.url}/experiments", json=SYNTHETIC, headers=headers).raise_for_status()
    identifier = posted.json()["id"]
    with Client(traced.url) as client:
        client.wait(identifier, timeout=60)
    until(lambda: collector.named("attempt"), 20, "the worker's span")

    request, attempt = collector.named("POST /experiments"), collector.named("attempt")
    assert {span.trace_id.hex() for span in (request, attempt)} == {TRACE}
    assert (request.parent_span_id.hex(), attempt.parent_span_id) == (PARENT, request.span_id)
    assert attributes(request).items() >= {"http.route": "/experiments", "http.response.status_code": 202}.items()
    told = attributes(attempt)
    assert (told["gradprobe.experiment_id"], told["gradprobe.status"]) == (identifier, "succeeded")
    assert told["gradprobe.request_id"] == attributes(request)["gradprobe.request_id"]
    inside = {span.name for _, span in collector.spans if span.parent_span_id == attempt.span_id}
    assert inside == {"load data set", "store", "diagnose"}
    assert {service for service, _ in collector.spans} == {"gradprobe-service", "gradprobe-worker"}
    assert collector.named("GET /livez") is collector.named("GET /readyz") is None
    for log in ("service.log", "worker.log"):
        assert TRACE in {line.get("trace_id") for line in lines(traced.logs / log)}


def test_a_collector_that_is_away_costs_nothing_but_its_traces() -> None:
    """In a process of its own: the provider is the process's."""
    program = (
        "import logging, time; logging.disable(); from gradprobe import telemetry; telemetry.start('test'); "
        "began = time.monotonic()\n"
        "with telemetry.span('one') as span: span.set_attributes({'a': 1})\n"
        "assert time.monotonic() - began < 1; assert telemetry.traceparent() is None; telemetry.stop()\n"
    )
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)


def test_nothing_of_it_is_imported_where_it_is_off() -> None:
    program = (
        "import sys, service.app, worker.app; from gradprobe import telemetry\n"
        "with telemetry.span('one') as span: span.update_name('two')\n"
        "assert telemetry.traceparent() is None and telemetry.log_fields() == {}\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_where_it_is_missing_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "find_spec", lambda name: None)
    with pytest.raises(TelemetryUnavailable, match=r"pip install 'gradprobe\[telemetry\]'"):
        telemetry.start("test")
