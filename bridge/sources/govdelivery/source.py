"""The GovDelivery source: discovers messages, looks at those that are due, and reads their recipients."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from yarl import URL

from bridge.domain.clock import Clock
from bridge.domain.errors import BridgeError, NotReady, Permanent, Unauthorized
from bridge.domain.settings import Duration, Secret
from bridge.http import parsing
from bridge.http.client import HttpClient, HttpLimits, Origin
from bridge.http.errors import NotFound
from bridge.http.limiter import account_key, shared_limiter
from bridge.http.tls import Tls
from bridge.protocols.source import GroupCounts, Observation, Page, Probe, SourceSettings, Statistics
from bridge.sources.govdelivery import reconciliation
from bridge.sources.govdelivery.api import ENDS_SWEEP, Api, ProviderHealth, canonical, channel_of, message_path
from bridge.sources.govdelivery.change_rate import ChangeRate, rate_key
from bridge.sources.govdelivery.details import Details
from bridge.sources.govdelivery.discovery import ListWalk, MessageList, created_between, list_key
from bridge.sources.govdelivery.lifecycles import MESSAGE, RECIPIENT, kinds
from bridge.sources.govdelivery.page_cache import PageCache
from bridge.sources.govdelivery.scheduling import (
    ABANDON_AFTER_SECONDS,
    MAX_WAIT_COMPLETED_SECONDS,
    MAX_WAIT_RUNNING_SECONDS,
    choose,
)
from bridge.sources.govdelivery.state import ListState, MessageState, is_in_future, to_millis
from bridge.sources.govdelivery.sweep import MessageSweep, PollPlan

Channel = Literal["sms", "voice"]

_DAY_SECONDS = 86400.0
_SLICE_SECONDS = 60.0
_RANKED_FOR_SECONDS = 30.0
_EARLY_SECONDS = 0.25
_UNSEEN = 30 * _DAY_SECONDS
_RETENTION_BEYOND = ABANDON_AFTER_SECONDS + 7 * _DAY_SECONDS


def _nameable(text: str, info: ValidationInfo) -> str:
    if "channels" in info.data:  # else these are wrong themselves, and that is told
        resource(text, info.data["channels"])
    return text


class GovDeliverySettings(SourceSettings):
    """One GovDelivery TMS account."""

    url: Origin = "https://tms.govdelivery.com"
    """The root of the service; staging is https://stage-tms.govdelivery.com."""
    token: Secret
    """The account's authentication token, sent as X-AUTH-TOKEN."""
    channels: Annotated[list[Channel], AfterValidator(lambda match: list(dict.fromkeys(match)))] = Field(
        default=["sms", "voice"], min_length=1
    )
    """Which kinds of messages."""
    discover: bool = True
    """Whether new messages of the account are found and followed."""
    messages: list[Annotated[str, AfterValidator(_nameable)]] = Field(default_factory=list)
    """Messages to follow in any case, by path: /messages/voice/10507."""
    follow_for: Duration = Field(default=259200.0, ge=0)
    """For how long a message is looked at after its completion; older messages are not followed at a first start."""
    page_size: int = Field(default=100, ge=1, le=100)
    """Messages in a page of the list."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """How many messages are being read at once."""
    reread_every: Duration = Field(default=600.0, gt=0)
    """How often recipients are read though no count moved, since two opposite changes leave the counts alone."""
    timeout: Duration = Field(default=30.0, gt=0)
    """How long the provider may be silent before a request counts as failed."""
    ca_file: str | None = None
    """Certificates of the authorities to trust, PEM; by default those of the system."""
    client_cert: str | None = None
    """A certificate to show to the provider, PEM."""
    client_key: str | None = None
    """The key of `client_cert`, PEM, if it is not in the same file."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        known = {*MESSAGE.codes, *RECIPIENT.codes}
        for value, status in self.statuses.items():
            if status not in known:
                raise ValueError(f"statuses: {value!r}: {status!r} is not one of {', '.join(sorted(known))}")
        return self


