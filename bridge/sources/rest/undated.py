"""Records that no window finds, since they have no time yet: the list without a window, read back from the newest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

from bridge.domain.clock import Clock
from bridge.http import parsing
from bridge.protocols.source import Page
from bridge.providers.models import UndatedSpec
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ItemList
from bridge.sources.rest.sweep import PollSweep, backlog_runs
from bridge.sources.shapes.window import vendor_time

_BEGUN, _WALKED, _READ_BACK = "undated.begun", "undated.walked", "undated.read"
_OVERLAP = timedelta(minutes=2)
"""How far walks overlap: a record may appear a little after its creation."""


class UndatedWalk:
    """Reads the list without its window: at each poll what is new, now and then as far back as records stay undated.

    The cursor keeps when it was last read back whole, so that an outage is made up for.
    """

    def __init__(self, spec: UndatedSpec, items: ItemList, reader: ItemReader, clock: Clock) -> None:
        self._since, self._every = timedelta(seconds=spec.since), timedelta(seconds=spec.every)
        self._items = items
        self._reader = reader
        self._clock = clock

    async def pages(self, cursor: Mapping[str, str], sweep: PollSweep) -> AsyncIterator[Page]:
        """Walk back from the newest record; the cursor moves with the last page."""
        now = self._clock.now()
        walked = parsing.time(cursor.get(_WALKED))
        read_back = parsing.time(cursor.get(_READ_BACK))
        begun = now if read_back is None and _BEGUN not in cursor else parsing.time(cursor.get(_BEGUN))
        is_deep = walked is None or read_back is None or now - read_back >= self._every
        bound = min(read_back or now, now) - self._since if is_deep else min(walked or now, now) - _OVERLAP
        if begun is not None and _BEGUN not in cursor:
            yield Page((), now, cursor={_BEGUN: vendor_time(begun)})
        at = now
        async with aclosing(self._items.pages({})) as pages:
            async for page in pages:
                at = page.answer.at
                observations = sweep.observe(self._reader, page.items)
                for backlog, run in backlog_runs(observations, self._reader.created, begun):
                    yield Page(run, at, walked, backlog=backlog)
                if self._is_behind(page.items, bound):
                    break
        sweep.answered = True
        changes: dict[str, str | None] = {_WALKED: vendor_time(now)}
        if is_deep:
            changes |= {_READ_BACK: vendor_time(now), _BEGUN: None}
        yield Page((), at, cursor=changes)

    async def between(self, start: datetime, end: datetime, sweep: PollSweep) -> AsyncIterator[Page]:
        """Walk back to `start`, and yield what was created between two times."""
        async with aclosing(self._items.pages({})) as pages:
            async for page in pages:
                shown = [
                    observation
                    for observation in sweep.observe(self._reader, page.items)
                    if (when := self._reader.created(observation.item)) is not None and start <= when < end
                ]
                yield Page(shown, page.answer.at)
                if self._is_behind(page.items, start):
                    break
        sweep.answered = True

    def _is_behind(self, items: list[Any], bound: datetime) -> bool:
        """Say whether all items were created before `bound`: the pages after them are older still."""
        times = [self._reader.created(item) for item in items]
        return bool(times) and all(moment is not None and moment < bound for moment in times)
