"""Traces by OpenTelemetry, where they are asked for; where they are not, nothing of it is even imported.

A request and the training that it asked for are one trace: the `traceparent` of the request's span stands in the
experiment's row, because a message carries an id and nothing else, and may be lost. Where traces go, under which name
and which of them, say OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from gradprobe.errors import TelemetryUnavailable

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Attributes = Mapping[str, str | int | float | bool]
Kind = Literal["INTERNAL", "SERVER", "CONSUMER"]


class Span(Protocol):
    """What is measured by `span`, as far as it can be told while it goes on."""

    def update_name(self, name: str) -> None:
        """Name it, where its name was not known when it began."""

    def set_attributes(self, attributes: Attributes) -> None:
        """Add to what is known of it."""


class _Nothing:
    def update_name(self, name: str) -> None:
        pass

    def set_attributes(self, attributes: Attributes) -> None:
        pass


#: What stands for a span where none is measured.
NOTHING: Final[Span] = _Nothing()
_providers: Final[list["TracerProvider"]] = []


def require_installed() -> None:
    """Raises TelemetryUnavailable where the extra `telemetry` is not installed; imports none of it."""
    try:
        found = find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise TelemetryUnavailable


def start(component: str) -> None:
    """Trace this process from now on, by OTLP over HTTP; `component` is its name where the environment gives none.

    Raises:
        TelemetryUnavailable: the extra `telemetry` is not installed.
    """
    require_installed()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - only where
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - it is on
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    name = os.environ.get("OTEL_SERVICE_NAME") or f"gradprobe-{component}"
    instance = f"{socket.gethostname()}:{os.getpid()}"
    provider = TracerProvider(resource=Resource.create({"service.name": name, "service.instance.id": instance}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    stop()
    _providers.append(provider)


def stop() -> None:
    """Send what was not sent yet, and trace no longer."""
    while _providers:
        _providers.pop().shutdown()


@contextmanager
def span(
    name: str,
    parent: str | None = None,
    kind: Kind = "INTERNAL",
    attributes: Attributes | None = None,
    since: float | None = None,
) -> Iterator[Span]:
    """Measure the block as a part of the span around it, or of the trace that the `traceparent` of another names.

    `since`: when it began, in seconds since 1970, where that was before the block.
    """
    if not _providers:
        yield NOTHING
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - only where it is on
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    tracer = _providers[-1].get_tracer("gradprobe")
    began = None if since is None else int(since * 1e9)
    told = dict(attributes or {})
    with tracer.start_as_current_span(name, context, SpanKind[kind], told, start_time=began) as current:
        yield current


def traceparent() -> str | None:
    """The span around here, as W3C's header names it; None where nothing is traced."""
    if not _providers:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def log_fields() -> dict[str, Any]:
    """What a log line has to name so that it is found from its trace."""
    here = traceparent()
    return {"trace_id": here.split("-")[1]} if here else {}
