"""Keyset pages: a cursor is the last id that was given out, bound to the filters it was made with."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from urllib.parse import urlencode

from gradprobe.errors import InvalidCursor
from gradprobe.identifiers import is_experiment_id
from gradprobe.store.experiments import Filters, Record
from gradprobe.store.sweeps import Group


def encode_cursor(last_id: str, filters: Filters) -> str:
    """An opaque cursor to the page after `last_id`."""
    document = json.dumps([last_id, _fingerprint(filters)], separators=(",", ":"))
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, filters: Filters, is_id: Callable[[str], bool] = is_experiment_id) -> str:
    """The last id; raises InvalidCursor for a cursor that this list did not make with these filters."""
    padded = cursor + "=" * (-len(cursor) % 4)
    try:
        last_id, fingerprint = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCursor from error
    if fingerprint != _fingerprint(filters) or not isinstance(last_id, str) or not is_id(last_id):
        raise InvalidCursor
    return last_id


def next_cursor(records: Sequence[Record] | Sequence[Group], limit: int, filters: Filters) -> str | None:
    """The cursor after `limit` of `records`, of which one more was read to know whether there is a next page."""
    return encode_cursor(records[limit - 1].id, filters) if len(records) > limit else None


def next_link(path: str, query: Sequence[tuple[str, str]], cursor: str) -> str:
    """RFC 8288's `Link` to the next page: the same query with another cursor."""
    kept = [(name, value) for name, value in query if name != "cursor"]
    return f'<{path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'


def _fingerprint(filters: Filters) -> str:
    document = json.dumps(asdict(filters), sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:16]
