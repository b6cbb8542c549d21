"""The road of an event as a picture: sources, journal, broker, sinks, with what each says. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bridge.console.words import cut, rate, short

_MAX_PARTS = 12
"""Sources, or sinks, that the picture shows; of more, those that are not well come first."""
_GAP = 14  # between two boxes; in the units of the picture, as all lengths here
_BOX_HEIGHT = 74  # of the wide picture
_NARROW_HEIGHT = 68  # of a box of the narrow picture
_WIDE = 1120  # the width of the wide picture
_NARROW = 358  # the width of the narrow picture: that of a phone
_SIDE_WIDTH, _MIDDLE_WIDTH = 268, 190
_JOURNAL_X, _BROKER_X = 352, 578
_NAME_CHARACTERS = 26
_LINE_CHARACTERS = 38
_MAX_STROKE = 7.0  # the width of the busiest line
_RANKS = {"bad": 0, "warn": 1, "rest": 2, "well": 3}


@dataclass(frozen=True, slots=True)
class Stop:
    """One part of the road."""

    title: str
    lines: tuple[str, ...]
    tone: str
    """`well`, `warn`, `bad` or `rest`."""
    state: str
    href: str = ""
    per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A stop at its place; all in the picture's own units."""

    stop: Stop
    x: float
    y: float
    width: float
    height: float = _BOX_HEIGHT


@dataclass(frozen=True, slots=True)
class Way:
    """A line from one stop to the next."""

    path: str
    stroke: float
    tone: str
    moves: bool


@dataclass(slots=True)
class Picture:
    """Boxes and the lines between them."""

    width: float
    height: float
    boxes: list[Box] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)


def stops(facts: Mapping[str, Any]) -> tuple[list[Stop], Stop, Stop, list[Stop]]:
    """Return sources, journal, broker and sinks."""
    sources = [_source(source) for source in facts["sources"]]
    sinks = [_sink(sink) for sink in facts["sinks"]]
    return _chosen(sources, "/sources"), _journal(facts), _broker(facts), _chosen(sinks, "/sinks")


def _chosen(all_stops: Sequence[Stop], href: str) -> list[Stop]:
    if len(all_stops) <= _MAX_PARTS:
        return list(all_stops)
    first = sorted(all_stops, key=lambda stop: _RANKS[stop.tone])[: _MAX_PARTS - 1]
    more = len(all_stops) - len(first)
    return [*first, Stop(f"{more} more", ("all of these are on the next page",), "rest", "", href)]


def source_tone(source: Mapping[str, Any]) -> str:
    """Return how a source's state is coloured."""
    match source["state"]:
        case "ok":
            return "well"
        case "paused" | "unknown":
            return "rest"
        case "failing" | "never polled":
            return "warn"
        case _:
            return "bad"


def sink_tone(sink: Mapping[str, Any]) -> str:
    """Return how a sink's state is coloured."""
    match sink["state"]:
        case "ok":
            return "bad" if sink["dead"] else "well"
        case "paused" | "quiet" | "unknown":
            return "rest"
        case _:
            return "bad"


def _source(source: Mapping[str, Any]) -> Stop:
    lag = f"{short(source['lag'])} not published" if source["lag"] else "all published"
    lines = (f"{rate(source['per_second'])} · {lag}", source["type"])
    return Stop(
        source["name"], lines, source_tone(source), source["state"], f"/sources#{source['name']}", source["per_second"]
    )


def _journal(facts: Mapping[str, Any]) -> Stop:
    store, lag = facts["store"], sum(source["lag"] for source in facts["sources"])
    kept = sum(source["kept"] for source in facts["sources"])
    per_second = facts["rates"]["committed"]
    if not store["reachable"]:
        return Stop("Journal", ("the store does not answer",), "bad", "unreachable", "", None)
    return Stop("Journal", (f"{rate(per_second)} in", f"{short(kept)} kept · {short(lag)} waiting"), "well", "ok",
                "/events", per_second)  # fmt: skip


def _broker(facts: Mapping[str, Any]) -> Stop:
    per_second = facts["rates"]["confirmed"]
    if not facts["broker"]["reachable"]:
        return Stop("Broker", ("it does not answer",), "bad", "unreachable", "", None)
    unroutable = sum(source["unroutable"] for source in facts["sources"])
    further = f"{short(unroutable)} found no queue" if unroutable else "all found a queue"
    return Stop("Broker", (f"{rate(per_second)} out", further), "well", "ok", "", per_second)


