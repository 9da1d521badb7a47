"""The application: `uvicorn --factory service.app:create_app`."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from gradprobe import __version__
from gradprobe.resources import Problem, ProgressEvent, StatisticsEvent, StatusEvent
from gradprobe.settings import Settings
from service import problems
from service.dependencies import Service, lifespan
from service.encoding import Compression
from service.middleware import RequestContext
from service.routes import events, experiments, health, series

_DESCRIPTION: Final = """\
Do the gradients of a neural network reach every layer in training? Submit an experiment, and read every layer's
gradient statistics and histograms, live and afterwards.

Every error is a `Problem` (RFC 9457) with a stable `code`. Times are RFC 3339 in UTC.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service with its database and its broker; neither is needed to start.

    Raises:
        DataDirectoryUnusable: when SQLite's directory can't be made.
    """
    app = assemble()
    app.state.service = Service(settings or Settings())
    return app


def assemble() -> FastAPI:
    """Routes, errors and middleware, bound to no database yet: enough to describe the API."""
    app = FastAPI(
        title="Gradprobe",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    for router in (experiments.router, series.router, events.router, health.router):
        app.include_router(router)
    problems.install(app)
    app.add_middleware(Compression)
    app.add_middleware(RequestContext)
    _declare_documents(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _declare_documents(app: FastAPI) -> None:
    """Give the document the schemas that no route returns as its whole body: problems, and what events bring."""
    generate = app.openapi
    models = (Problem, StatusEvent, ProgressEvent, StatisticsEvent)

    def openapi() -> dict[str, Any]:
        document = generate()
        _, found = models_json_schema(
            [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
        )
        document["components"]["schemas"] |= found["$defs"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
