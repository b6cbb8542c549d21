"""The Marketing Cloud source: walks each feed from its watermark on until it has no more to tell."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, LeaseLost, Unauthorized
from bridge.domain.settings import Duration, Secret
from bridge.domain.times import rfc3339
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits, Origin
from bridge.http.errors import ProviderError, Throttled
from bridge.http.limiter import Limiter, account_key, shared_limiter
from bridge.http.response import Response
from bridge.protocols.source import GroupCounts, Observation, Page, Probe, ResourceType, SourceSettings
from bridge.sources.marketingcloud.events import FEEDS, Feed, event_id, happened, observe, watermark
from bridge.sources.marketingcloud.feed_cursor import FeedCursor
from bridge.sources.marketingcloud.tokens import Credentials, Token, TokenProvider

_DAY = 86400.0
_YEAR = 365
_ALLOWANCE = 2_000_000
_RETENTION = 45 * _DAY
_PAGES_AT_MOST = 10_000
_NEIGHBOURS = 10**15
"""An id that is further beyond most others of its page is no id: it is told, and moves no place in the feed."""
_NO_CONTENT = 204
_KNOWN = frozenset({"messages", "count", "lastEventID", "lastEventId"})
"""A page has some of these, or nothing at all; an error told with a 200 has none."""
_BLOCKED = "50200"
_BLOCKED_FOR = 300.0
# The vendor closes connections that were idle for 5 s; ours are closed first, or the next poll finds them dead.
_LIMITS = HttpLimits(keepalive=4.0, memory=0)


class MarketingCloudSettings(SourceSettings):
    """A source of Salesforce Marketing Cloud's messages that were not sent."""

    auth_url: Origin
    """Where tokens are given out: https://SUBDOMAIN.auth.marketingcloudapis.com."""
    client_id: str = Field(min_length=1)
    """The installed package's client id."""
    client_secret: Secret
    """The installed package's client secret."""
    account_id: str | int | None = None
    """The business unit (MID); the package's own where it is left out."""
    rest_url: Origin | None = None
    """Where the REST API is; the token's answer says so where it is left out."""
    kinds: list[Literal["sms", "email"]] = Field(default=["sms"], min_length=1)
    """Which feeds are read."""
    page_size: int = Field(default=50, ge=1, le=10_000)
    """How many events are asked for at once."""
    start: Literal["earliest", "latest"] = "earliest"
    """At a first start: from the oldest event that the provider still has, or only what comes from now on."""
    interval: Duration = Field(default=60.0, gt=0)
    """How often the feeds are read; each time costs a call of the account's yearly allowance."""
    idle_slowdown: float = Field(default=5.0, ge=1, le=1000)
    """How many times longer the interval becomes, step by step, while nothing happens; 1 is never."""

    @field_validator("statuses")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for feed in FEEDS.values():
            feed.kind(value)
        return value


@dataclass(frozen=True, slots=True)
class _Listing:
    """One feed as it is read for one source."""

    name: str
    feed: Feed
    kind: ResourceType

    @property
    def path(self) -> str:
        """Return the path below which its messages lie."""
        return self.feed.path.rstrip("/")

    def entry(self, name: str) -> str:
        """Return the name of one of the feed's entries in the cursor."""
        return f"{self.name}.{name}"


@dataclass(frozen=True, slots=True)
class _Batch:
    """One answer of a feed."""

    events: Sequence[Any]
    stated: int | None
    """The watermark, where a usable one is stated."""
    asked: datetime
    at: datetime

    @property
    def highest(self) -> int:
        """Return the highest event's id among its neighbours; 0 where no event has a number."""
        ids = (event_id(parsing.mapping(event)) for event in self.events)
        numbers = sorted(number for number in ids if isinstance(number, int))
        middle = numbers[(len(numbers) - 1) // 2] if numbers else 0
        return max((number for number in numbers if number - middle <= _NEIGHBOURS), default=0)


@dataclass(slots=True)
class _InitialSkip:
    """What `start: latest` still has to pass over: everything, until the end of the feed was reached once.

    `upto` is the highest event that was passed over: should the feed's start be inclusive, it comes once more.
    """

    active: bool
    upto: int

    @classmethod
    def load(cls, listing: _Listing, cursor: Mapping[str, str], start: str) -> _InitialSkip:
        state = cursor.get(listing.entry("start"))
        first = state is None and listing.entry("last") not in cursor
        upto = parsing.integer(cursor.get(listing.entry("passed"))) or 0
        return cls(start == "latest" and (first or state == "draining"), upto)

    def page(self, listing: _Listing, batch: _Batch, *, onward: bool) -> dict[str, str | None]:
        """Return the cursor's changes by which a crash in the middle finds its way back."""
        if not self.active:
            return {}
        self.upto = max(self.upto, batch.highest)
        return {listing.entry("start"): "draining" if onward else "live", listing.entry("passed"): str(self.upto)}

    def swallows(self, number: int | str | None) -> bool:
        """Say whether an event was there before the bridge was."""
        return self.active or (isinstance(number, int) and number <= self.upto)


class _Rest:
    """The client of one REST host, which sends only tokens that were given out for this very host."""

    def __init__(self, token: Token, limiter: Limiter, clock: Clock) -> None:
        self.token = token
        self.client = HttpClient(token.rest, limiter=limiter, clock=clock, headers=self._headers, limits=_LIMITS)

    async def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token.text}"}


