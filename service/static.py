"""The dashboard's files: the page, its styles and modules, and the chart library, which an installed package brings."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final

import zstandard

from service.encoding import IDENTITY, encode

#: Where the files are, below the server's root.
PREFIX: Final = "/dashboard/"
#: What the page may do: run, style and fetch what this server serves. Two things the chart library can't do without: it
#: writes style attributes on the elements that it draws, and heat maps as `data:` images. No inline script, no eval, no
#: style element in the page, no other host, no form that leaves the page.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_LIBRARY: Final = "plotly.min.js"
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
    library = _library().read_bytes()
    return MappingProxyType(found | {_LIBRARY: _asset(library, ".js")})


@cache
def encoded(name: str, coding: str) -> tuple[bytes, Mapping[str, str]]:
    """A file's bytes in a content coding and the headers that say so, made once a process."""
    content = assets()[name].content
    if coding == "zstd" and len(content) >= _LARGE:
        return zstandard.ZstdCompressor(level=12).compress(content), {"Content-Encoding": coding}
    if coding == IDENTITY:
        return content, {}
    return encode(content, coding)


def _library() -> Path:
    # Not imported: the package takes half a second to import and is here for the one file in it.
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("The dashboard's charts need plotly: pip install 'gradprobe[service]'")
    return Path(found.origin).parent / "package_data" / _LIBRARY


def _asset(content: bytes, suffix: str) -> Asset:
    return Asset(content, _TYPES[suffix], hashlib.blake2b(content, digest_size=16).hexdigest())
