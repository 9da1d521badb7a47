"""The dashboard: a static page that reads nothing but the public API."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response

from gradprobe import __version__
from service.dependencies import ServiceDependency
from service.parsing import Route
from service.rendering import json_response
from service.static import PREFIX, assets, file_response

router = APIRouter(route_class=Route, tags=["service"], include_in_schema=False)

_PAGE: Final = "index.html"


@router.get("/")
def index(request: Request, service: ServiceDependency) -> Response:
    """The dashboard for who asks for HTML, as browsers do; for everybody else, where to go from here."""
    if "text/html" in request.headers.get("accept", ""):
        answer = file_response(request, _PAGE)
    else:
        answer = json_response(_directory(service.settings.documentation))
    answer.headers["Vary"] = "Accept"
    return answer


@router.get(PREFIX + "{name}")
def read_asset(request: Request, name: str) -> Response:
    """A file of the dashboard; its pages have paths of their own."""
    if name not in assets() or name.endswith(".html"):
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return file_response(request, name)


def _directory(documentation: bool) -> dict[str, Any]:
    links = {"experiments": "/experiments", "ready": "/readyz"}
    if documentation:
        links |= {"documentation": "/docs", "openapi": "/openapi.json"}
    return {"name": "Gradprobe", "version": __version__, "links": links}