class MarketingCloud:
    """Follows the feed of what was not sent from a watermark that only moves forward.

    Each page is committed with the watermark behind it; events that come once more are told by their `eventID`, so the
    feed's start may be inclusive or not. A message's events in two blocks of a million ids are two resources to the
    ledger: the later one then says `first`.
    """

    retention = _RETENTION

    def __init__(self, name: str, settings: MarketingCloudSettings, clock: Clock) -> None:
        self.name = name
        self.problems: list[str] = []
        self.behind = False
        self._settings = settings
        self._clock = clock
        self._listings = [
            _Listing(kind, FEEDS[kind], FEEDS[kind].kind(settings.statuses)) for kind in dict.fromkeys(settings.kinds)
        ]
        account = None if settings.account_id is None else str(settings.account_id)
        self.account = account_key(settings.auth_url, f"{settings.client_id} {account}")
        """See `bridge.source.Accounted`."""
        self._limiter = shared_limiter(self.account, settings.rate, clock)
        self._auth = HttpClient(settings.auth_url, limiter=self._limiter, clock=clock, limits=_LIMITS)
        credentials = Credentials(settings.client_id, settings.client_secret, account)
        self._tokens = TokenProvider(self._auth, credentials, clock, settings.rest_url)
        self._rest: _Rest | None = None

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Read each feed to its end; raises when none could be read."""
        del watched
        self.problems = []
        self.behind = False
        await self._token()
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

    async def _walk(self, listing: _Listing, cursor: Mapping[str, str]) -> AsyncIterator[Page]:
        last = parsing.integer(cursor.get(listing.entry("last")))
        place = FeedCursor.at(last)
        drain = _InitialSkip.load(listing, cursor, self._settings.start)
        after = parsing.time(cursor.get(listing.entry("polled")))
        unreadable = 0
        async for batch in self._batches(listing, place):
            changes = drain.page(listing, batch, onward=place.onward)
            if place.watermark is not None:
                changes[listing.entry("last")] = str(place.watermark)
            if not place.onward:
                changes[listing.entry("polled")] = rfc3339(batch.asked)
            shown = [observe(listing.name, listing.kind, event) for event in batch.events]
            unreadable += shown.count(None)
            news = [one for one in shown if one is not None and not drain.swallows(event_id(one.item))]
            # Until a feed was walked whole once, what it shows is what there was before us.
            yield Page(news, batch.at, after, changes, backlog=after is None)
        # Where the watermark stands still, the next poll would read the same pages: it has time.
        self.behind |= place.onward and place.watermark != last
        if unreadable:
            self.problems.append(f"{listing.name}: {unreadable} events that say nothing: passed over")

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        """Read what the provider still has of the time from `start` to `end`, and leave the cursor alone."""
        self.problems = []
        for listing in self._listings:
            place = FeedCursor()
            async for batch in self._batches(listing, place):
                shown = (observe(listing.name, listing.kind, event) for event in batch.events)
                yield Page([one for one in shown if one is not None and _within(one, start, end)], batch.at)
            if place.onward:
                self.problems.append(f"{listing.name}: {self._cut_short()}")

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        """Yield the paths of the feeds; see `bridge.source.Countable`."""
        del cursor, watched, everything
        for listing in self._listings:
            yield listing.path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Ask for what lies beyond the watermark: one page. The feed itself counts nothing."""
        listing = self._named(group)
        if listing is None or not ask:
            return None
        last = parsing.integer(cursor.get(listing.entry("last")))
        batch = _read(await self._ask(listing.feed, last, self._settings.page_size))
        mark = "no watermark yet" if last is None else f"the watermark {last}"
        return GroupCounts(
            group,
            batch.at,
            listing.kind,
            lambda name: f"{group}/{quote(name, safe='')}",
            shown=self._unswallowed(listing, batch, cursor),
            remarks=(f"the provider keeps no counts; compared is one page beyond {mark}; --deep reads the whole feed",),
        )

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read a feed from the oldest event that the provider still has; see `bridge.source.Countable`."""
        listing = self._named(group)
        if listing is not None:
            place = FeedCursor()
            async for batch in self._batches(listing, place):
                yield Page(self._unswallowed(listing, batch, cursor), batch.at)
            if place.onward:
                raise ProviderError(f"{listing.name}: {self._cut_short()}")

    def _cut_short(self) -> str:
        return (
            f"the feed goes on after {_PAGES_AT_MOST} pages of {self._settings.page_size}, which were read: "
            "a larger page_size reads more of it"
        )

    def _named(self, group: str) -> _Listing | None:
        return next((each for each in self._listings if each.path == group), None)

    def _unswallowed(self, listing: _Listing, batch: _Batch, cursor: Mapping[str, str]) -> list[Observation]:
        drain = _InitialSkip.load(listing, cursor, self._settings.start)
        shown = (observe(listing.name, listing.kind, event) for event in batch.events)
        return [one for one in shown if one is not None and not drain.swallows(event_id(one.item))]

    async def _batches(self, listing: _Listing, place: FeedCursor) -> AsyncIterator[_Batch]:
        """Walk from `place` on, moving it; a walk of very many pages ends while it still says `onward`."""
        size = self._settings.page_size
        for _ in range(_PAGES_AT_MOST):
            batch = _read(await self._ask(listing.feed, place.position, size))
            if batch.stated is not None and batch.stated < (place.watermark or 0):
                self.problems.append(
                    f"{listing.name}: the provider's watermark went back to {batch.stated}: {place.watermark} is kept"
                )
            count = len(batch.events)
            place.move(batch.stated, batch.highest, empty=not count, full=count >= size)
            yield batch
            if not place.onward:
                return

    async def _ask(self, feed: Feed, position: int | None, size: int) -> Response:
        params: dict[str, str | int] = {"type": "notSent", "$pageSize": size}
        if position is not None:
            params["lastEventId"] = position
        with self._blocked_for_a_while():
            return await self._ask_with_token(feed.path, params)

    async def _token(self) -> Token:
        with self._blocked_for_a_while():
            return await self._tokens.get()

    @contextmanager
    def _blocked_for_a_while(self) -> Iterator[None]:
        """Have the account rest for minutes where the vendor blocks it and does not say for how long."""
        try:
            yield
        except Throttled as error:
            if error.code != _BLOCKED or error.retry_after is not None:
                raise
            self._limiter.pause(_BLOCKED_FOR)
            raise Throttled(
                f"{error}: blocked for a while, nothing is asked for {_BLOCKED_FOR:.0f} s",
                retry_after=_BLOCKED_FOR,
                status=error.status,
                code=error.code,
            ) from None

    async def _ask_with_token(self, path: str, params: Mapping[str, str | int]) -> Response:
        token = await self._tokens.get()
        try:
            return await (await self._client(token)).get(path, params)
        except Unauthorized:
            # A token can end before its time; a fresh one tells that apart from rights that are missing.
            self._tokens.drop(token)
        token = await self._tokens.get()
        return await (await self._client(token)).get(path, params)

    async def _client(self, token: Token) -> HttpClient:
        if self._rest is not None and self._rest.token.rest != token.rest:
            await self._rest.client.close()
            self._rest = None
        if self._rest is None:
            self._rest = _Rest(token, self._limiter, self._clock)
        self._rest.token = token
        return self._rest.client

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return the observations: an event is complete as it is listed."""
        return observations

    def resource(self, text: str) -> str:
        """Raise `ValueError`: the feed brings every message by itself."""
        raise ValueError(
            f"{text}: nothing to name, a marketingcloud source follows every message of its feeds by itself"
        )

    async def probe(self) -> Probe:
        """Fetch a token and the oldest event of each feed."""
        token = await self._token()
        for listing in self._listings:
            _read(await self._ask(listing.feed, None, 1))
        interval = self._settings.interval * self._settings.idle_slowdown
        renewals = _DAY / (max(1, math.ceil(token.lifetime / interval)) * interval)
        requests = len(self._listings) * _DAY / interval + renewals
        year = requests * _YEAR
        names = ", ".join(listing.name for listing in self._listings)
        host = self._rest.client.origin.host if self._rest is not None else None
        summary = (
            f"{host} answers for {names}; an idle year costs about {year:,.0f} calls, {year / _ALLOWANCE:.0%} of the "
            "smallest yearly allowance (2 M; 6 M or 200 M by edition)"
        )
        return Probe(summary, requests)

    async def close(self) -> None:
        """Give back connections."""
        await self._auth.close()
        if self._rest is not None:
            await self._rest.client.close()


def _within(one: Observation, start: datetime, end: datetime) -> bool:
    when = happened(one.item)
    return when is not None and start <= when < end


def _read(answer: Response) -> _Batch:
    """Return what an answer brings; raises `ProviderError` for what is no such answer, which is not taken for empty."""
    value: Any = {} if answer.status == _NO_CONTENT else answer.json()
    if not isinstance(value, dict) or (value and _KNOWN.isdisjoint(value)):
        raise answer.refused("the provider answered something else than a page of events")
    messages = value.get("messages")
    if messages is not None and not isinstance(messages, list):
        raise answer.refused("the answer's messages are no list")
    return _Batch(messages or [], watermark(value), answer.asked, answer.at)
