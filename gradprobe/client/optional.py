"""Libraries that a user may have or not: imported when they are first needed."""

from importlib import import_module
from typing import Any

from gradprobe.client.errors import MissingLibrary


def require(module: str, extra: str) -> Any:
    """Import a module; raises MissingLibrary, which says what to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f'This needs {error.name}, which is not installed; get it with: pip install "gradprobe[{extra}]"'
        ) from error
