"""How an example's expectation is compared with an answer; `openapi/examples/README.md` says it in words."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from gradprobe.identifiers import is_experiment_id

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

PLACEHOLDERS: Final[dict[str, Callable[[Any], bool]]] = {
    "<id>": lambda value: isinstance(value, str) and is_experiment_id(value),
    "<time>": lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None,
    "<text>": lambda value: isinstance(value, str) and value != "",
    "<number>": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}


def differences(expected: Any, found: Any, place: str = "") -> Iterator[str]:
    """Each place where `found` is not what `expected` asks for."""
    if isinstance(expected, str) and expected in PLACEHOLDERS:
        if not PLACEHOLDERS[expected](found):
            yield f"{place}: {found!r} is not {expected}"
    elif isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name in found:
                yield from differences(value, found[name], f"{place}/{name}")
            else:
                yield f"{place}/{name}: missing"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, pair in enumerate(zip(expected, found, strict=True)):
            yield from differences(*pair, f"{place}/{position}")
    elif expected != found or isinstance(expected, bool) != isinstance(found, bool):
        yield f"{place}: {found!r} is not {expected!r}"
