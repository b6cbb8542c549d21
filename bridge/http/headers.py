"""Lenient readers of HTTP headers: `Link`, `Retry-After` and rate limits, and dates."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

from aiohttp import hdrs

from bridge.http import parsing
from bridge.http.status import TOO_MANY_REQUESTS_STATUS

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_PARAMETER = re.compile(r"([A-Za-z]+)\s*=\s*\"?(\d+)")
_RESET_PARAMETERS = frozenset({"t", "reset"})
_REMAINING_PARAMETERS = frozenset({"r", "remaining"})
_RESETS = (
    "RateLimit-Reset",
    "X-RateLimit-Reset-After",
    "X-RateLimit-Reset",
    "X-Rate-Limit-Reset",
    "X-Rate-Limit-Reset-After",
)
_REMAINING = ("RateLimit-Remaining", "X-RateLimit-Remaining", "X-Rate-Limit-Remaining")
_FIRST_REFUSAL_STATUS = 300
_EPOCH_FROM_SECONDS = 1e9
"""Seconds; a larger number is a time of day in seconds since 1970, for nobody asks for 30 years of quiet."""
_EPOCH_FROM_MILLISECONDS = 1e11
"""Milliseconds; a larger number is a time of day in milliseconds since 1970."""
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;,\"']+))", re.IGNORECASE)


def links(headers: Iterable[str]) -> dict[str, str]:
    """Return the targets of `Link` headers by relation, as they stand; the first of a relation counts.

    It reads relative and absolute targets, blanks inside `<` and `>`, several relations with a comma between them (with
    or without a blank), several words in one `rel`, a trailing comma, an empty header, and an unquoted `rel`.
    """
    targets: dict[str, str] = {}
    for header in headers:
        for target, parameters in _LINK.findall(header):
            relation = _REL.search(parameters)
            if relation is None or not target.strip():
                continue
            for word in (relation[1] or relation[2] or relation[3] or "").lower().split():
                targets.setdefault(word, target.strip())
    return targets


def requested_wait(headers: Mapping[str, str], status: int, now: datetime) -> float | None:
    """Return the seconds of quiet that an answer asks for; None if it asks for none.

    `Retry-After` counts first, then the reset of a rate limit that is used up. A time of day is counted from the
    answer's own `Date`, because the clock of the sender may be hours ahead; without one, it is counted from `now`.
    """
    value = headers.get(hdrs.RETRY_AFTER)
    if value is None and _is_limited(headers, status):
        value = _first(headers, _RESETS) or _parameter(headers, _RESET_PARAMETERS)
    return None if value is None else parse_retry_after(value, http_date(headers.get(hdrs.DATE)) or now)


def _is_limited(headers: Mapping[str, str], status: int) -> bool:
    """Say whether a rate limit caused this answer; answers that were not refused have the headers of limits too."""
    if status < _FIRST_REFUSAL_STATUS:
        return False
    remaining = _first(headers, _REMAINING) or _parameter(headers, _REMAINING_PARAMETERS)
    return status == TOO_MANY_REQUESTS_STATUS or remaining == "0"


def _first(headers: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((value for name in names if (value := headers.get(name))), None)


def _parameter(headers: Mapping[str, str], names: Collection[str]) -> str | None:
    """Return a parameter of `RateLimit`: `"default";r=0;t=30`, or in its older form `remaining=0, reset=30`."""
    for name, value in _PARAMETER.findall(headers.get("RateLimit", "")):
        if name.lower() in names:
            return str(value)
    return None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as a number or as a time.

    A time is an HTTP date, an RFC 3339 time, or a number of at least 10^9: the seconds or milliseconds since 1970. It
    is counted from `now`, which should be the time of the answer's `Date`. The result is finite and not negative: a
    time in the past is 0. None stands for anything else.
    """
    if value is None or not value.isascii():
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = http_date(value) or parsing.time(value)
        if date is None:
            return None
        seconds = (date - now).total_seconds()
    if not math.isfinite(seconds):
        return None
    if seconds >= _EPOCH_FROM_SECONDS:
        seconds = seconds / (1 if seconds < _EPOCH_FROM_MILLISECONDS else 1000) - now.timestamp()
    return max(0.0, seconds)


@lru_cache(maxsize=64)  # all answers of one second have the same date
def http_date(value: str | None) -> datetime | None:
    """Return the time of a header such as `Date`; without a zone it is UTC. None if it cannot be read."""
    try:
        date = parsedate_to_datetime(value or "")
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError, IndexError):  # the library raises more than it documents
        return None
