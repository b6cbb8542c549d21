"""The Marketing Cloud source: walks each feed from its watermark to the feed's end."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost
from bridge.domain.times import YEAR_DAYS, rfc3339
from bridge.http import parsing
from bridge.http.errors import ProviderError, Throttled
from bridge.protocols.source import GroupCounts, Observation, Page, Probe
from bridge.sources.marketingcloud.client import RestClient
from bridge.sources.marketingcloud.events import FEEDS, Feed
from bridge.sources.marketingcloud.feed import FeedListing, FeedPage, FeedProgress, InitialSkip
from bridge.sources.marketingcloud.settings import MarketingCloudSettings
from bridge.sources.shapes.feed_cursor import FeedCursor

_DAY_SECONDS = 86400.0
_RETENTION_SECONDS = 45 * _DAY_SECONDS
_MAX_PAGES = 10_000


class MarketingCloud:
    """Follows the feed of messages that were not sent, from a watermark that only moves forward.

    Each page is committed together with the watermark after it. Events that come again are recognised by their
    `eventID`, so the feed's start may be inclusive or not. If a message's events lie in two blocks of a million ids,
    the ledger counts them as two resources: the later one then says `first`.
    """

    retention = _RETENTION_SECONDS

    def __init__(self, name: str, settings: MarketingCloudSettings, clock: Clock) -> None:
        self.name = name
        self.problems: list[str] = []
        self.behind = False
        self._settings = settings
        self._listings = [
            FeedListing(kind, FEEDS[kind], FEEDS[kind].kind(settings.statuses))
            for kind in dict.fromkeys(settings.kinds)
        ]
        self.resource_types = [listing.kind for listing in self._listings]
        self._rest = RestClient(settings, clock)
        self.account = self._rest.account

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Read each feed to its end; raises if none could be read."""
        del watched
        self.problems = []
        self.behind = False
        await self._rest.token()
        ended = False
        failure: BridgeError | None = None
        for listing in self._listings:
            try:
                async for page in self._walk(listing, cursor):
                    yield page
                ended = True
            except (LeaseLost, Throttled):
                raise
            except BridgeError as error:
                failure = error
                self.problems.append(f"{listing.name}: {error}; read on at the next poll")
        if failure is not None and not ended:
            raise failure

    async def _walk(self, listing: FeedListing, cursor: Mapping[str, str]) -> AsyncIterator[Page]:
        last = listing.watermark(cursor)
        position = FeedCursor.at(last)
        skip = InitialSkip.load(listing, cursor, self._settings.start)
        after = parsing.time(cursor.get(listing.key("polled")))
        unreadable = 0
        async for page in self._feed_pages(listing, position):
            changes = skip.advance(listing, page, has_more=position.has_more)
            if position.watermark is not None:
                changes[listing.key("last")] = str(position.watermark)
            if not position.has_more:
                changes[listing.key("polled")] = rfc3339(page.asked)
            shown = listing.observe(page)
            unreadable += shown.count(None)
            # Until a feed was walked to its end once, it shows what happened before the first start.
            yield Page(skip.filter(shown), page.at, after, changes, backlog=after is None)
        # If the watermark stands still, the next poll would read the same pages, so it need not follow at once.
        self.behind |= position.has_more and position.watermark != last
        if unreadable:
            self.problems.append(f"{listing.name}: {unreadable} events that say nothing: passed over")

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read what the provider still has of the time from `start` to `end`, and leave the cursor alone."""
        self.problems = []
        for number, listing in enumerate(self._listings):
            position, walk = FeedCursor(), FeedProgress(end)
            async for page in self._feed_pages(listing, position):
                progress = (number + walk.progress(page)) / len(self._listings)
                yield Page(listing.observe_between(page, start, end), page.at, progress=progress)
            if position.has_more:
                self.problems.append(f"{listing.name}: {self._cut_short()}")

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        """Yield the paths of the feeds; see `bridge.protocols.source.Reconcilable`."""
        del cursor, watched, everything
        for listing in self._listings:
            yield listing.path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Ask for the page after the watermark. The feed itself counts nothing."""
        listing = self._named(group)
        if listing is None or not ask:
            return None
        last = listing.watermark(cursor)
        page = await self._ask(listing.feed, last, self._settings.page_size)
        start = "no watermark yet" if last is None else f"the watermark {last}"
        return GroupCounts(
            group,
            page.at,
            listing.kind,
            lambda name: f"{group}/{quote(name, safe='')}",
            shown=self._after_skip(listing, page, cursor),
            remarks=(
                f"the provider keeps no counts; compared is one page beyond {start}; --deep reads the whole feed",
            ),
        )

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read a feed from the oldest event that the provider still has; see `bridge.protocols.source.Reconcilable`."""
        listing = self._named(group)
        if listing is not None:
            position = FeedCursor()
            async for page in self._feed_pages(listing, position):
                yield Page(self._after_skip(listing, page, cursor), page.at)
            if position.has_more:
                raise ProviderError(f"{listing.name}: {self._cut_short()}")

    def _cut_short(self) -> str:
        return (
            f"the feed goes on after {_MAX_PAGES} pages of {self._settings.page_size}, which were read: "
            "a larger page_size reads more of it"
        )

    def _named(self, group: str) -> FeedListing | None:
        return next((listing for listing in self._listings if listing.path == group), None)

    def _after_skip(self, listing: FeedListing, page: FeedPage, cursor: Mapping[str, str]) -> list[Observation]:
        return InitialSkip.load(listing, cursor, self._settings.start).filter(listing.observe(page))

    async def _feed_pages(self, listing: FeedListing, position: FeedCursor) -> AsyncIterator[FeedPage]:
        """Walk on from `position`, moving it; a walk of very many pages stops while `has_more` is still true."""
        size = self._settings.page_size
        for _ in range(_MAX_PAGES):
            page = await self._ask(listing.feed, position.position, size)
            if page.stated is not None and page.stated < (position.watermark or page.stated):
                self.problems.append(
                    f"{listing.name}: the provider's watermark went back to {page.stated}: {position.watermark} is kept"
                )
            count = len(page.events)
            position.advance(page.stated, page.highest, empty=not count, full=count >= size)
            yield page
            if not position.has_more:
                return

    async def _ask(self, feed: Feed, position: int | None, size: int) -> FeedPage:
        params: dict[str, str | int] = {"type": "notSent", "$pageSize": size}
        if position is not None:
            params["lastEventId"] = position
        return FeedPage.read(await self._rest.get(feed.path, params))

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations as they are: an event is complete as it is listed."""
        return observations

    def resource(self, text: str) -> str:
        """Raise `ValueError`: the feed brings every message by itself."""
        raise ValueError(
            f"{text}: nothing to name, a marketingcloud source follows every message of its feeds by itself"
        )

    async def probe(self) -> Probe:
        """Fetch a token and the oldest event of each feed."""
        token = await self._rest.token()
        for listing in self._listings:
            await self._ask(listing.feed, None, 1)
        interval = self._settings.interval * self._settings.idle_slowdown
        renewals = _DAY_SECONDS / (max(1, math.ceil(token.lifetime / interval)) * interval)
        requests = len(self._listings) * _DAY_SECONDS / interval + renewals
        year = requests * YEAR_DAYS
        names = ", ".join(listing.name for listing in self._listings)
        summary = (
            f"{self._rest.host} answers for {names}; an idle year costs about {year:,.0f} calls, "
            f"{year / self._settings.yearly_calls:.0%} of the yearly allowance of {self._settings.yearly_calls:,}"
        )
        return Probe(summary, requests, self._over_allowance(year), self._settings.yearly_calls)

    def _over_allowance(self, year: float) -> str | None:
        share = year / self._settings.yearly_calls
        if share <= 1:
            return None
        return (
            f"an idle year costs about {year:,.0f} calls, {share:.0%} of the allowance (yearly_calls: "
            f"{self._settings.yearly_calls:,}): make interval or idle_slowdown longer, or give the edition's allowance"
        )

    def fingerprint(self) -> str:
        """Return a name of the business unit; without `account_id`, of the client that belongs to one."""
        return self._rest.fingerprint

    async def recognizes(self, fingerprint: str, cursor: Mapping[str, str]) -> bool:
        """Return False: the fingerprint holds no secret, so another one is another business unit or client."""
        del fingerprint, cursor
        return False

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()
