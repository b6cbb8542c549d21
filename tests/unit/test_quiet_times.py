"""Quiet times against a plain reference that looks at the clocks minute by minute, around changes of the clocks."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.domain.quiet_times import QuietTimes

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
CHANGES = {
    "Europe/Paris": [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)],
    "America/New_York": [datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)],
    "Australia/Lord_Howe": [datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)],
    "America/Sao_Paulo": [datetime(2018, 11, 4, 3, tzinfo=UTC), datetime(2018, 2, 18, 2, tzinfo=UTC)],
    "Pacific/Apia": [datetime(2011, 12, 30, 10, tzinfo=UTC)],
    "UTC": [datetime(2026, 1, 1, tzinfo=UTC)],
}
"""Moments at which clocks change: by an hour, by half an hour, at midnight, and by a whole day."""
NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@lru_cache(maxsize=4096)
def lasts(zone: str, day: date, start: int, end: int) -> tuple[datetime, datetime]:
    """Return the first minute at which clocks show the start or later, and the one behind the last before the end."""
    midnight = datetime.combine(day, time())
    shown_start, shown_end = midnight + start * MINUTE, midnight + end * MINUTE
    begin = (shown_start - 15 * 60 * MINUTE).replace(tzinfo=UTC)
    minutes = [begin + n * MINUTE for n in range(end - start + 30 * 60 + 24 * 60)]
    shown = [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in minutes]
    first = next(moment for moment, wall in shown if wall >= shown_start)
    last = max(moment for moment, wall in shown if wall < shown_end)
    return first, last + MINUTE


def is_quiet(windows: list[tuple[str, frozenset[int], int, int]], moment: datetime) -> bool:
    for zone, days, start, end in windows:
        today = moment.astimezone(ZoneInfo(zone)).date()
        for day in (today + n * DAY for n in range(-3, 3)):
            if day.weekday() in days:
                begun, ended = lasts(zone, day, start, end)
                if begun <= moment < ended:
                    return True
    return False


def text(window: tuple[str, frozenset[int], int, int]) -> str:
    zone, days, start, end = window
    hours = "{:02}:{:02}".format
    last = end if end <= 1440 else end - 1440
    return (
        f"{','.join(NAMES[day] for day in sorted(days))} {hours(*divmod(start, 60))}-{hours(*divmod(last, 60))} {zone}"
    )


@st.composite
def windows(draw, zone: str) -> tuple[str, frozenset[int], int, int]:
    start = draw(st.sampled_from([0, 5, 90, 120, 135, 150, 165, 180, 22 * 60, 23 * 60 + 30]))
    length = draw(st.sampled_from([15, 60, 150, 480, 1439, 1440]))
    days = draw(st.frozensets(st.integers(0, 6), min_size=1, max_size=5))
    end = start + length
    return zone, days, start, end if end <= 1440 or end - 1440 < start else 1440


@st.composite
def weeks(draw) -> tuple[list[tuple[str, frozenset[int], int, int]], datetime]:
    zone = draw(st.sampled_from(sorted(CHANGES)))
    change = draw(st.sampled_from(CHANGES[zone]))
    chosen = draw(st.lists(windows(zone), min_size=1, max_size=2))
    return chosen, change + MINUTE * draw(st.integers(-1600, 1600))


PARIS = ("Europe/Paris", frozenset(range(7)))


@settings(max_examples=150, deadline=None)
@given(weeks())
@example(([(*PARIS, 22 * 60, 31 * 60)], datetime(2026, 3, 28, 23, tzinfo=UTC)))
@example(([(*PARIS, 135, 165)], datetime(2026, 3, 29, 1, tzinfo=UTC)))
@example(([(*PARIS, 135, 165)], datetime(2026, 10, 25, 1, 5, tzinfo=UTC)))
@example(([("Pacific/Apia", frozenset({4}), 0, 1440)], datetime(2011, 12, 30, 10, tzinfo=UTC)))
def test_quiet_times_are_those_of_the_minute_by_minute_reference(week) -> None:
    chosen, moment = week
    times = QuietTimes([text(window) for window in chosen])
    for asked in (moment, moment - MINUTE, moment + timedelta(seconds=59.5), moment + 7 * 60 * MINUTE, moment):
        quiet = times.at(asked)
        assert (quiet is not None) == is_quiet(chosen, asked)
        if quiet is not None:
            assert quiet.begin <= asked < quiet.end
            around = [quiet.begin - MINUTE, quiet.begin, quiet.end - MINUTE, quiet.end]
            assert [is_quiet(chosen, edge) for edge in around] == [False, True, True, False]


def test_a_night_lasts_until_clocks_show_its_end() -> None:
    times = QuietTimes("22:00-07:00 Europe/Paris")
    summer, winter = datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 10, 25, 0, tzinfo=UTC)
    short, long = times.at(summer), times.at(winter)
    assert short is not None
    assert long is not None
    assert (short.end - short.begin, long.end - long.begin) == (timedelta(hours=8), timedelta(hours=10))
    assert short.said_end == "07:00 Europe/Paris"
    assert times.at(datetime(2026, 3, 29, 5, tzinfo=UTC)) is None


def test_windows_that_touch_are_one_quiet_time() -> None:
    times = QuietTimes(["22:00-07:00 UTC", "Sat-Sun 00:00-24:00 UTC"])
    quiet = times.at(datetime(2026, 11, 28, 12, tzinfo=UTC))
    assert quiet is not None
    assert (quiet.begin, quiet.end) == (datetime(2026, 11, 27, 22, tzinfo=UTC), datetime(2026, 11, 30, 7, tzinfo=UTC))


def test_a_clock_that_jumps_is_followed_both_ways() -> None:
    times = QuietTimes("Mon 22:00-07:00 UTC")
    monday = datetime(2026, 11, 30, 23, tzinfo=UTC)
    for days in (0, 1, -400, 0, 7, 3650, 0):
        quiet = times.at(monday + days * DAY)
        assert (quiet is not None) == ((monday + days * DAY).weekday() == 0)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("22:00-07:00", "'22:00-07:00' names no time zone; write 22:00-07:00 Europe/Paris, or UTC"),
        ("10pm-7am Europe/Paris", "is no time of the week; write 22:00-07:00 Europe/Paris, or Sat-Sun"),
        ("25:00-07:00 UTC", "has no time 25:00; write one from 00:00 to 24:00"),
        ("22:60-07:00 UTC", "has no time 22:60"),
        ("24:00-07:00 UTC", "begins at 24:00; write 00:00, on the next day"),
        ("07:00-07:00 UTC", "begins and ends at the same time; write 00:00-24:00 for whole days"),
        ("Sat-Son 00:00-24:00 UTC", "'Son' is no day; write Mon, Tue, Wed, Thu, Fri, Sat, Sun"),
        ("22:00-07:00 Europe/Pari", "'Europe/Pari' is no time zone that this machine knows"),
        ("22:00-07:00 ../passwd", "is no time zone that this machine knows"),
        (["00:00-24:00 UTC"], "covers the whole week, so nothing would ever be sent"),
        (["00:00-13:00 UTC", "12:00-24:00 Europe/Paris", "22:00-00:00 UTC"], "covers the whole week"),
        ([], "is an empty list; write 22:00-07:00 Europe/Paris"),
    ],
)
def test_a_wrong_text_says_what_to_write(raw, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        QuietTimes(raw)
