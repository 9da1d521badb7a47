"""Gradprobe: do the gradients reach every layer of a network in training?

`Client` and `AsyncClient` speak to a server, `Spec` describes an experiment, `watch` measures a training loop of yours.
Each is loaded when it is first used, so that a part of the package never pays for another's libraries.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradprobe.client import AsyncClient, Client
    from gradprobe.spec import Spec
    from gradprobe.watching import watch

__all__ = ["AsyncClient", "Client", "Spec", "__version__", "watch"]

_HOMES = {
    "AsyncClient": "gradprobe.client",
    "Client": "gradprobe.client",
    "Spec": "gradprobe.spec",
    "watch": "gradprobe.watching",
}


def _version() -> str:
    try:
        return version("gradprobe")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"


__version__ = _version()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
