"""Times: RFC 3339 texts, milliseconds, and the types of time fields."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated

from pydantic import (
    AfterValidator,
    PlainSerializer,
)

YEAR_DAYS = 365
"""Days by which a year of requests is reckoned."""


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is UTC:
        return moment  # and the same object, whose hash is known by now
    if moment.tzinfo is None:
        raise ValueError("a time needs an offset from UTC")
    return moment.astimezone(UTC)


@lru_cache(maxsize=2048)  # the times of one page, and those of one wave of a provider, are mostly the same
def rfc3339(moment: datetime) -> str:
    """Return `moment` in UTC as RFC 3339 text, with as much of a second as it has: `2013-03-15T21:11:20.114Z`."""
    moment = moment.astimezone(UTC)
    micros = moment.microsecond
    timespec = "seconds" if not micros else "microseconds" if micros % 1000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def rfc3339_millis(moment: datetime) -> str:
    """Return `moment` as `rfc3339` does, and always with milliseconds: such texts sort as their times do."""
    text = rfc3339(moment)
    return text if "." in text else f"{text.removesuffix('Z')}.000Z"


def truncate_to_millis(moment: datetime) -> datetime:
    """Return `moment` cut to milliseconds: more is noise in a time of ours."""
    beyond = moment.microsecond % 1000
    return moment.replace(microsecond=moment.microsecond - beyond) if beyond else moment


Time = Annotated[datetime, AfterValidator(_utc), PlainSerializer(rfc3339, when_used="json")]
RecordedTime = Annotated[datetime, AfterValidator(_utc), PlainSerializer(rfc3339_millis, when_used="json")]


@lru_cache(maxsize=2048)
def unix_seconds(moment: datetime) -> int:
    """Return whole seconds since 1970, and 0 before: AMQP knows no earlier time."""
    return max(0, int(moment.timestamp()))
