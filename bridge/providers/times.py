"""How providers write times: a closed set of formats, each read leniently and written exactly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache, partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator

from bridge.http import parsing

_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)")
_DAY = timedelta(days=1)
_MAX_EPOCH_SECONDS = 2**35
_MAX_TIME_CHARS = 64
_NAMED = ("iso", "iso_ms", "date", "rfc2822", "epoch_s", "epoch_ms")
_GRAINS = {"date": _DAY, "iso_ms": timedelta(milliseconds=1), "epoch_ms": timedelta(milliseconds=1)}

ReadTime = Callable[[Any], datetime | None]
WriteTime = Callable[[datetime], str]


def _format(value: str) -> str:
    if value in _NAMED:
        return value
    if "%" not in value:
        raise ValueError(f"{value!r} is no format of times; write {', '.join(_NAMED)}, or a pattern such as %Y-%m-%d")
    try:
        datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).strftime(value)
        datetime.strptime(datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC).strftime(value), value)  # noqa: DTZ007 - a trial
    except ValueError:
        raise ValueError(f"{value!r} is no pattern of a time; write one such as %Y-%m-%d %H:%M:%S") from None
    return value


def _zone(value: str) -> str:
    zone_of(value)
    return value


TimeFormat = Annotated[str, AfterValidator(_format)]
Zone = Annotated[str, AfterValidator(_zone)]


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """Return a zone by its offset or its name; raises `ValueError` that says what to write."""
    if name == "UTC":
        return UTC
    match = _OFFSET.fullmatch(name)
    try:
        if match is None:
            return ZoneInfo(name)
        span = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-span if match[1] == "-" else span)
    except (ValueError, KeyError, OSError):
        raise ValueError(f"{name!r} is no zone; write UTC, an offset such as -06:00, or Europe/Berlin") from None


def grain(written: str) -> timedelta:
    """Return the smallest difference between two times that a format can say."""
    if written in _NAMED:
        return _GRAINS.get(written, timedelta(seconds=1))
    return timedelta(seconds=1) if "%S" in written else timedelta(minutes=1) if "%M" in written else _DAY


def reader(formats: Sequence[str], zone: str) -> ReadTime:
    """Return the function that reads a time in any of the formats, in UTC; None for anything else."""
    readers = [_reader(written, zone_of(zone)) for written in formats]

    def read(value: Any) -> datetime | None:
        if value is None:
            return None
        return next((moment for reading in readers if (moment := reading(value)) is not None), None)

    return read


def _reader(written: str, zone: tzinfo) -> ReadTime:
    if written in ("iso", "iso_ms"):
        return partial(_iso, zone=zone)
    if written in ("epoch_s", "epoch_ms"):
        return partial(_epoch, unit=1000 if written == "epoch_ms" else 1)
    if written == "rfc2822":
        return partial(_rfc2822, zone=zone)
    return partial(_pattern, pattern="%Y-%m-%d" if written == "date" else written, zone=zone)


def _iso(value: Any, zone: tzinfo) -> datetime | None:
    if isinstance(zone, timezone):
        return parsing.time(value, assume=zone)
    moment = parsing.time(value)
    has_offset = isinstance(value, str) and re.search(r"(?:Z|UTC|[+-]\d\d:?\d\d)\s*$", value, re.IGNORECASE)
    return moment if moment is None or has_offset else moment.replace(tzinfo=zone).astimezone(UTC)


def _epoch(value: Any, unit: int) -> datetime | None:
    text = parsing.text(value)
    try:
        seconds = float(text or "") / unit
        return datetime.fromtimestamp(round(seconds, 6), UTC) if abs(seconds) < _MAX_EPOCH_SECONDS else None
    except (ValueError, OverflowError, OSError):
        return None


def _rfc2822(value: Any, zone: tzinfo) -> datetime | None:
    return _mail_time(value, zone) if isinstance(value, str) and len(value) <= _MAX_TIME_CHARS else None


@lru_cache(maxsize=2048)  # the records of a wave have few different times
def _mail_time(text: str, zone: tzinfo) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError, TypeError, IndexError):  # the library raises more than it documents
        return None


def _pattern(value: Any, pattern: str, zone: tzinfo) -> datetime | None:
    return _patterned(value, pattern, zone) if isinstance(value, str) and len(value) <= _MAX_TIME_CHARS else None


@lru_cache(maxsize=2048)
def _patterned(text: str, pattern: str, zone: tzinfo) -> datetime | None:
    try:
        moment = datetime.strptime(text.strip(), pattern)  # noqa: DTZ007 - the next line gives it a zone
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def writer(written: str, zone: str) -> WriteTime:
    """Return the function that writes a time, cut to what the format can say."""
    return partial(_write, written=written, zone=zone_of(zone))


def _write(moment: datetime, written: str, zone: tzinfo) -> str:
    if written in _WRITERS:
        return _WRITERS[written](moment.astimezone(UTC))
    return moment.astimezone(zone).strftime("%Y-%m-%d" if written == "date" else written)


_WRITERS: dict[str, WriteTime] = {
    "iso": lambda utc: f"{utc:%Y-%m-%dT%H:%M:%S}Z",
    "iso_ms": lambda utc: f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}Z",
    "epoch_s": lambda utc: str(math.floor(utc.timestamp())),
    "epoch_ms": lambda utc: str(math.floor(utc.timestamp() * 1000)),
    "rfc2822": lambda utc: format_datetime(utc.replace(microsecond=0)),
}
