"""One feed as a source reads it: its entries in the cursor, its answers, and what `start: latest` skips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bridge.http import parsing
from bridge.http.response import Response
from bridge.http.status import NO_CONTENT_STATUS
from bridge.protocols.source import Observation, ResourceType
from bridge.sources.marketingcloud.events import Feed, event_id, happened, is_position, observe, watermark

_MAX_ID_GAP = 10**15
"""Ids; an event whose id is further above most others of its page is observed, but moves no position in the feed."""
_KNOWN_KEYS = frozenset({"messages", "count", "lastEventID", "lastEventId"})
"""A page has some of these keys, or none at all; an error that comes with status 200 has none of these."""


@dataclass(frozen=True, slots=True)
class FeedPage:
    """One answer of a feed."""

    events: Sequence[Any]
    stated: int | None
    """The watermark; None if the answer states no usable one."""
    asked: datetime
    at: datetime

    @classmethod
    def read(cls, answer: Response) -> FeedPage:
        """Return what an answer has; raises `ProviderError` for anything else, which does not count as empty."""
        value: Any = {} if answer.status == NO_CONTENT_STATUS else answer.json()
        if not isinstance(value, dict) or (value and _KNOWN_KEYS.isdisjoint(value)):
            raise answer.refused("the provider answered something else than a page of events")
        messages = value.get("messages")
        if messages is not None and not isinstance(messages, list):
            raise answer.refused("the answer's messages are no list")
        return cls(messages or [], watermark(value), answer.asked, answer.at)

    @property
    def highest(self) -> int | None:
        """Return the highest event's id among its neighbours; None if no event has a number that is a position."""
        ids = (event_id(parsing.mapping(event)) for event in self.events)
        numbers = sorted(number for number in ids if is_position(number))
        middle = numbers[(len(numbers) - 1) // 2] if numbers else 0
        return max((number for number in numbers if number - middle <= _MAX_ID_GAP), default=None)


@dataclass(frozen=True, slots=True)
class FeedListing:
    """One feed as it is read for one source."""

    name: str
    feed: Feed
    kind: ResourceType

    @property
    def path(self) -> str:
        """Return the path of the messages, without the slash at its end."""
        return self.feed.path.rstrip("/")

    def key(self, name: str) -> str:
        """Return the name of one of the feed's entries in the cursor."""
        return f"{self.name}.{name}"

    def watermark(self, cursor: Mapping[str, str]) -> int | None:
        """Return the watermark that the cursor keeps; None reads the feed from its start."""
        last = parsing.integer(cursor.get(self.key("last")))
        return last if is_position(last) else None

    def observe(self, page: FeedPage) -> list[Observation | None]:
        """Return what each event of a page shows; None for one that says nothing."""
        return [observe(self.name, self.kind, event) for event in page.events]

    def observe_between(self, page: FeedPage, start: datetime, end: datetime) -> list[Observation]:
        """Return what the events of a page show that happened between two times."""
        return [
            observation
            for observation in self.observe(page)
            if observation is not None and (when := happened(observation.item)) is not None and start <= when < end
        ]


class FeedProgress:
    """How far a walk from the oldest event to `end` is, by the times of its events."""

    def __init__(self, end: datetime) -> None:
        self._end = end
        self._first: datetime | None = None
        self._read = 0.0

    def progress(self, page: FeedPage) -> float:
        """Return how much is read by this page, from 0 to 1."""
        times = [when for item in page.events if isinstance(item, Mapping) and (when := happened(item)) is not None]
        if times:
            self._first = self._first or min(times)
            whole = (self._end - self._first).total_seconds()
            share = (max(times) - self._first).total_seconds() / whole if whole > 0 else 1.0
            self._read = max(self._read, min(1.0, share))
        return self._read


@dataclass(slots=True)
class InitialSkip:
    """What `start: latest` skips: everything, until a walk has reached the end of the feed once.

    `upto` is the highest event that was skipped. If the feed's start is inclusive, that event comes once more.
    """

    active: bool
    upto: int | None

    @classmethod
    def load(cls, listing: FeedListing, cursor: Mapping[str, str], start: str) -> InitialSkip:
        """Return how far the skip is by the cursor."""
        state = cursor.get(listing.key("start"))
        is_first = state is None and listing.key("last") not in cursor
        # 0 also stands for "no number was skipped" in stores of before, and then covers nothing.
        upto = parsing.integer(cursor.get(listing.key("passed"))) or None
        return cls(start == "latest" and (is_first or state == "draining"), upto)

    def advance(self, listing: FeedListing, page: FeedPage, *, has_more: bool) -> dict[str, str | None]:
        """Return the cursor's changes, so that the next poll resumes the skip after a crash in the middle."""
        if not self.active:
            return {}
        changes: dict[str, str | None] = {listing.key("start"): "draining" if has_more else "live"}
        if (highest := page.highest) is not None:
            self.upto = highest if self.upto is None else max(self.upto, highest)
            changes[listing.key("passed")] = str(self.upto)
        return changes

    def covers(self, number: int | str | None) -> bool:
        """Say whether an event is older than the first start."""
        return self.active or (self.upto is not None and is_position(number) and number <= self.upto)

    def filter(self, observations: Sequence[Observation | None]) -> list[Observation]:
        """Return the observations that the skip does not cover."""
        return [
            observation
            for observation in observations
            if observation is not None and not self.covers(event_id(observation.item))
        ]
