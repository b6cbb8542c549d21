"""Lenient readers of HTTP headers: `Link`, `Retry-After`, and dates."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache

_LINK = re.compile(r"<([^<>]*)>([^<]*)")
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


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, given as a number or as an HTTP date.

    The result is finite and not negative: a time in the past is 0. None stands for anything else.
    """
    if value is None or not value.isascii():
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = http_date(value)
        if date is None:
            return None
        seconds = (date - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


@lru_cache(maxsize=64)  # all answers of one second have the same date
def http_date(value: str | None) -> datetime | None:
    """Return the time of a header such as `Date`; without a zone it is UTC. None if it cannot be read."""
    try:
        date = parsedate_to_datetime(value or "")
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError, IndexError):  # the library raises more than it documents
        return None
