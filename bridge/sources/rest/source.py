"""The source that a definition describes: its shapes around one client, in one poll."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.protocols.source import Observation, Page, Probe
from bridge.sources.rest.feed import NumberedFeed, TimedFeed
from bridge.sources.rest.follow import Follower
from bridge.sources.rest.pushed import PushedLookups, RestPushes
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ApiClient
from bridge.sources.rest.settings import RestSettings
from bridge.sources.rest.sweep import PollSweep
from bridge.sources.rest.undated import UndatedWalk
from bridge.sources.rest.window import TrailingWindow
from bridge.sources.shapes.pushed import PushedThings
from bridge.sources.shapes.span import SMALLEST_SPAN
from bridge.sources.shapes.window import period, slices, vendor_time

_DAY_SECONDS = 86400.0
_WALKED_STEP_SECONDS = 7 * _DAY_SECONDS


class Rest:
    """Polls a provider as its definition says: a window or a feed, and what has to be followed.

    A part that fails stops no other part, and is read again at the next poll.
    """

    def __init__(self, name: str, settings: RestSettings, clock: Clock) -> None:
        definition = self.definition = type(settings).definition
        self.name = name
        self.settings = settings
        self.problems: list[str] = []
        self.behind = False
        self._clock = clock
        self._client = ApiClient(definition, settings, clock)
        self._reader = ItemReader(definition, self._client.values, settings.statuses)
        self.account = self._client.account
        """See `bridge.protocols.source.HasAccount`."""
        client, reader = self._client, self._reader
        window, feed, follow = definition.window, definition.feed, definition.follow
        self._window = None if window is None else TrailingWindow(window, client, reader, clock, settings, name)
        undated = None if window is None else window.undated
        self._undated = None if undated is None else UndatedWalk(undated, client, reader, clock)
        self._follow = None if follow is None else Follower(follow, client, reader, clock, settings)
        self._pushed = PushedThings()
        push, given = definition.push, getattr(settings, "push", None)
        self.pushes = None if push is None or given is None else RestPushes(push, given)
        """See `bridge.protocols.hints.TakesPushes`."""
        lookup = definition.lookup if push is not None and push.then == "look" else None
        self._lookups = None if lookup is None else PushedLookups(lookup, client, reader, clock, settings)
        self._feed: TimedFeed | NumberedFeed | None = None
        if feed is not None:
            latest = getattr(settings, "start", "earliest") == "latest"
            numbered = feed.format == "number"
            self._feed = (
                NumberedFeed(feed, client, latest=latest) if numbered else TimedFeed(feed, client, clock, latest=latest)
            )
        step = float(getattr(settings, "slice", _DAY_SECONDS))
        # Each step of a backfill walks back over all records without a time, so there should be few.
        self.backfill_step = step if undated is None else max(step, _WALKED_STEP_SECONDS)
        self.retention = self._kept()

    def _kept(self) -> float:
        reach = [float(getattr(self.settings, name, 0.0)) for name in ("catch_up", "lookback", "give_up")]
        feed = self.definition.feed
        return sum(reach) + (0.0 if feed is None else feed.retention or 30 * _DAY_SECONDS) + _DAY_SECONDS

    def fingerprint(self) -> str:
        """Return a name of the account, by the settings that tell accounts apart."""
        return self._client.fingerprint

    async def recognizes(self, fingerprint: str, cursor: Mapping[str, str]) -> bool:
        """Return False: the settings that tell accounts apart are others."""
        del fingerprint, cursor
        return False

    def _begin(self) -> PollSweep:
        sweep = PollSweep(reader=self._reader)
        self.problems = sweep.problems
        return sweep

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Read what is due of each shape; raises if nothing could be read."""
        del watched
        sweep = self._begin()
        self.behind = False
        for what, pages in self._due_parts(cursor, sweep):
            try:
                async for page in pages:
                    yield page if self._follow is None or what == "look" else self._follow.with_discovered(page, cursor)
            except (LeaseLost, Unauthorized):
                raise
            except BridgeError as error:
                sweep.on_failure(what, error)
        self.behind = self._follow is not None and self._follow.behind
        sweep.end()

    def _due_parts(self, cursor: Mapping[str, str], sweep: PollSweep) -> list[tuple[str, AsyncIterator[Page]]]:
        """Return the parts of this poll: what was pushed first, and in an early poll nothing else."""
        pushed, early = self._pushed.take()
        if self._lookups is None or not pushed:
            return self._parts(cursor, sweep)
        return [("push", self._lookups.pages(pushed, sweep)), *([] if early else self._parts(cursor, sweep))]

    def expect_news(self, things: Mapping[str, datetime], *, early: bool) -> None:
        """Look at these resources in the next poll; see `bridge.protocols.hints.TakesPushes`."""
        self._pushed.put(things, early=early)

    @property
    def postponed(self) -> Collection[str]:
        """Nothing: a poll looks at all that it is told."""
        return self._pushed.left

    def _parts(self, cursor: Mapping[str, str], sweep: PollSweep) -> list[tuple[str, AsyncIterator[Page]]]:
        shapes = (("list", self._window), ("undated", self._undated), ("feed", self._feed), ("look", self._follow))
        return [(what, shape.pages(cursor, sweep)) for what, shape in shapes if shape is not None]

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read a past range once, the oldest first, and leave the cursor alone."""
        sweep = self._begin()
        if self._feed is not None:
            async for page in self._feed.between(start, end, sweep):
                yield page
        if self._window is not None:
            async for page in self._backfill_window(self._window, start, end, sweep):
                yield page
        if self._undated is not None:
            async for page in self._undated.between(start, end, sweep):
                yield page
        sweep.end()

    async def _backfill_window(
        self, window: TrailingWindow, start: datetime, end: datetime, sweep: PollSweep
    ) -> AsyncIterator[Page]:
        oldest = window.oldest(self._clock.now())
        if start < oldest:
            self.problems.append(f"records before {vendor_time(oldest)} are not kept by the provider: not read")
        for part in slices(max(start, oldest), end, window.times.size):
            try:
                async for page in window.slice_pages(part, None, sweep):
                    yield page
            except LeaseLost:
                raise
            except BridgeError as error:
                sweep.on_failure(f"records from {vendor_time(part.start)}", error)

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations as they are: an item is complete as it is listed."""
        return observations

    def resource(self, text: str) -> str:
        """Raise `ValueError`: the source follows everything by itself."""
        raise ValueError(f"{text!r}: nothing to name, a rest source follows everything by itself")

    async def probe(self) -> Probe:
        """Ask for the last minute of the list, or for the first page of the feed."""
        now = self._clock.now()
        params: Mapping[str, Any] = {}
        if self._window is not None:
            params = self._window.question(now - SMALLEST_SPAN, now)
        elif isinstance(self._feed, TimedFeed):
            params = self._feed.question(now - timedelta(minutes=1))
        async with aclosing(self._client.pages(params)) as pages:
            page = await anext(pages, None)
        count = 0 if page is None else len(page.items)
        requests = self._requests_per_day()
        summary = (
            f"{self._client.http.origin.host} answers ({count} on the first page); polling costs about {requests:.0f} "
            f"requests a day{self._cost()}"
        )
        return Probe(summary, requests)

    def _cost(self) -> str:
        budget = self.definition.budget
        return "" if budget.cost is None else f", and {budget.cost:g} {budget.currency} for 1000 records"

    def _requests_per_day(self) -> float:
        interval = self.settings.interval
        requests = _DAY_SECONDS / interval
        if self._window is not None:
            own = self._window.times
            count = math.ceil(own.lookback / own.size)
            ages = ((index + 0.5) * own.size.total_seconds() for index in range(count))
            requests += sum(_DAY_SECONDS / period(age, interval, own.reread_every) for age in ages)
        return requests * (1 if self._undated is None else 2)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
