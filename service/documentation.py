"""The API's description: what no route says by itself, and the page that shows it."""

import base64
import hashlib
import re
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gradprobe.resources import FindingEvent, Problem, ProgressEvent, StatisticsEvent, StatusEvent
from service.authentication import OPEN, REFUSALS, SCHEME
from service.problems import documented

Document = dict[str, Any]
#: What no route returns as its whole body: problems, and what events bring.
_MODELS: Final[list[tuple[type[BaseModel], Literal["validation", "serialization"]]]] = [
    (model, "serialization") for model in (Problem, StatusEvent, ProgressEvent, StatisticsEvent, FindingEvent)
]
_LIBRARY: Final = "https://cdn.jsdelivr.net"
_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)


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
    """`/docs`, with a policy of its own: it runs Swagger UI's script and the few lines that start it, nothing else."""
    html = get_swagger_ui_html(openapi_url="/openapi.json", title=app.title)
    policy = _policy(bytes(html.body).decode())

    async def documentation() -> Response:
        return Response(html.body, HTTPStatus.OK, {"Content-Security-Policy": policy}, "text/html; charset=utf-8")

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


def _policy(html: str) -> str:
    scripts = " ".join(f"'{_hash(script)}'" for script in _INLINE_SCRIPT.findall(html))
    return (
        f"default-src 'none'; script-src {_LIBRARY} {scripts}; style-src {_LIBRARY} 'unsafe-inline'; "
        "img-src 'self' data: https://fastapi.tiangolo.com; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
