"""Hours of a week by the clocks of a zone, also on the days on which they are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.weekly_window import WeeklyWindow

ZONES = ("Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC")
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone follows
WINDOWS = st.builds(
    WeeklyWindow,
    st.frozensets(st.integers(0, 6), min_size=1),
    st.integers(0, 23).map(lambda hour: hour * 60),
    st.integers(0, 23).map(lambda hour: hour * 60 + 30),
    st.sampled_from(ZONES),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Mon-Fri 08:00-18:00 Europe/Paris", "Mon-Fri 08:00-18:00 Europe/Paris"),
        ("  mon-FRI   08:00-18:00  UTC ", "Mon-Fri 08:00-18:00 UTC"),
        ("Sat,Sun,Tue 00:00-24:00 UTC", "Tue,Sat-Sun 00:00-24:00 UTC"),
        ("Fri-Mon 22:00-06:00 UTC", "Mon,Fri-Sun 22:00-06:00 UTC"),
    ],
)
def test_window_is_read_and_written(text: str, shown: str) -> None:
    assert str(WeeklyWindow.parse(text)) == shown
    assert WeeklyWindow.parse(shown) == WeeklyWindow.parse(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is no weekly window"), ("Mon-Fri 8:00-18:00 UTC", "is no weekly window"), ("Mon-Fri 08:00-18:00", "is no weekly"),
        ("Mon-Fry 08:00-18:00 UTC", "'fry' is no day"), ("Mon 08:00-25:00 UTC", "25:00 is no time"),
        ("Mon 08:60-09:00 UTC", "08:60 is no time"), ("Mon 08:00-08:00 UTC", "has no hours"),
        ("Mon 08:00-18:00 Europe/Atlantis", "is no time zone"), ("Mon 08:00-18:00 ../etc/passwd", "is no time zone"),
    ],
)  # fmt: skip
def test_window_that_says_nothing_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        WeeklyWindow.parse(text)


def test_window_is_open_from_beginning_to_end() -> None:
    window = WeeklyWindow.parse("Mon-Fri 08:00-18:00 Europe/Paris")
    assert not window.contains(at("2026-11-30T07:59:59+01:00"))
    assert window.contains(at("2026-11-30T08:00:00+01:00"))
    assert not window.contains(at("2026-11-30T18:00:00+01:00"))
    assert window.next_boundary(at("2026-11-27T18:00:00+01:00")) == at("2026-11-30T08:00:00+01:00")


def test_night_belongs_to_the_day_on_which_it_begins() -> None:
    window = WeeklyWindow.parse("Fri 22:00-06:00 UTC")
    assert window.contains(at("2026-11-28T05:59:00+00:00"))
    assert not window.contains(at("2026-11-27T05:59:00+00:00"))
    assert window.opened(at("2026-11-28T01:00:00+00:00")) == at("2026-11-27T22:00:00+00:00")


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        # 02:30 does not exist on the day on which summer begins; the clocks go from 02:00 to 03:00.
        ("Sun 02:30-04:00 Europe/Paris", "2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00"),
        # It comes twice on the day on which summer ends, and counts when it comes first.
        ("Sun 02:30-04:00 Europe/Paris", "2026-10-25T02:30:00+02:00", "2026-10-25T04:00:00+01:00"),
        ("Sun 01:00-03:00 America/New_York", "2026-03-08T01:00:00-05:00", "2026-03-08T03:00:00-04:00"),
    ],
)
def test_day_of_changed_clocks_has_the_hours_that_they_show(text: str, begin: str, end: str) -> None:
    window = WeeklyWindow.parse(text)
    opens = window.next_boundary(at(begin) - timedelta(hours=20))
    assert (opens, window.next_boundary(opens)) == (at(begin), at(end))


def test_window_without_an_end_is_always_open() -> None:
    window = WeeklyWindow.parse("Mon-Sun 00:00-24:00 Europe/Paris")
    moment = at("2026-03-29T02:30:00+02:00")
    assert window.contains(moment)
    assert window.opened(moment) <= moment - timedelta(days=6)
    assert window.next_boundary(moment) > moment + timedelta(days=6)


@given(WINDOWS, MOMENTS)
def test_nothing_changes_before_the_next_boundary(window: WeeklyWindow, moment: datetime) -> None:
    boundary = window.next_boundary(moment)
    inside = window.contains(moment)
    assert moment < boundary
    steps = (moment + (boundary - moment) * part / 8 for part in range(8))
    assert {window.contains(step) for step in steps} == {inside}
    if boundary < moment + timedelta(days=7):
        assert window.contains(boundary) != inside


@given(WINDOWS, MOMENTS)
def test_open_window_opened_at_its_time(window: WeeklyWindow, moment: datetime) -> None:
    opened = window.opened(moment)
    assert (opened is not None) == window.contains(moment)
    if opened is not None and opened > moment - timedelta(days=6):
        assert opened <= moment
        local = opened.astimezone(ZoneInfo(window.zone))
        is_gap = opened - timedelta(minutes=1)
        shown = local.hour * 60 + local.minute
        changed = is_gap.astimezone(ZoneInfo(window.zone)).utcoffset() != local.utcoffset()
        assert shown == window.begin or changed


@given(WINDOWS)
def test_written_window_is_read_as_it_was(window: WeeklyWindow) -> None:
    assert WeeklyWindow.parse(str(window)) == window
