"""The application: `gradprobe serve`, or `uvicorn --factory service.app:create_app`."""

import gc
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from gradprobe import __version__, logs, telemetry
from gradprobe.settings import Settings
from service import documentation, problems
from service.authentication import Authentication
from service.dependencies import Service, lifespan
from service.encoding import Compression
from service.middleware import RequestContext
from service.routes import (
    comparisons,
    dashboard,
    diagnosis,
    events,
    experiments,
    exports,
    health,
    predictions,
    remedies,
    runs,
    series,
    sweeps,
)

_DESCRIPTION: Final = """\
Do the gradients of a neural network reach every layer in training? Submit an experiment, and read every layer's
gradient statistics and histograms, live and afterwards.

Every error is a `Problem` (RFC 9457) with a stable `code`. Times are RFC 3339 in UTC.
"""

_METHODS: Final = ("GET", "POST", "PATCH", "DELETE")
_REQUEST_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-ID",
)
_RESPONSE_HEADERS: Final = ("ETag", "Idempotency-Replayed", "Link", "Location", "Retry-After", "X-Request-ID")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service with its database and its broker; neither is needed to start.

    Without settings it is a process of its own: then it reads them, and sees to what the whole process logs.

    Raises:
        TelemetryUnavailable: when traces are asked for and OpenTelemetry is not installed.
        ObjectStoreUnusable: when an object store is set and obstore is not installed.
        DataDirectoryUnusable: when SQLite's directory can't be made.
    """
    chosen = settings or Settings()
    if settings is None:
        logs.configure(chosen.log_format, chosen.log_level)
        if chosen.telemetry:
            telemetry.start("service")
    app = assemble(chosen.documentation, chosen.cors_origins)
    app.state.service = Service(chosen)
    if settings is None:
        _set_aside_what_stays()
    return app


def _set_aside_what_stays() -> None:
    """Keep the garbage collector from walking through all that was imported, 0.1 s each time, while others wait."""
    gc.collect()
    gc.freeze()


def assemble(documented: bool = True, origins: tuple[str, ...] = ()) -> FastAPI:
    """Routes, errors and middleware, bound to no database yet: enough to describe the API."""
    app = FastAPI(
        title="Gradprobe",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        openapi_url="/openapi.json" if documented else None,
        docs_url=None,
        redoc_url=None,
    )
    for part in (
        experiments,
        runs,
        series,
        exports,
        events,
        diagnosis,
        remedies,
        sweeps,
        comparisons,
        predictions,
        health,
        dashboard,
    ):
        app.include_router(part.router)
    problems.install(app)
    app.add_middleware(Authentication)
    app.add_middleware(Compression)
    if origins:
        # Outside of the keys: a browser asks beforehand, without one, whether it may send it.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
        )
    app.add_middleware(RequestContext)
    documentation.complete(app)
    if documented:
        documentation.add_page(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