def _sink(sink: Mapping[str, Any]) -> Stop:
    waits = f"{short(sink['waiting'])} waiting" if sink["waiting"] else "nothing waits"
    dead = f"{short(sink['dead'])} dead" if sink["dead"] else f"{short(sink['delivered'])} delivered"
    unsent = "".join(
        f" · {short(sink[column])} {words}"
        for column, words in (("filtered", "filtered out"), ("expired", "expired"))
        if sink[column]
    )
    state = "dead letters" if sink["state"] == "ok" and sink["dead"] else sink["state"]
    return Stop(
        sink["name"], (f"{rate(sink['per_second'])} · {waits}", dead + unsent), sink_tone(sink), state,
        f"/sinks/{sink['name']}", sink["per_second"],
    )  # fmt: skip


# --- pictures -----------------------------------------------------------------------------------------------------


def wide(facts: Mapping[str, Any]) -> Picture:
    """Return the road from left to right."""
    sources, journal, broker, sinks = stops(facts)
    rows = max(len(sources), len(sinks), 1)
    picture = Picture(_WIDE, rows * (_BOX_HEIGHT + _GAP) - _GAP + 8)
    left = _column(sources, 4, picture.height)
    right = _column(sinks, _WIDE - _SIDE_WIDTH - 4, picture.height)
    middle = (picture.height - _BOX_HEIGHT) / 2
    journal_box = Box(_fit(journal), _JOURNAL_X, middle, _MIDDLE_WIDTH)
    broker_box = Box(_fit(broker), _BROKER_X, middle, _MIDDLE_WIDTH)
    picture.boxes = [*left, journal_box, broker_box, *right]
    picture.ways = [
        *(_across(box, journal_box, box.stop) for box in left),
        _across(journal_box, broker_box, broker),
        *(_across(broker_box, box, box.stop) for box in right),
    ]
    return picture


def narrow(facts: Mapping[str, Any]) -> Picture:
    """Return the road from top to bottom, for a phone."""
    sources, journal, broker, sinks = stops(facts)
    picture, y = Picture(_NARROW, 0), 4.0
    groups = [sources, [journal], [broker], sinks]
    for index, group in enumerate(groups):
        for stop in group:
            picture.boxes.append(Box(_fit(stop), 4, y, _NARROW - 8, _NARROW_HEIGHT))
            y += _NARROW_HEIGHT + 8
        if group and any(groups[index + 1 :]):
            speed = broker.per_second if index else journal.per_second
            picture.ways.append(_way(f"M{_NARROW / 2} {y - 8} V{y + 18}", speed, group[0]))
            y += 20
    picture.height = y
    return picture


def _column(group: Sequence[Stop], x: float, height: float) -> list[Box]:
    y = (height - len(group) * (_BOX_HEIGHT + _GAP) + _GAP) / 2
    return [Box(_fit(stop), x, y + index * (_BOX_HEIGHT + _GAP), _SIDE_WIDTH) for index, stop in enumerate(group)]


def _fit(stop: Stop) -> Stop:
    lines = tuple(cut(line, _LINE_CHARACTERS) for line in stop.lines)
    return Stop(cut(stop.title, _NAME_CHARACTERS), lines, stop.tone, stop.state, stop.href, stop.per_second)


def _across(start: Box, end: Box, speed_of: Stop) -> Way:
    x, y = start.x + start.width, start.y + start.height / 2
    to_x, to_y = end.x, end.y + end.height / 2
    bend = (to_x - x) / 2
    path = f"M{x:g} {y:g} C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"
    return _way(path, speed_of.per_second, speed_of)


def _way(path: str, per_second: float | None, stop: Stop) -> Way:
    speed = per_second or 0.0
    return Way(path, min(_MAX_STROKE, 2 + speed**0.5 / 3), stop.tone, speed > 0)


# --- small pictures -----------------------------------------------------------------------------------------------


def sparkline(series: Sequence[float], width: float = 240, height: float = 44) -> str:
    """Return the points of a line that shows how a figure moved."""
    top = max(series, default=0.0) or 1.0
    step = width / max(len(series) - 1, 1)
    return " ".join(
        f"{index * step:.1f},{height - 3 - value / top * (height - 6):.1f}" for index, value in enumerate(series)
    )
