"""The shape `feed`: events in the provider's order, followed by a position that never goes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from bridge.domain.clock import Clock
from bridge.http import parsing
from bridge.protocols.source import Observation, Page
from bridge.providers import times
from bridge.providers.models import FeedSpec
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ItemList
from bridge.sources.rest.sweep import PAGE_OBSERVATIONS, PollSweep
from bridge.sources.shapes.feed_cursor import FeedCursor
from bridge.sources.shapes.window import vendor_time

_POSITION, _POLLED, _START = "feed.position", "feed.polled", "feed.start"
_MAX_WALK_PAGES = 2000
_MAX_POSITION = 2**63 - 1
"""The highest position: ids have at most 64 bits."""
_RETENTION_MARGIN = timedelta(minutes=10)


class TimedFeed:
    """A feed whose positions are times: the last `settle` of it is read again at each poll."""

    def __init__(self, spec: FeedSpec, items: ItemList, reader: ItemReader, clock: Clock, *, latest: bool) -> None:
        self._items = items
        self._reader = reader
        self._clock = clock
        self._param = spec.param
        self._settle = timedelta(seconds=spec.settle)
        self._retention = timedelta(seconds=spec.retention or 0) - _RETENTION_MARGIN
        self._write = times.writer(spec.format, "UTC")
        self._grain = times.grain(spec.format)
        self._latest = latest

    async def pages(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        """Read from the position on to the end, which then is the position, less `settle`."""
        now = self._clock.now()
        kept = parsing.time(cursor.get(_POSITION))
        after = parsing.time(cursor.get(_POLLED))
        if kept is None and self._latest:
            yield Page(
                (), now, cursor={_POSITION: vendor_time(now), _POLLED: vendor_time(now), _START: vendor_time(now)}
            )
            return
        start = max(kept or now - self._retention, now - self._retention)
        begun = parsing.time(cursor.get(_START))
        at = now
        async for page in self._items.pages(self.question(start)):
            at = page.answer.at
            shown = [
                seen
                for seen in sweep.observe(self._reader, page.items)
                if begun is None or not self._is_before(seen, begun)
            ]
            for first in range(0, len(shown), PAGE_OBSERVATIONS):
                yield Page(shown[first : first + PAGE_OBSERVATIONS], at, after, backlog=after is None)
        sweep.answered = True
        position = min(max(start, now - self._settle), now)
        yield Page((), at, after, {_POSITION: vendor_time(max(position, kept or position)), _POLLED: vendor_time(now)})

    def question(self, start: datetime) -> dict[str, str | int | None]:
        """Return the parameters of a walk from `start` on."""
        return {self._param: self._write(start - self._grain)}

    def _is_before(self, observation: Observation, begun: datetime) -> bool:
        when = self._reader.changed(observation.item) or self._reader.created(observation.item)
        return when is not None and when < begun

    async def between(self, start: datetime, end: datetime, sweep: PollSweep) -> AsyncIterator[Page]:
        """Yield what happened between two times."""
        oldest = self._clock.now() - self._retention
        async for page in self._items.pages(self.question(max(start, oldest))):
            yield Page(happened_between(sweep, self._reader, page.items, start, end), page.answer.at)
        sweep.answered = True


class NumberedFeed:
    """A feed whose positions are numbers."""

    def __init__(self, spec: FeedSpec, items: ItemList, reader: ItemReader, *, latest: bool) -> None:
        self._items = items
        self._reader = reader
        self._param = spec.param
        self._position = spec.position.reader()
        self._answer = spec.answer.reader() if spec.answer is not None else None
        self._latest = latest

    async def pages(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        """Read from the position on to the end; each page moves it."""
        after = parsing.time(cursor.get(_POLLED))
        skipping = self._latest and (_POSITION not in cursor or cursor.get(_START) == "draining")
        walk = FeedCursor.at(_position(cursor.get(_POSITION)))
        async for page, at in self._walk(walk):
            changes: dict[str, str | None] = {}
            if walk.watermark is not None:
                changes[_POSITION] = str(walk.watermark)
            if skipping:
                changes[_START] = "draining" if walk.has_more else None
            if not walk.has_more:
                changes[_POLLED] = vendor_time(at)
            shown = [] if skipping else sweep.observe(self._reader, page)
            yield Page(shown, at, after, changes, backlog=after is None)
        sweep.answered = True

    async def between(self, start: datetime, end: datetime, sweep: PollSweep) -> AsyncIterator[Page]:
        """Yield what happened between two times: the whole feed is read."""
        async for page, at in self._walk(FeedCursor()):
            yield Page(happened_between(sweep, self._reader, page, start, end), at)
        sweep.answered = True

    async def _walk(self, walk: FeedCursor) -> AsyncIterator[tuple[list[Any], datetime]]:
        for _ in range(_MAX_WALK_PAGES):
            params = {} if walk.position is None else {self._param: walk.position}
            items: list[Any] = []
            stated: int | None = None
            at: datetime | None = None
            async for page in self._items.pages(params):
                items += page.items
                at = page.answer.at
                stated = _position(None if self._answer is None else self._answer(page.value))
            positions = [number for item in items if (number := _position(self._position(item))) is not None]
            walk.advance(stated, max(positions, default=None), empty=not items)
            if at is not None:
                yield items, at
            if at is None or not walk.has_more:
                return


def _position(value: Any) -> int | None:
    number = parsing.integer(value)
    return number if number is not None and 0 < number <= _MAX_POSITION else None


def happened_between(
    sweep: PollSweep, reader: ItemReader, items: Sequence[Any], start: datetime, end: datetime
) -> list[Observation]:
    """Return what the items show that happened between two times."""
    return [
        observation
        for observation in sweep.observe(reader, items)
        if (when := reader.changed(observation.item) or reader.created(observation.item)) is not None
        and start <= when < end
    ]
