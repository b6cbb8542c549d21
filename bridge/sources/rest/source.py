"""The source that a definition describes: its shapes around one client, in one poll."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.protocols.source import GroupCounts, Observation, Page, Probe
from bridge.sources.rest.feed import NumberedFeed, TimedFeed
from bridge.sources.rest.follow import Follower
from bridge.sources.rest.pushed import PushedLookups, RestPushes
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ApiClient, ItemList
from bridge.sources.rest.settings import RestSettings
from bridge.sources.rest.sweep import PollSweep
from bridge.sources.rest.undated import UndatedWalk
from bridge.sources.rest.window import TrailingWindow, WindowNames
from bridge.sources.rest.windows import WindowSet
from bridge.sources.shapes.pushed import PushedThings
from bridge.sources.shapes.span import SMALLEST_SPAN

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
        self.resource_types = [self._reader.kind]
        self.account = self._client.account
        """See `bridge.protocols.source.HasAccount`."""
        client, reader = self._client, self._reader
        items = self._items = ItemList(client, definition.listing)
        window, feed, follow = definition.window, definition.feed, definition.follow
        self._windows: WindowSet | None = None
        if window is not None:
            # What is followed is kept in the cursor by the pages that show it, so none of them is left out.
            own = TrailingWindow(window, items, reader, clock, settings, WindowNames(name), remembers=follow is None)
            self._windows = WindowSet([own], clock)
        undated = None if window is None else window.undated
        self._undated = None if undated is None else UndatedWalk(undated, items, reader, clock)
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
                NumberedFeed(feed, items, reader, latest=latest)
                if numbered
                else TimedFeed(feed, items, reader, clock, latest=latest)
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
        sweep = PollSweep()
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
        shapes = (("list", self._windows), ("undated", self._undated), ("feed", self._feed), ("look", self._follow))
        return [(what, shape.pages(cursor, sweep)) for what, shape in shapes if shape is not None]

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read a past range once, the oldest first, and leave the cursor alone."""
        sweep = self._begin()
        if self._feed is not None:
            async for page in self._feed.between(start, end, sweep):
                yield page
        if self._windows is not None:
            async for page in self._windows.between(start, end, sweep):
                yield page
        if self._undated is not None:
            async for page in self._undated.between(start, end, sweep):
                yield page
        sweep.end()

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        """Yield the path of the list, if it has a window; see `bridge.protocols.source.Reconcilable`."""
        del cursor, watched, everything
        for path in () if self._windows is None else self._windows.groups():
            yield path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Say that the window must be read whole, because the provider counts nothing; costs no request."""
        del cursor, ask
        return None if self._windows is None else self._windows.count(group)

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read all records of the last `lookback`; see `bridge.protocols.source.Reconcilable`."""
        del cursor
        if self._windows is not None:
            async for page in self._windows.members(group):
                yield page

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
        if self._windows is not None:
            params = self._windows.windows[0].question(now - SMALLEST_SPAN, now)
        elif isinstance(self._feed, TimedFeed):
            params = self._feed.question(now - timedelta(minutes=1))
        async with aclosing(self._items.pages(params)) as pages:
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
        requests = _DAY_SECONDS / self.settings.interval if self._windows is None else self._windows.requests_per_day
        return requests * (1 if self._undated is None else 2)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()
