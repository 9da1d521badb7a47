"""The API's description: what no route says by itself, and the page that shows it."""

from typing import Any, Final, Literal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gradprobe.resources import FindingEvent, Problem, ProgressEvent, StatisticsEvent, StatusEvent
from service.authentication import OPEN, REFUSALS, SCHEME
from service.problems import documented
from service.static import file_response

Document = dict[str, Any]
#: What no route returns as its whole body: problems, and what events bring.
_MODELS: Final[list[tuple[type[BaseModel], Literal["validation", "serialization"]]]] = [
    (model, "serialization") for model in (Problem, StatusEvent, ProgressEvent, StatisticsEvent, FindingEvent)
]
_PAGE: Final = "docs.html"


def complete(app: FastAPI) -> None:
    """Give the document what holds of every route: the schema of `Problem`, the keys, and how they are refused."""
    generate = app.openapi

    def openapi() -> Document:
        document = generate()
        _, found = models_json_schema(_MODELS, ref_template="#/components/schemas/{model}")
        document["components"]["schemas"] |= found["$defs"]
        _declare_keys(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def add_page(app: FastAPI) -> None:
    """`/docs`: Swagger UI over the contract, under the policy that the dashboard has."""

    def documentation(request: Request) -> Response:
        return file_response(request, _PAGE)

    app.add_api_route("/docs", documentation, include_in_schema=False)


def _declare_keys(document: Document) -> None:
    document["components"]["securitySchemes"] = {"key": dict(SCHEME)}
    # An empty alternative: without a key where the server asks for none.
    document["security"] = [{"key": []}, {}]
    refusals = {str(status): answer for status, answer in documented(*REFUSALS).items() if status in REFUSALS}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in OPEN:
                operation["security"] = []
            else:
                operation["responses"] |= refusals
