"""Keyset pages: a cursor is the place where a page ended, bound to the filters and the order that it was made with."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from gradprobe.errors import InvalidCursor
from gradprobe.identifiers import is_experiment_id
from gradprobe.store.listing import NEWEST, Filters, Position, Sort


def encode_cursor(place: Position, filters: Filters, sort: Sort = NEWEST) -> str:
    """An opaque cursor to the page after this place."""
    values = [place.id, _fingerprint(filters, sort)] + ([place.value] if place.value is not None else [])
    document = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def decode_cursor(
    cursor: str, filters: Filters, sort: Sort = NEWEST, is_id: Callable[[str], bool] = is_experiment_id
) -> Position:
    """Where the page ended; raises InvalidCursor for a cursor that this list did not make with these filters."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        last_id, fingerprint, *rest = json.loads(
            base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        )
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCursor from error
    if fingerprint != _fingerprint(filters, sort) or not isinstance(last_id, str) or not is_id(last_id):
        raise InvalidCursor
    if len(rest) > 1 or not all(_is_value(value, sort) for value in rest):
        raise InvalidCursor
    return Position(last_id, *rest)


def next_cursor(places: Sequence[Position], limit: int, filters: Filters, sort: Sort = NEWEST) -> str | None:
    """The cursor after `limit` of `places`, of which one more was read to know whether there is a next page."""
    return encode_cursor(places[limit - 1], filters, sort) if len(places) > limit else None


def next_link(path: str, query: Sequence[tuple[str, str]], cursor: str) -> str:
    """RFC 8288's `Link` to the next page: the same query with another cursor."""
    kept = [(name, value) for name, value in query if name != "cursor"]
    return f'<{path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'


def _is_value(value: Any, sort: Sort) -> bool:
    """Whether it is of the kind that this order goes by, and the database can hear of it."""
    match sort.removeprefix("-"):
        case "created":
            return False
        case "accuracy":
            return isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 1
        case _:
            return isinstance(value, str) and "\0" not in value and _is_text(value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _fingerprint(filters: Filters, sort: Sort) -> str:
    # Without the usual order, so that a cursor of a release that knew no other goes on.
    document = json.dumps(asdict(filters), sort_keys=True) + ("" if sort == NEWEST else sort)
    return hashlib.sha256(document.encode()).hexdigest()[:16]
