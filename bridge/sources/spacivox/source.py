"""The Spacivox source: a window for each sort of record and each team, as the sorts' definitions describe them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime

from bridge.domain.clock import Clock
from bridge.domain.settings import format_duration
from bridge.http.client import HttpLimits
from bridge.protocols.source import GroupCounts, Observation, Page, Probe, ResourceType
from bridge.sources.rest.records import ItemReader
from bridge.sources.rest.requests import ApiClient, ItemList
from bridge.sources.rest.sweep import PollSweep
from bridge.sources.rest.window import TrailingWindow, WindowNames
from bridge.sources.rest.windows import WindowSet
from bridge.sources.shapes.span import SMALLEST_SPAN
from bridge.sources.spacivox.settings import SORTS, SpacivoxSettings, definition_of

_DAY_SECONDS = 86400.0
_KEPT_BYTES = HttpLimits().memory


class Spacivox:
    """Reads the records of the last `lookback`: the newest at each poll, older ones less and less often.

    A record's timestamp is assumed to be the time of its creation, so a cursor that only moves forward would miss every
    later state. Instead, the same window is read again, and the ledger compares by id.
    """

    def __init__(self, name: str, settings: SpacivoxSettings, clock: Clock) -> None:
        self.name = name
        self.settings = settings
        self.problems: list[str] = []
        self.behind = False
        self.retention = settings.catch_up + settings.lookback + _DAY_SECONDS
        self.backfill_step = settings.slice
        self._clock = clock
        self.client = ApiClient(definition_of(SORTS[0], settings), settings, clock, memory=_KEPT_BYTES)
        self.account = self.client.account
        """See `bridge.protocols.source.HasAccount`."""
        self.resource_types: list[ResourceType] = []
        self._windows = WindowSet(list(self._made()), clock)

    def _made(self) -> Iterator[TrailingWindow]:
        """Yield the windows of all configured sorts and teams."""
        settings = self.settings
        teams = settings.team if isinstance(settings.team, list) else [settings.team]
        for sort in dict.fromkeys(settings.records):
            definition = definition_of(sort, settings)
            assert definition.window is not None  # noqa: S101 - it ships so
            reader = ItemReader(definition, {}, settings.statuses, scopes=f"{sort}/")
            self.resource_types.append(reader.kind)
            for team in dict.fromkeys(teams or [None]):
                listing = sort if team is None else f"{sort}@{team}"
                only = {} if team is None else {"team": str(team)}
                items = ItemList(self.client, definition.listing, only)
                names = WindowNames(self.name, listing, listing, undated_is_old=False, only=only)
                yield TrailingWindow(definition.window, items, reader, self._clock, settings, names, remembers=True)

    def fingerprint(self) -> str:
        """Return where the API is: each customer has a host, whose tokens are all of one account."""
        return str(self.client.http.origin)

    async def recognizes(self, fingerprint: str, cursor: Mapping[str, str]) -> bool:
        """Return False: another host is another customer's."""
        del fingerprint, cursor
        return False

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Read every slice that is due, as a rule the oldest first; raises if none of them could be read."""
        del watched
        sweep = self._begin_sweep()
        async for page in self._windows.pages(cursor, sweep):
            yield page
        sweep.end()

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read all records of a past range once, the oldest first, and leave the cursor alone."""
        sweep = self._begin_sweep()
        async for page in self._windows.between(start, end, sweep):
            yield page
        sweep.end()

    def _begin_sweep(self) -> PollSweep:
        sweep = PollSweep()
        self.problems = sweep.problems
        return sweep

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        """Yield the paths of the sorts of records that are read; see `bridge.protocols.source.Reconcilable`."""
        del cursor, watched, everything
        for path in self._windows.groups():
            yield path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Say that the window must be read whole, because the provider counts nothing; costs no request."""
        del cursor, ask
        return self._windows.count(group)

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read all records of the last `lookback`; see `bridge.protocols.source.Reconcilable`."""
        del cursor
        async for page in self._windows.members(group):
            yield page

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations as they are: a record is complete as it is listed."""
        return observations

    def resource(self, text: str) -> str:
        """Raise `ValueError`: the source follows all records of the window by itself."""
        raise ValueError(
            f"{text}: nothing to name, a spacivox source follows every record for "
            f"{format_duration(self.settings.lookback)} by itself"
        )

    async def probe(self) -> Probe:
        """Ask for the last minute of each listing."""
        now = self._clock.now()
        count = 0
        for window in self._windows.windows:
            async with aclosing(window.items.pages(window.question(now - SMALLEST_SPAN, now))) as pages:
                async for page in pages:
                    count += len(page.items)
        names = ", ".join(window.names.listing for window in self._windows.windows)
        requests = self._windows.requests_per_day
        summary = (
            f"{self.client.http.origin.host} answers for {names} ({count} in the last minute); "
            f"following {format_duration(self.settings.lookback)} costs about {requests:.0f} requests a day"
        )
        return Probe(summary, requests)

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()
