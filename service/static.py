"""The files of the dashboard and of `/docs`: pages, styles, modules, and libraries that installed packages bring."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import zstandard
from fastapi import Request, Response

from service.encoding import IDENTITY, encode
from service.rendering import not_modified

#: Where the files are, below the server's root.
PREFIX: Final = "/dashboard/"
#: What a page may do: run, style and fetch what this server serves. Two things the libraries can't do without: they
#: write style attributes on the elements that they draw, and heat maps and signs as `data:` images. No inline script,
#: no eval, no style element in the page, no other host, no form that leaves the page.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS: Final = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: Of another package each: its module, where the file is in it.
_LIBRARIES: Final = {
    "plotly.min.js": ("plotly", "package_data"),
    "swagger-ui-bundle.js": ("fastapi_offline", "static"),
    "swagger-ui.css": ("fastapi_offline", "static"),
}
#: From here on a body is compressed hard, once, since it is sent as it is to every browser.
_LARGE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, its media type, and the digest that its ETag is made of."""

    content: bytes
    media_type: str
    digest: str


@cache
def assets() -> Mapping[str, Asset]:
    """Every file by its path below `PREFIX`, read once a process."""
    folder = resources.files("service").joinpath("dashboard")
    found = {
        entry.name: _asset(entry.read_bytes(), Path(entry.name).suffix)
        for entry in folder.iterdir()
        if Path(entry.name).suffix in _TYPES
    }
    for name, (module, inside) in _LIBRARIES.items():
        path = _package(module) / inside / name
        found[name] = _asset(path.read_bytes(), path.suffix)
    return MappingProxyType(found)


@cache
def encoded(name: str, coding: str) -> tuple[bytes, Mapping[str, str]]:
    """A file's bytes in a content coding and the headers that say so, made once a process."""
    content = assets()[name].content
    if coding == "zstd" and len(content) >= _LARGE:
        return zstandard.ZstdCompressor(level=12).compress(content), {"Content-Encoding": coding}
    if coding == IDENTITY:
        return content, {}
    return encode(content, coding)


def file_response(request: Request, name: str) -> Response:
    """A file, or 304 where the browser has it."""
    coding = request.state.coding
    body, said = encoded(name, coding)
    suffix = "" if coding == IDENTITY else f"-{coding}"
    headers = {**_HEADERS, **said, "ETag": f'"{assets()[name].digest}{suffix}"'}
    return not_modified(request, headers) or Response(body, HTTPStatus.OK, headers, assets()[name].media_type)


def _package(module: str) -> Path:
    # Not imported: plotly takes half a second to import and is here for the one file in it.
    found = find_spec(module)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"The service's pages need {module}: pip install 'gradprobe[service]'")
    return Path(found.origin).parent


def _asset(content: bytes, suffix: str) -> Asset:
    return Asset(content, _TYPES[suffix], hashlib.blake2b(content, digest_size=16).hexdigest())
