"""Identifiers that sort by time of creation, so that a list's newest-first order is its primary key's."""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_TIME_CHARACTERS = 10  # 48 bits of milliseconds in 5-bit characters
_RANDOM_CHARACTERS = 16  # 80 bits

EXPERIMENT_PATTERN = rf"^exp_[{_ALPHABET}]{{{_TIME_CHARACTERS + _RANDOM_CHARACTERS}}}$"
_experiment = re.compile(EXPERIMENT_PATTERN)


def new_experiment_id() -> str:
    """A fresh id: `exp_`, ten characters of milliseconds since 1970, sixteen random ones."""
    return _new("exp_")


def new_sweep_id() -> str:
    """A fresh id of a sweep, `swp_…`."""
    return _new("swp_")


def new_remedies_id() -> str:
    """A fresh id of remedies that are tried, `rem_…`."""
    return _new("rem_")


def new_key_id() -> str:
    """A fresh id of an access key, `key_…`; it is no secret."""
    return _new("key_")


def _new(kind: str) -> str:
    return (
        kind
        + _encode(time.time_ns() // 1_000_000, _TIME_CHARACTERS)
        + _encode(secrets.randbits(5 * _RANDOM_CHARACTERS), _RANDOM_CHARACTERS)
    )


def is_experiment_id(text: str) -> bool:
    """Whether `text` has the form of an experiment's id."""
    return _experiment.fullmatch(text) is not None


def is_sweep_id(text: str) -> bool:
    """Whether `text` has the form of the id of a sweep or of remedies."""
    return text[:4] in ("swp_", "rem_") and is_experiment_id("exp_" + text[4:])


def _encode(number: int, length: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(length)))
