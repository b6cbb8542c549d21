"""The GovDelivery source: discovers messages, looks at those that are due, and reads their recipients."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from yarl import URL

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import NotFound
from bridge.http.limiter import shared_limiter
from bridge.http.tls import Tls
from bridge.protocols.source import GroupCounts, Observation, Page, Probe, Statistics
from bridge.sources.govdelivery import reconciliation
from bridge.sources.govdelivery.account_token import AccountToken, knows_newest_messages
from bridge.sources.govdelivery.api import Api, ProviderHealth, channel_of, message_path
from bridge.sources.govdelivery.change_rate import ChangeRate, rate_key
from bridge.sources.govdelivery.details import Details
from bridge.sources.govdelivery.discovery import BackfillWalk, Discovery, MessageList, created_between
from bridge.sources.govdelivery.lifecycles import kinds
from bridge.sources.govdelivery.page_cache import PageCache
from bridge.sources.govdelivery.plan import PollPlan, due_messages, take_up
from bridge.sources.govdelivery.pushes import PushedMessages
from bridge.sources.govdelivery.scheduling import (
    ABANDON_AFTER_SECONDS,
    MAX_WAIT_RUNNING_SECONDS,
)
from bridge.sources.govdelivery.settings import GovDeliverySettings, resource
from bridge.sources.govdelivery.state import MessageState
from bridge.sources.govdelivery.sweep import MessageSweep
from bridge.sources.govdelivery.sweeps import ConcurrentSweeps

_DAY_SECONDS = 86400.0
_SLICE_SECONDS = 60.0
_RANKED_FOR_SECONDS = 30.0
_UNSEEN = 30 * _DAY_SECONDS
_RETENTION_BEYOND = ABANDON_AFTER_SECONDS + 7 * _DAY_SECONDS


class GovDelivery(PushedMessages):
    """Follows the messages of one account; see `bridge.source.Source`.

    A message costs one request a look; its recipients are read when its counts moved, and every so often. The cursor
    has an entry for each followed message. A poll that lasts longer than a minute (and than the interval) hands over to
    the next one, so that one huge message never keeps others from being found; the first poll of all does not.
    """

    retention: float
    problems: list[str]
    backfill_step = _DAY_SECONDS
    """Each step walks through the list of messages from its newest on."""

    def __init__(self, name: str, settings: GovDeliverySettings, clock: Clock) -> None:
        super().__init__(settings, self._client)
        self.name = name
        self.settings = settings
        self.retention = settings.follow_for + _RETENTION_BEYOND
        self.problems = []
        self.behind = False
        """Whether the last poll left something that is due to the next one."""
        self._first_poll = True
        self._clock = clock
        self._kinds = {channel: kinds(channel, settings.statuses) for channel in ("sms", "voice")}
        self.resource_types = [kind for of_channel in self._kinds.values() for kind in of_channel]
        self._account_token = AccountToken(settings)
        self._details = Details(clock)
        self._page_cache = PageCache()
        self._discovery = Discovery(settings, self._kinds)
        self._opened: HttpClient | None = None
        # From the start, so that no other source of the account goes faster until this one polls.
        self._limiter = shared_limiter(self.account, settings.rate, clock)

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncGenerator[Page, None]:
        """Poll once; see `bridge.source.Source.pages`.

        Raises `Unauthorized` or `Throttled` as soon as the provider says so, and `Transient` when it fails as a whole.
        """
        self.problems = []
        self.behind = False
        health = ProviderHealth()
        api = Api(self._client(), health)
        now = self._clock.epoch()
        named = frozenset(self._names(watched))
        followed = {path: MessageState.load(text) for path, text in cursor.items() if path.startswith("/")}
        forgotten = [path for path, entry in followed.items() if not self._keeps(path, entry, named, now)]
        for path in forgotten:
            del followed[path]
        first = not cursor
        take_up(followed, named, now, first=first)
        changes: dict[str, str | None] = dict.fromkeys(forgotten)
        if first and self.settings.first_sight == "baseline":
            # Should this poll end early, the next one has to know them from those that are named later.
            changes |= {path: entry.dump() for path, entry in followed.items()}
        if changes:
            yield Page((), by=self._clock.now(), cursor=changes)
        pushed, early = self._pushed.take()
        if self.settings.discover and not (early and followed.keys() >= pushed.keys()):
            walks = self._discovery.pages(api, cursor, followed, now, self.problems.append)
            async with aclosing(walks) as pages:
                async for page in pages:
                    yield page
        plan = replace(self._plan(now, named, self._change_rates(cursor, now), first=first), pushed=pushed)
        due, self.behind = due_messages(followed, plan, discover=self.settings.discover, retry_failed=self._first_poll)
        self._first_poll = False
        sweeps = self._sweeps(api, followed, plan)
        async with aclosing(sweeps.pages(due)) as swept:
            async for page in swept:
                yield page
        self.behind |= sweeps.behind
        self._pushed.left = [path for path in due if path in pushed and path not in sweeps.begun]
        learned = {
            rate_key(channel): change_rate.dump(now)
            for channel, change_rate in plan.change_rates.items()
            if change_rate.learned
        }
        if learned:
            yield Page((), by=self._clock.now(), cursor=learned)
        health.check()

    async def backfill(self, start: datetime, end: datetime) -> AsyncGenerator[Page, None]:
        """Read the messages created in a past range once, with their recipients, and leave the cursor alone.

        Raises as `pages` does.
        """
        self.problems = []
        health = ProviderHealth()
        api = Api(self._client(), health)
        now = self._clock.epoch()
        plan = replace(
            self._plan(now, frozenset(), self._change_rates({}, now), first=True), once=True, page_cache=PageCache()
        )
        walked = BackfillWalk(start.timestamp(), end.timestamp(), len(self.settings.channels))
        for channel in self.settings.channels:
            created = created_between(self._list(api, channel), start.timestamp(), end.timestamp())
            walked.begin_channel()
            async with aclosing(created) as lists:
                async for messages in lists:
                    walked.begin_page(messages)
                    named_states = {path: MessageState(due=now, discovered=now) for path in messages.paths}
                    sweeps = self._sweeps(api, named_states, plan)
                    async with aclosing(sweeps.pages(messages.paths)) as swept:
                        async for page in swept:
                            yield replace(page, cursor={}, progress=walked.progress(page))
                    self.behind |= sweeps.behind
        health.check()

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncGenerator[str, None]:
        """Yield the messages that are followed, or were given up as missing, and those listed that should be.

        A message that is followed no longer is among them with `everything` only: nobody looks at it any more.
        """
        followed = {path: MessageState.load(text) for path, text in cursor.items() if path.startswith("/")}
        kept = {path for path, entry in followed.items() if everything or entry.over is None or entry.missing}
        for path in sorted(kept.union(self._names(watched))):
            yield path
        if not self.settings.discover:
            return
        now = self._clock.epoch()
        api = Api(self._client(), ProviderHealth())
        for channel in self.settings.channels:
            created = created_between(self._list(api, channel), now - self.settings.follow_for, now)
            async with aclosing(created) as lists:
                async for messages in lists:
                    for path in messages.paths:
                        if path not in followed:
                            yield path

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        """Ask for a message's counts, or return those of its last complete reading; see `bridge.source.Countable`."""
        path = message_path(group)
        if path is None:
            raise Permanent(f"{group}: not a message of this source")
        of_channel = self._kinds[channel_of(path)]
        entry = MessageState.load(cursor[path]) if path in cursor else None
        if not ask and entry is not None and not entry.missing:
            return reconciliation.cached_counts(of_channel, path, entry)
        return await reconciliation.fetch_counts(
            Api(self._client(), ProviderHealth()), of_channel, path, self._clock.now()
        )

    async def statistics(self, cursor: Mapping[str, str]) -> Sequence[Statistics]:
        """Return what the account's statistics count, of SMS alone; see `bridge.source.Surveyable`.

        They are of whole hours, of messages that were created then [guess], and only of those within `follow_for`:
        older ones may be forgotten. Where messages are not discovered there is nothing to hold against them.
        """
        now = self._clock.now()
        end = now.replace(minute=0, second=0, microsecond=0)
        start = end - timedelta(hours=self.settings.follow_for // 3600 - 1)
        if not self.settings.discover or "sms" not in self.settings.channels or start >= end:
            return ()
        entries = [MessageState.load(text) for path, text in cursor.items() if path.startswith("/messages/sms/")]
        born = [entry for entry in entries if start.timestamp() <= (entry.created or -1.0) < end.timestamp()]
        statistics = await reconciliation.fetch_statistics(
            Api(self._client(), ProviderHealth()), self._kinds["sms"][1], (start, end), born
        )
        return () if statistics is None else (statistics,)

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        """Read all recipients of a message; see `bridge.source.Countable`."""
        del cursor
        _, recipient = self._kinds[channel_of(group)]
        async with aclosing(
            reconciliation.list_recipients(Api(self._client(), ProviderHealth()), recipient, group)
        ) as pages:
            async for page in pages:
                yield page

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Look up the details of calls; see `bridge.source.Source.complete`."""
        health = ProviderHealth()
        health.answered()  # what is news was answered just now
        return await self._details.complete(Api(self._client(), health), observations, self.problems.append)

    def resource(self, text: str) -> str:
        """Return the canonical path of what an operator named; see `resource`."""
        return resource(text, self.settings.channels)

    async def probe(self) -> Probe:
        """Ask for the account's channels, and where the root does not tell, for the newest message."""
        channels = self.settings.channels
        api = Api(self._client(), ProviderHealth())
        try:
            _, root = await api.object("/")
            offered = _offered(root.get("_links"))
        except NotFound:
            offered = set()
            await api.listing(f"/messages/{channels[0]}")
        host = URL(self.settings.url).host
        missing = [channel for channel in channels if offered and channel not in offered]
        hint = f"; it names no {' and no '.join(missing)}: take it out of channels" if missing else ""
        lists = 2 * len(channels) if self.settings.discover else 0
        per_day = (
            lists * _DAY_SECONDS / self.settings.interval
            + len(self.settings.messages) * _DAY_SECONDS / MAX_WAIT_RUNNING_SECONDS
        )
        return Probe(f"{host} takes the token; channels {', '.join(sorted(offered) or channels)}{hint}", per_day)

    async def close(self) -> None:
        """Give back connections."""
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    @property
    def account(self) -> str:
        """Return a name of the token at its origin; see `bridge.source.Accounted`."""
        return self._account_token.account()

    def fingerprint(self) -> str:
        """Return a name of the token at its origin; see `bridge.protocols.source.RecognizesAccount`."""
        return self._account_token.fingerprint()

    async def recognizes(self, fingerprint: str, cursor: Mapping[str, str]) -> bool:
        """Return whether the newest messages that the cursor knows are there: then only the token is another one.

        The provider names the account nowhere. An account that knows none of the messages is another one.
        """
        if fingerprint.partition(" ")[0] != self.fingerprint().partition(" ")[0]:
            return False
        return await knows_newest_messages(Api(self._client(), ProviderHealth()), cursor)

    def _client(self) -> HttpClient:
        if self._opened is None:
            settings = self.settings
            # Once more: where the token's file could not be read before, the account was not known.
            self._limiter = shared_limiter(self.account, settings.rate, self._clock)
            self._opened = HttpClient(
                settings.url,
                limiter=self._limiter,
                clock=self._clock,
                headers=self._account_token.headers,
                limits=HttpLimits(read=settings.timeout, total=4 * settings.timeout, connections=settings.concurrency),
                tls=Tls(
                    settings.ca_file,
                    settings.client_cert,
                    settings.client_key,
                    only_ca_file=True,
                    cert_setting="client_cert",
                ),
            )
        return self._opened

    def _names(self, watched: Sequence[str]) -> list[str]:
        names = []
        for text in (*self.settings.messages, *watched):
            try:
                path = message_path(self.resource(text))
            except ValueError as error:
                self.problems.append(f"a watched resource is passed over: {error}")
            else:
                names += [path] if path else []
        return names

    def _keeps(self, path: str, entry: MessageState, named: frozenset[str], now: float) -> bool:
        if path in named:
            return True
        if not self.settings.discover or message_path(path) != path or channel_of(path) not in self.settings.channels:
            return False
        return entry.over is None or now - entry.over < _UNSEEN

    def _change_rates(self, cursor: Mapping[str, str], now: float) -> dict[str, ChangeRate]:
        """Return what the cursor knows of how soon recipients change, by channel."""
        change_rates = {}
        for channel, (_, recipient) in self._kinds.items():
            lifecycle = recipient.lifecycle
            finals = frozenset(name for name, status in lifecycle.status_by_value.items() if status in lifecycle.finals)
            change_rates[channel] = ChangeRate.load(cursor.get(rate_key(channel)), now, finals)
        return change_rates

    def _plan(
        self, now: float, named: frozenset[str], change_rates: Mapping[str, ChangeRate], *, first: bool
    ) -> PollPlan:
        settings = self.settings
        ends = self._clock.monotonic() + max(_SLICE_SECONDS, settings.interval)
        return PollPlan(
            now=now,
            interval=settings.interval,
            follow_for=settings.follow_for,
            reread_every=settings.reread_every,
            named=named,
            out_of_time=lambda: not first and self._clock.monotonic() >= ends,
            budget=math.inf if first else settings.rate * max(_RANKED_FOR_SECONDS, settings.interval),
            report=self.problems.append,
            change_rates=change_rates,
            page_cache=self._page_cache,
        )

    def _list(self, api: Api, channel: str) -> MessageList:
        return MessageList(api, channel, self.settings.page_size, self.problems.append)

    def _sweeps(self, api: Api, followed: Mapping[str, MessageState], plan: PollPlan) -> ConcurrentSweeps:
        def start(path: str) -> MessageSweep:
            return MessageSweep(api, self._kinds, self._clock, plan, path, followed[path])

        return ConcurrentSweeps(start, plan, self.settings.concurrency)


def _offered(links: Any) -> set[str]:
    """Return the channels among the links of the root, which are an object or a list of objects with one link each."""
    objects = links if isinstance(links, list) else [links]
    targets = [target for item in objects for target in parsing.mapping(item).values() if isinstance(target, str)]
    return {target.rstrip("/").rpartition("/messages/")[2] for target in targets if "/messages/" in target}
