"""Times of the week in which a sink sends nothing, read from texts such as `Mon-Fri 22:00-07:00 Europe/Paris`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_FORM = re.compile(
    r"(?:(?P<days>[A-Za-z][A-Za-z, -]*?)\s+)?(?P<start>\d\d?:\d\d)\s*-\s*(?P<end>\d\d?:\d\d)(?:\s+(?P<zone>\S+))?",
    re.ASCII,
)
_EXAMPLE = "22:00-07:00 Europe/Paris, or Sat-Sun 00:00-24:00 Europe/Paris"
_DAY_MINUTES = 1440
_WEEK = timedelta(days=7)
_MAX_JOINED_DAYS = 8
"""Days around a moment in which windows are joined: in a week, at least a minute is not quiet."""


@dataclass(frozen=True, slots=True)
class QuietTime:
    """A time without a gap in which nothing is sent."""

    begin: datetime
    end: datetime
    """Exclusive."""
    said_end: str
    """The end as a clock in its zone shows it: `07:00 Europe/Paris`."""


@dataclass(frozen=True)
class _Window:
    """One window of the week, on some days, by the clocks of one zone."""

    text: str
    days: frozenset[int]
    """The days of the week on which it begins; 0 is Monday."""
    start: int
    """Minutes since midnight."""
    end: int
    """Minutes since the midnight before it begins: 1440 and more is on the next day."""
    zone_name: str

    @cached_property
    def zone(self) -> ZoneInfo:
        """The zone by whose clocks it goes."""
        return ZoneInfo(self.zone_name)

    def on(self, day: date) -> QuietTime | None:
        """Return the window that begins on a day; None if none does, or if the clocks skip all of it."""
        if day.weekday() not in self.days:
            return None
        midnight = datetime.combine(day, time())
        last = midnight + timedelta(minutes=self.end)
        begin, end = self._first(midnight + timedelta(minutes=self.start)), self._last(last)
        return QuietTime(begin, end, f"{last:%H:%M} {self.zone_name}") if begin < end else None

    def _first(self, shown: datetime) -> datetime:
        """Return when the clocks first show a time, or a later one where they skip it."""
        return self._skipped(shown) or shown.replace(tzinfo=self.zone, fold=0).astimezone(UTC)

    def _last(self, shown: datetime) -> datetime:
        """Return when the clocks show a time for the last time; where they skip it, when they do so."""
        return self._skipped(shown) or shown.replace(tzinfo=self.zone, fold=1).astimezone(UTC)

    def _skipped(self, shown: datetime) -> datetime | None:
        """Return when the clocks skip a time, as in spring; None if they show it."""
        before, after = (shown.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (1, 0))
        if before >= after:
            return None
        while after - before > timedelta(seconds=1):
            middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
            if middle.astimezone(self.zone).replace(tzinfo=None) < shown:
                before = middle
            else:
                after = middle
        return after


class QuietTimes:
    """Windows of the week in which a sink sends nothing. Raises `ValueError`, with what to write, for a wrong text.

    A window lasts from when the clocks of its zone first show its start until they last show its end: one that holds
    an hour which clocks show twice is an hour longer, and one that holds a skipped hour is shorter.
    """

    __slots__ = ("_known", "_windows", "raw")

    def __init__(self, raw: str | Sequence[str]) -> None:
        self.raw = raw
        """As the configuration has it."""
        texts = [raw] if isinstance(raw, str) else list(raw)
        if not texts:
            raise ValueError(f"is an empty list; write {_EXAMPLE}, or leave the key out")
        self._windows = [_window(text) for text in texts]
        self._known: tuple[datetime, datetime, QuietTime | None] | None = None
        if self._is_endless():
            raise ValueError("covers the whole week, so nothing would ever be sent; leave some time of the week out")

    def __repr__(self) -> str:
        return f"QuietTimes({self.raw!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QuietTimes) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(str(self.raw))

    def at(self, moment: datetime) -> QuietTime | None:
        """Return the quiet time that holds a moment, with all that follow it without a gap; None if there is none."""
        if self._known is None or not self._known[0] <= moment < self._known[1]:
            self._known = self._around(moment)
        return self._known[2]

    def _around(self, moment: datetime) -> tuple[datetime, datetime, QuietTime | None]:
        """Return the quiet time at a moment, or None, with the time in which that is the answer."""
        near = sorted(self._near(moment), key=lambda quiet: quiet.begin)
        begin, end, said = moment, moment, ""
        for quiet in near:  # forward: each that begins before the end so far may move it
            if quiet.begin <= end and quiet.end > end:
                end, said = quiet.end, quiet.said_end
        if end == moment:
            starts = [quiet.begin for quiet in near if quiet.begin > moment]
            ends = [quiet.end for quiet in near if quiet.end <= moment]
            return max(ends, default=moment), min([*starts, moment + _WEEK]), None
        for quiet in sorted(near, key=lambda quiet: quiet.end, reverse=True):
            if quiet.begin < begin <= quiet.end:
                begin = quiet.begin
        return begin, end, QuietTime(begin, end, said)

    def _near(self, moment: datetime) -> Iterator[QuietTime]:
        for window in self._windows:
            today = moment.astimezone(window.zone).date()
            for offset in range(-_MAX_JOINED_DAYS, _MAX_JOINED_DAYS + 1):
                if (quiet := window.on(today + timedelta(days=offset))) is not None:
                    yield quiet

    def _is_endless(self) -> bool:
        """Say whether no minute of a week is free, in two weeks of which one or the other has no change of clocks."""
        for first in (datetime(2026, 1, 12, tzinfo=UTC), datetime(2026, 7, 13, tzinfo=UTC)):
            quiet = self._around(first + _WEEK / 2)[2]
            if quiet is None or quiet.end - quiet.begin < _WEEK:
                return False
        return True

    @classmethod
    def _validate(cls, value: Any) -> QuietTimes:
        if isinstance(value, cls):
            return value
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            return cls(value)
        raise ValueError(f"takes a text or a list of texts, such as {_EXAMPLE}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.raw)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        del schema, handler
        text = {"type": "string", "examples": ["22:00-07:00 Europe/Paris", "Sat-Sun 00:00-24:00 Europe/Paris"]}
        return {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}


def _window(text: str) -> _Window:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no time of the week; write {_EXAMPLE}")
    if match["zone"] is None:
        raise ValueError(f"{text!r} names no time zone; write {text.strip()} Europe/Paris, or UTC")
    start, end = _minutes(match["start"], text), _minutes(match["end"], text)
    if start == _DAY_MINUTES:
        raise ValueError(f"{text!r} begins at 24:00; write 00:00, on the next day")
    if start == end:
        raise ValueError(f"{text!r} begins and ends at the same time; write 00:00-24:00 for whole days")
    zone = _zone_name(match["zone"])
    return _Window(text, _days(match["days"], text), start, end if end > start else end + _DAY_MINUTES, zone)


def _minutes(shown: str, text: str) -> int:
    hours, minutes = map(int, shown.split(":"))
    if minutes > 59 or hours * 60 + minutes > _DAY_MINUTES:  # noqa: PLR2004 - minutes of an hour
        raise ValueError(f"{text!r} has no time {shown}; write one from 00:00 to 24:00")
    return hours * 60 + minutes


def _days(said: str | None, text: str) -> frozenset[int]:
    if said is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in re.split(r"\s*,\s*", said.strip()):
        first, last = _day(part.partition("-")[0], text), _day(part.rpartition("-")[2], text)
        days |= {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    return frozenset(days)


def _day(name: str, text: str) -> int:
    for index, day in enumerate(_DAYS):
        if name.strip().lower() == day.lower():
            return index
    raise ValueError(f"{text!r}: {name.strip()!r} is no day; write {', '.join(_DAYS)}, or a range such as Mon-Fri")


def _zone_name(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise ValueError(f"{name!r} is no time zone that this machine knows; write one such as Europe/Paris") from None
    return name
