"""Times that people give: 12h, 30d, 8w, 1y."""

import re

from gradprobe.cli.exits import usage

_DAY = 86_400.0
_UNITS = {"h": 3600.0, "d": _DAY, "w": 7 * _DAY, "y": 365 * _DAY}


def seconds_of(text: str) -> float:
    """The time in seconds; raises CommandError for what is none."""
    found = re.fullmatch(r"([1-9]\d{0,4})([hdwy])", text)
    if found is None:
        raise usage(f"{text!r} is no length of time; give it as 12h, 30d, 8w or 1y")
    return int(found[1]) * _UNITS[found[2]]
