"""Hours of a week in a time zone: `Mon-Fri 08:00-18:00 Europe/Paris`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"([A-Za-z,\-]+)\s+(\d{2}):(\d{2})-(\d{2}):(\d{2})\s+(\S+)")
_EXAMPLE = "Mon-Fri 08:00-18:00 Europe/Paris"
_DAY_MINUTES = 24 * 60
_WEEK_DAYS = 7


@dataclass(frozen=True)
class WeeklyWindow:
    """The same hours on some days of each week, by the clocks of a time zone.

    A window whose end is not after its beginning ends on the next day; its days are those on which it begins. On a day
    on which clocks are changed, it begins and ends when a clock of that zone first shows its times. A time that no
    clock shows is the moment at which the clocks are changed.
    """

    days: frozenset[int]
    """The days on which it begins; 0 is Monday."""
    begin: int
    """Minutes after midnight."""
    end: int
    """Minutes after midnight; `24:00` is 1440."""
    zone: str
    """A name of the IANA time zone database."""

    @classmethod
    def parse(cls, text: str) -> WeeklyWindow:
        """Read `DAYS HH:MM-HH:MM ZONE`, DAYS like `Mon-Fri` or `Mon,Wed,Sat-Sun`; raises `ValueError`."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no weekly window; write days, hours and a time zone: {_EXAMPLE}")
        begin, end = _minutes(match[2], match[3]), _minutes(match[4], match[5])
        if begin in {end, _DAY_MINUTES}:
            raise ValueError(f"{text!r} has no hours; for whole days write 00:00-24:00")
        try:
            ZoneInfo(match[6])
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{match[6]!r} is no time zone that is known here; write one like Europe/Paris") from None
        return cls(frozenset(_days(match[1])), begin, end, match[6])

    def __str__(self) -> str:
        return f"{_day_words(self.days)} {_clock(self.begin)}-{_clock(self.end)} {self.zone}"

    def contains(self, moment: datetime) -> bool:
        """Say whether the window is open at a moment; it is at its beginning, and is not at its end."""
        return any(begin <= moment < end for begin, end in self._spans(moment))

    def next_boundary(self, moment: datetime) -> datetime:
        """Return the first moment after this one at which the window opens or closes, in UTC."""
        inside = self.contains(moment)
        edges = sorted(edge for span in self._spans(moment) for edge in span if edge > moment)
        # Spans that touch or overlap are one: only where it really opens or closes is a boundary.
        for edge in edges:
            if self.contains(edge) != inside:
                return edge
        return edges[-1] if edges else moment + timedelta(days=_WEEK_DAYS)  # open, or closed, for ever

    def opened(self, moment: datetime) -> datetime | None:
        """Return since when the window has been open at a moment; None if it is not. Of one always open, a week."""
        if not self.contains(moment):
            return None
        since = moment
        for begin, end in sorted(self._spans(moment), reverse=True):
            if begin <= since <= end:
                since = begin
        return since

    def _spans(self, moment: datetime) -> list[tuple[datetime, datetime]]:
        """Return when the window is open from a week before a moment to a week after, in UTC."""
        zone = ZoneInfo(self.zone)
        today = moment.astimezone(zone).date()
        spans = []
        for offset in range(-_WEEK_DAYS - 1, _WEEK_DAYS + 2):
            day = today + timedelta(days=offset)
            if day.weekday() in self.days:
                last = day if self.end > self.begin else day + timedelta(days=1)
                begin, end = _moment(day, self.begin, zone), _moment(last, self.end, zone)
                if begin < end:
                    spans.append((begin, end))
        return spans

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        del source, handler
        return core_schema.is_instance_schema(cls)


def _minutes(hours: str, minutes: str) -> int:
    total = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or total > _DAY_MINUTES:  # noqa: PLR2004 - the minutes of an hour
        raise ValueError(f"{hours}:{minutes} is no time of a day; the last one is 24:00")
    return total


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _days(text: str) -> set[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        begin, end = _day(first), _day(last if dash else first)
        days |= {day % _WEEK_DAYS for day in range(begin, end + (_WEEK_DAYS if end < begin else 0) + 1)}
    return days


def _day_words(days: frozenset[int]) -> str:
    words = []
    for day in sorted(days):
        if day - 1 not in days:
            last = next(later for later in range(day, _WEEK_DAYS) if later + 1 not in days)
            words.append(_DAYS[day].title() if last == day else f"{_DAYS[day].title()}-{_DAYS[last].title()}")
    return ",".join(words)


def _day(name: str) -> int:
    if name not in _DAYS:
        raise ValueError(f"{name!r} is no day; write {', '.join(day.title() for day in _DAYS)}")
    return _DAYS.index(name)


def _moment(day: date, minutes: int, zone: ZoneInfo) -> datetime:
    """Return when clocks first show a time; if none does, when they are changed."""
    day, minutes = day + timedelta(days=minutes // _DAY_MINUTES), minutes % _DAY_MINUTES
    local = datetime.combine(day, time(minutes // 60, minutes % 60), zone)
    early, late = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
    if early <= late:
        return early
    # A time that no clock shows: fold 0 counts by the offset before the change, and fold 1 by the one after it.
    return _change(late, early, zone)


def _change(begin: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment at which the clocks are changed between two moments."""
    before = begin.astimezone(zone).utcoffset()
    while end - begin > timedelta(seconds=1):
        middle = begin + (end - begin) / 2
        if middle.astimezone(zone).utcoffset() == before:
            begin = middle
        else:
            end = middle
    return end.replace(microsecond=0)
