"""How figures and times read on a page: `1,204`, `3.2/s`, `12 s ago`."""

from __future__ import annotations

from datetime import datetime

from bridge.domain.times import rfc3339, truncate_to_millis

NONE = "–"  # noqa: RUF001 - a dash is what a table shows for none
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_WHOLE_FROM = 10  # a rate from which fractions say nothing
_SHORT_FROM = 100_000  # a count that is too long for a picture


def number(value: float | None) -> str:
    """Return a count with its thousands apart; a dash for none."""
    return NONE if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Return a count that fits in a picture: `12,345`, `104k`, `2.1M`."""
    if value is None or value < _SHORT_FROM:
        return number(value)
    return f"{value / 1e6:.1f}M" if value >= 1e6 else f"{value / 1e3:.0f}k"  # noqa: PLR2004 - a million


def rate(value: float | None) -> str:
    """Return a rate a second, or a minute where that is more telling."""
    if value is None:
        return NONE
    if value == 0:
        return "0/s"
    if value >= _WHOLE_FROM:
        return f"{value:,.0f}/s"
    return f"{value:.1f}/s" if value >= 0.1 else f"{value * 60:.1f}/min"  # noqa: PLR2004 - a tenth


def span(seconds: float) -> str:
    """Return a length of time in one unit."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{int(seconds / size)} {unit}"


def moment(text: str | datetime | None) -> datetime | None:
    """Read a time of a plain value."""
    if text is None or isinstance(text, datetime):
        return text
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def ago(text: str | datetime | None, now: datetime) -> str:
    """Return how long ago a time was, or in how long it will be."""
    at = moment(text)
    if at is None:
        return NONE
    seconds = (now - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def due(text: str | datetime | None, now: datetime) -> str:
    """Return in how long a time will be; `due` if it has come."""
    at = moment(text)
    return "due" if at is not None and at <= now else ago(at, now)


def clock_time(text: str | datetime | None) -> str:
    """Return the time of day in UTC, to the second."""
    at = moment(text)
    return NONE if at is None else f"{at:%H:%M:%S}"


def full_time(text: str | datetime | None) -> str:
    """Return a time as RFC 3339."""
    at = moment(text)
    return "" if at is None else rfc3339(truncate_to_millis(at))


def cut(text: str, characters: int) -> str:
    """Return a text that has at most so many characters."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def counted(value: int, noun: str) -> str:
    """Return a number with its noun: `1 event`, `2 events`."""
    return f"{number(value)} {noun}" if value == 1 else f"{number(value)} {noun}s"
