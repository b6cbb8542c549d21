"""Figures, rates and pictures of the console: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.console import life_picture, road, words
from bridge.console.rates import Rates

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_rate_is_the_growth_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.per_second("a") is None
    assert rates.counted("a") == (0, 0.0)
    for second in range(0, 65, 5):
        rates.add(float(second), {"a": second * 2, "b": 7})
    assert rates.per_second("a") == 2.0
    assert rates.per_second("b") == 0.0
    assert rates.per_second("c") is None
    assert rates.counted("a") == (120, 60.0)
    assert rates.series("a", "b", "c") == [2.0] * 12
    rates.add(65.0, {"a": 0})
    assert rates.per_second("a") == 0.0  # a store that was reset


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, words.NONE), (0, "0/s"), (0.01, "0.6/min"), (3.25, "3.2/s"), (1234.0, "1,234/s")],
)
def test_rates_read_well(value: float | None, expected: str) -> None:
    assert words.rate(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(None, words.NONE), (12345, "12,345"), (104000, "104k"), (2_100_000, "2.1M")]
)
def test_counts_fit_in_a_picture(value: float | None, expected: str) -> None:
    assert words.short(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "now"), (12, "12 s ago"), (-61, "in 1 min"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_times_read_well(seconds: float, expected: str) -> None:
    assert words.ago((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == expected


def test_next_poll_is_due_once_its_time_has_come() -> None:
    assert [words.due((NOW + timedelta(seconds=span)).isoformat(), NOW) for span in (-3, 9)] == ["due", "in 9 s"]


def test_unknown_times_are_a_dash() -> None:
    assert (words.ago(None, NOW), words.ago("soon", NOW), words.clock_time(None), words.full_time("")) == (
        words.NONE, words.NONE, words.NONE, ""
    )  # fmt: skip
    assert words.cut("0123456789", 5) == "0123…"
    assert [words.counted(count, "event") for count in (1, 2)] == ["1 event", "2 events"]


def source(name: str, state: str = "ok", **values: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "rest",
        "state": state,
        "lag": 0,
        "kept": 5,
        "unroutable": 0,
        "per_second": 1.0,
    } | values


def sink(name: str, state: str = "ok", **values: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "dead": 0,
        "waiting": 0,
        "delivered": 9,
        "filtered": 0,
        "expired": 0,
        "per_second": 1.0,
    } | values


def facts(sources: list[dict[str, Any]], sinks: list[dict[str, Any]], *, reachable: bool = True) -> dict[str, Any]:
    server = {"reachable": reachable}
    rates = {"committed": 1.0, "confirmed": 0.0, "delivered": None}
    return {"sources": sources, "sinks": sinks, "store": server, "broker": server, "rates": rates}


def test_road_leads_from_every_source_to_every_sink() -> None:
    overview = facts([source("city"), source("drops", "stalled", lag=7)], [sink("crm", dead=2), sink("ops", "paused")])
    picture = road.wide(overview)
    assert [box.stop.title for box in picture.boxes] == ["city", "drops", "Journal", "Broker", "crm", "ops"]
    assert [box.stop.tone for box in picture.boxes] == ["well", "bad", "well", "well", "bad", "rest"]
    assert len(picture.ways) == 5
    assert picture.boxes[1].stop.lines[0] == "1.0/s · 7 not published"
    assert picture.boxes[4].stop.state == "dead letters"
    for box in picture.boxes:
        assert 0 <= box.x <= box.x + box.width <= picture.width
        assert 0 <= box.y <= box.y + box.height <= picture.height
    assert all(
        not left.y + left.height > right.y for left, right in zip(picture.boxes[:1], picture.boxes[1:2], strict=True)
    )
    phone = road.narrow(overview)
    tops = [box.y for box in phone.boxes]
    assert tops == sorted(tops)
    assert len(phone.ways) == 3


def test_long_road_shows_what_is_wrong_first() -> None:
    sources = [source(f"s{number}") for number in range(20)] + [source("late", "late"), source("new", "never polled")]
    boxes = road.wide(facts(sources, [])).boxes
    assert [box.stop.title for box in boxes[:2]] == ["late", "new"]
    assert "11 more" in {box.stop.title for box in boxes}


def test_road_without_servers_is_red() -> None:
    picture = road.wide(facts([], [], reachable=False))
    assert [box.stop.tone for box in picture.boxes] == ["bad", "bad"]
    assert road.sink_tone(sink("x", "circuit open")) == "bad"


def test_sparkline_has_a_point_for_each_sample() -> None:
    assert road.sparkline([]) == ""
    assert road.sparkline([0.0, 2.0, 1.0]).count(",") == 3


def change(number: int, **values: Any) -> dict[str, Any]:
    at = NOW + timedelta(minutes=number)
    observed = {"after": (at - timedelta(seconds=30)).isoformat(), "by": at.isoformat()}
    return {
        "position": f"city:{number}", "topic": "sms.recipient.failed", "time": at.isoformat(), "recorded": at.isoformat(),
        "observed": observed, "confirmed": True, "sinks": [],
    } | values  # fmt: skip


def test_life_has_a_bar_for_each_change_in_order() -> None:
    tries = [
        {"sink": "crm", "state": "dead", "attempts": [{"at": (NOW + timedelta(minutes=9)).isoformat(), "error": "503"}]}
    ]
    picture = life_picture.of([change(0, observed={"after": None, "by": NOW.isoformat()}), change(5, sinks=tries)])
    first, second = picture.rows
    assert first.is_open
    assert first.bar_x < second.bar_x
    assert second.tries[0][0] == picture.ticks[-1][0]
    assert "crm: dead" in second.words
    assert all(row.bar_x + row.bar_width <= picture.width for row in picture.rows)


@pytest.mark.parametrize("values", [{"observed": None}, {"observed": None, "time": None, "recorded": None}])
def test_life_without_times_is_drawn(values: dict[str, Any]) -> None:
    assert len(life_picture.of([change(0, **values)]).rows) == 1


@pytest.mark.parametrize(("days", "form"), [(0, "12:00:00.000"), (1, "12:00:00"), (9, "01 Mar 12:00")])
def test_axis_is_as_fine_as_its_length(days: int, form: str) -> None:
    changes = [change(0, observed=None), change(days * 1440, observed=None)]
    assert life_picture.of(changes).ticks[0][1] == form
