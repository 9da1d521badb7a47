"""The dashboard: a static page that reads nothing but the public API."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response

from gradprobe import __version__
from service.dependencies import ServiceDependency
from service.encoding import IDENTITY
from service.parsing import Route
from service.rendering import json_response, not_modified
from service.static import POLICY, PREFIX, assets, encoded

router = APIRouter(route_class=Route, tags=["service"], include_in_schema=False)

_PAGE: Final = "index.html"
_HEADERS: Final = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}


@router.get("/")
def index(request: Request, service: ServiceDependency) -> Response:
    """The dashboard for who asks for HTML, as browsers do; for everybody else, where to go from here."""
    if "text/html" in request.headers.get("accept", ""):
        answer = _file(request, _PAGE)
    else:
        answer = json_response(_directory(service.settings.documentation))
    answer.headers["Vary"] = "Accept"
    return answer


@router.get(PREFIX + "{name}")
def read_asset(request: Request, name: str) -> Response:
    """A file of the dashboard."""
    if name not in assets():
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    coding = request.state.coding
    body, said = encoded(name, coding)
    suffix = "" if coding == IDENTITY else f"-{coding}"
    headers = {**_HEADERS, **said, "ETag": f'"{assets()[name].digest}{suffix}"'}
    return not_modified(request, headers) or Response(body, HTTPStatus.OK, headers, assets()[name].media_type)


def _directory(documentation: bool) -> dict[str, Any]:
    links = {"experiments": "/experiments", "ready": "/readyz"}
    if documentation:
        links |= {"documentation": "/docs", "openapi": "/openapi.json"}
    return {"name": "Gradprobe", "version": __version__, "links": links}
