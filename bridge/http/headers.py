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

    Read are relative and absolute targets, blanks inside `<`, `>`, several relations parted by a comma with or without
    a blank, several words in one `rel`, a trailing comma, an empty header, and an unquoted `rel`.
    """
    found: dict[str, str] = {}
    for header in headers:
        for target, parameters in _LINK.findall(header):
            relation = _REL.search(parameters)
            if relation is None or not target.strip():
                continue
            for word in (relation[1] or relation[2] or relation[3] or "").lower().split():
                found.setdefault(word, target.strip())
    return found


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds of a `Retry-After` header, given in seconds or as a date; None where it cannot be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = http_date(value)
        if date is None:
            return None
        seconds = (date - now).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


@lru_cache(maxsize=64)  # answers of one second have one date
def http_date(value: str | None) -> datetime | None:
    """Return the time of a header such as `Date`, in UTC as without a zone; None where it cannot be read."""
    try:
        date = parsedate_to_datetime(value or "")
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError, TypeError, IndexError):  # the library's own, beyond what it documents
        return None