def resource(text: str, channels: Sequence[str]) -> str:
    """Return the canonical path of a message or recipient; an id alone will do where there is one channel only."""
    text = text.strip()
    if text.isalnum():
        if len(channels) == 1:
            return f"/messages/{channels[0]}/{text}"
        raise ValueError(
            f"{text!r} may be a message of several channels; give its path, such as /messages/voice/{text}"
        )
    path = canonical(text)
    if path is None:
        raise ValueError("not the path of a message; give one such as /messages/voice/10507")
    if channel_of(path) not in channels:
        raise ValueError(f"{path} is not of the channels {', '.join(channels)}")
    return path


class GovDelivery:
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
        self.name = name
        self.settings = settings
        self.retention = settings.follow_for + _RETENTION_BEYOND
        self.problems = []
        self.behind = False
        """Whether the last poll left something that is due to the next one."""
        self._first_poll = True
        self._clock = clock
        self._kinds = {channel: kinds(channel, settings.statuses) for channel in ("sms", "voice")}
        self._details = Details(clock)
        self._page_cache = PageCache()
        self._not_ready: dict[str, float] = {}
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
        _take_up(followed, named, now, first=first)
        changes: dict[str, str | None] = dict.fromkeys(forgotten)
        if first and self.settings.first_sight == "baseline":
            # Should this poll end early, the next one has to know them from those that are named later.
            changes |= {path: entry.dump() for path, entry in followed.items()}
        if changes:
            yield Page((), by=self._clock.now(), cursor=changes)
        if self.settings.discover:
            async with aclosing(self._discover(api, cursor, followed, now)) as pages:
                async for page in pages:
                    yield page
        plan = self._plan(now, named, self._change_rates(cursor, now), first=first)
        due = self._due(followed, plan)
        async with aclosing(self._sweep(api, followed, due, plan)) as swept:
            async for page in swept:
                yield page
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
        for channel in self.settings.channels:
            created = created_between(self._list(api, channel), start.timestamp(), end.timestamp())
            async with aclosing(created) as lists:
                async for paths in lists:
                    named_states = {path: MessageState(due=now, found=now) for path in paths}
                    async with aclosing(self._sweep(api, named_states, paths, plan)) as swept:
                        async for page in swept:
                            yield replace(page, cursor={})
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
                async for paths in lists:
                    for path in paths:
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
        try:
            return account_key(self.settings.url, self._token())
        except Unauthorized:
            return account_key(self.settings.url, f"file {self.settings.token.path}")

    def _client(self) -> HttpClient:
        if self._opened is None:
            settings = self.settings
            # Once more: where the token's file could not be read before, the account was not known.
            self._limiter = shared_limiter(self.account, settings.rate, self._clock)
            self._opened = HttpClient(
                settings.url,
                limiter=self._limiter,
                clock=self._clock,
                headers=self._headers,
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

    async def _headers(self) -> Mapping[str, str]:
        return {"X-AUTH-TOKEN": self._token()}

    def _token(self) -> str:
        try:
            return self.settings.token.reveal()
        except OSError as error:
            reason = error.strerror
        raise Unauthorized(f"the token's file cannot be read ({reason}): nothing is asked without it")

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

    async def _discover(
        self, api: Api, cursor: Mapping[str, str], followed: dict[str, MessageState], now: float
    ) -> AsyncGenerator[Page, None]:
        for channel in self.settings.channels:
            key = list_key(channel)
            listed = ListState.load(cursor.get(key))
            lifecycle, follow_for = self._kinds[channel][0].lifecycle, self.settings.follow_for
            walk = ListWalk(self._list(api, channel), key, listed, followed, lifecycle, now=now, follow_for=follow_for)
            try:
                async with aclosing(walk.pages()) as pages:
                    async for page in pages:
                        yield page
            except ENDS_SWEEP:
                raise
            except NotReady as error:
                if now - self._not_ready.setdefault(channel, now) >= self.settings.stall_after:
                    self._unlisted(api, channel, error)
            except BridgeError as error:
                self._unlisted(api, channel, error)
            else:
                self._not_ready.pop(channel, None)

    def _unlisted(self, api: Api, channel: str, error: BridgeError) -> None:
        api.health.refused(error)
        what = str(error) if f"/messages/{channel}" in str(error) else f"/messages/{channel}: {error}"
        self.problems.append(f"{what}; new messages of this channel wait for the next poll")

    def _list(self, api: Api, channel: str) -> MessageList:
        return MessageList(api, channel, self.settings.page_size, self.problems.append)

    def _due(self, followed: Mapping[str, MessageState], plan: PollPlan) -> list[str]:
        """Return the messages to look at in this poll, the most worthwhile first."""
        soon = plan.now + _EARLY_SECONDS * plan.interval
        # Nothing is ever put off by so much: the clock was set back.
        never = plan.now + 2 * max(MAX_WAIT_COMPLETED_SECONDS, plan.interval)
        present = {path: entry for path, entry in followed.items() if entry.over is None}
        paths = [
            path
            for path, entry in present.items()
            if not soon < entry.due < never or is_in_future(entry.begun, plan.now)
        ]
        if self._first_poll:
            # The credentials may be new, or the provider works again: a new process waits for no failure of the last one.
            paths = list(dict.fromkeys([*paths, *(path for path, entry in present.items() if entry.failures)]))
            self._first_poll = False
        healthy = [path for path, entry in present.items() if not entry.failures]
        if healthy and not self.settings.discover and all(present[path].failures for path in paths):
            # Without an answer from anywhere, a bad resource could not be told from a provider that is down.
            paths += [min(healthy, key=lambda path: (present[path].due, path))] if paths else []
        due = [present[path].candidate(path, plan.now, plan.change_rates[channel_of(path)]) for path in paths]
        chosen = choose(due, plan.now, plan.interval, plan.budget)
        self.behind = len(chosen) < len(due)
        return chosen

    async def _sweep(
        self, api: Api, followed: Mapping[str, MessageState], due: Sequence[str], plan: PollPlan
    ) -> AsyncGenerator[Page, None]:
        """Sweep several messages at once; the pages of one come in order, and few wait to be read."""
        todo = deque(due)
        workers = min(self.settings.concurrency, len(todo))
        ready: asyncio.Queue[Page | BaseException | None] = asyncio.Queue(maxsize=2 * max(1, workers))

        async def work() -> None:
            try:
                while todo and not plan.out_of_time():
                    path = todo.popleft()
                    sweep_ = MessageSweep(api, self._kinds, self._clock, plan, path, followed[path])
                    async with aclosing(sweep_.pages()) as pages:
                        async for page in pages:
                            await ready.put(page)
                    self.behind |= sweep_.handed_over
                await ready.put(None)
            except Exception as error:  # noqa: BLE001 - handed to the reader, which raises it
                await ready.put(error)

        tasks = [asyncio.create_task(work()) for _ in range(workers)]
        try:
            while workers:
                match await ready.get():
                    case Page() as page:
                        yield page
                    case None:
                        workers -= 1
                    case error:
                        raise error
            self.behind |= bool(todo)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _take_up(followed: dict[str, MessageState], named: Iterable[str], now: float, *, first: bool) -> None:
    """Begin to follow what an operator named, and go on with what was over by a clock that was ahead."""
    for path in named:
        known = followed.get(path)
        if known is None or known.over is not None:
            followed[path] = MessageState(due=to_millis(now), found=to_millis(now), backlog=first)
    for path, entry in followed.items():
        if is_in_future(entry.over, now):
            followed[path] = replace(entry, over=None, due=to_millis(now))


def _offered(links: Any) -> set[str]:
    """Return the channels among the links of the root, which are an object or a list of objects with one link each."""
    objects = links if isinstance(links, list) else [links]
    targets = [target for item in objects for target in parsing.mapping(item).values() if isinstance(target, str)]
    return {target.rstrip("/").rpartition("/messages/")[2] for target in targets if "/messages/" in target}
