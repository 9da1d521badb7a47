"""When a request is sent again, and after how long."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import SystemRandom
from typing import Final

import httpx

#: Too many requests, not available: nothing was done, so any request may be sent again.
REFUSED_FOR_NOW: Final = frozenset({429, 503})
#: A proxy lost the server behind it, which may have done what was asked: only a repeatable request is sent again.
PERHAPS_DONE: Final = frozenset({502, 504})
#: Errors that another try may not meet, and those of them that came before anything was sent.
_PASSING: Final = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
_NOTHING_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)

_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is sent again at most, and the pauses in between, in seconds.

    The pause before the n-th repetition is drawn evenly from 0 to `first` · 2ⁿ, at most `longest`, so that clients that
    were refused together do not come back together; where the server says how long to wait, it comes on top of that.
    """

    number: int = 4
    first: float = 0.25
    longest: float = 8.0

    def pause(self, repetition: int, headers: Mapping[str, str] | None = None) -> float:
        """Before the repetition of this number, counted from 0."""
        drawn = _random.uniform(0.0, min(self.longest, self.first * 2.0**repetition))
        return drawn + retry_after(headers or {})


def may_pass(error: httpx.RequestError) -> bool:
    """Whether the same request may fare better a moment later."""
    return isinstance(error, _PASSING)


def nothing_was_sent(error: httpx.RequestError) -> bool:
    """Whether the server can't have heard of the request."""
    return isinstance(error, _NOTHING_SENT)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, given as such or as a date (RFC 9110); 0 where it does not say."""
    told = headers.get("retry-after", "").strip()
    if told.isdecimal():
        return float(told[:9])
    try:
        moment = parsedate_to_datetime(told)
    except ValueError:
        return 0.0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())
