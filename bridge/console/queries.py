"""What the address of a page asks for, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from bridge.console.feed import EventSearch
from bridge.domain import topics as patterns
from bridge.domain.event import Position
from bridge.domain.settings import parse_duration
from bridge.operations.delivery_filter import REASONS, STATES, DeliveryFilter, PageMark

_MAX_CHARACTERS = 200


class BadQuery(Exception):
    """The address asks for something that cannot be asked for; the text says what to give instead."""


class Missing(Exception):
    """There is nothing of that name."""


@dataclass(frozen=True, slots=True)
class EventsQuery:
    """Which events, and from where on."""

    given: tuple[tuple[str, str], ...]
    filter: EventSearch
    before: Mapping[str, int]

    def link(self, path: str, before: str | None) -> str | None:
        """Return the address of the page that begins there."""
        return None if before is None else f"{path}?{urlencode([*self.given, ('before', before)])}"


@dataclass(frozen=True, slots=True)
class DeliveriesQuery:
    """Which deliveries of a sink, and from where on."""

    given: tuple[tuple[str, str], ...]
    filter: DeliveryFilter
    text: str
    after: PageMark | None

    @property
    def address(self) -> str:
        """What was asked for, as the end of an address."""
        return urlencode(self.given)

    def link(self, path: str, after: str | None) -> str | None:
        """Return the address of the page that begins there."""
        return None if after is None else f"{path}?{urlencode([*self.given, ('after', after)])}"


def events_query(query: Mapping[str, str]) -> EventsQuery:
    """Read what is asked of the events; raises `BadQuery`."""
    values = _values(query, ("topic", "source", "status", "text", "key"))
    wanted = EventSearch(
        _topics(values.get("topic", "")), values.get("source", ""), values.get("status", ""),
        values.get("text", ""), values.get("key", ""),
    )  # fmt: skip
    return EventsQuery(tuple(values.items()), wanted, _before(query.get("before", "")))


def deliveries_query(query: Mapping[str, str]) -> DeliveriesQuery:
    """Read what is asked of a sink's deliveries; raises `BadQuery`."""
    values = _values(query, ("state", "reason", "code", "topic", "since", "until", "text"))
    state, reason, code = values.get("state", ""), values.get("reason", ""), values.get("code", "")
    if state not in ("", *STATES):
        raise BadQuery(f"state is {' or '.join(STATES)}")
    if reason not in ("", *REASONS):
        raise BadQuery(f"reason is one of {', '.join(REASONS)}")
    if code and not (code.isdecimal() and len(code) == 3):  # noqa: PLR2004 - digits of an HTTP status
        raise BadQuery("code is an HTTP status, such as 503")
    wanted = DeliveryFilter(
        states=("dead",) if reason and not state else (state,) if state else STATES,
        reasons=(reason,) if reason else (),
        codes=(int(code),) if code else (),
        topics=_topics(values.get("topic", "")),
        since=_moment(values.get("since", "")),
        until=_moment(values.get("until", "")),
    )
    try:
        mark = PageMark.parse(query["after"]) if query.get("after") else None
    except ValueError as error:
        raise BadQuery(f"after: {error}") from None
    return DeliveriesQuery(tuple(values.items()), wanted, values.get("text", ""), mark)


def position(text: str) -> Position:
    """Read the position of an event; raises `BadQuery`."""
    try:
        return Position.parse(text)
    except ValueError:
        raise BadQuery("an event is named by its position, such as city-voice:1042") from None


def _values(query: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    values = {name: query[name].strip() for name in names if query.get(name, "").strip()}
    if any(len(value) > _MAX_CHARACTERS for value in values.values()):
        raise BadQuery(f"a filter has at most {_MAX_CHARACTERS} characters")
    return values


def _topics(text: str) -> tuple[str, ...]:
    try:
        return tuple(patterns.check(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise BadQuery(str(error)) from None


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuery(f"{text!r} is no time; write such as 2h, or 2026-03-01T12:00:00Z") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _before(text: str) -> dict[str, int]:
    """Read `JOURNAL:NUMBER,…`."""
    marks = [position(word) for word in text.split(",") if word]
    return {mark.source: mark.seq for mark in marks}
