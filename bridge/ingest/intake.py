"""One poll of one source: read what the provider shows, decide, commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

import structlog
from pydantic_core import from_json

from bridge.domain.catalogue import (
    SourceData,
    SourceEvent,
    SourceRecovered,
    SourceStalled,
    internal_event,
)
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, Unavailable
from bridge.domain.event import WireEvent, type_of_topic
from bridge.domain.retry import Backoff
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.account import ENTRY as ACCOUNT
from bridge.ingest.account import check_account
from bridge.ingest.concurrent_writes import ConcurrentWrites
from bridge.ingest.decide import Decider, PendingEvent, RecordedTimes
from bridge.ingest.expectations import ACTIVITY, FinalStatuses, begin_expecting
from bridge.ingest.prefetch import prefetched
from bridge.protocols.hints import TakesPushes
from bridge.protocols.ledger import Commit, Key, Lease, Ledger
from bridge.protocols.request_context import current
from bridge.protocols.source import Observation, Page, Source

T = TypeVar("T")
log = structlog.get_logger()

INTERNAL_PREFIX = "~"
"""Cursor entries with this prefix belong to the intake; a source never sees them."""
_STARTED = f"{INTERNAL_PREFIX}started"
_STALLED = f"{INTERNAL_PREFIX}stalled"
_MAX_DEFERRED = 2000
"""Observations that wait for their details at most, before they are looked up."""
_MAX_COMMIT_ATTEMPTS = 5
_RETRY_SECONDS = 0.1
_MAX_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class PollResult:
    """What one poll came to."""

    observed: int = 0
    events: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    """How many of the events have which CloudEvents type."""
    problems: list[str] = field(default_factory=list)
    yielded: int = 0
    """How many steps back were not made, because a backfill, or the poller, may have the newer answer."""
    progress: float = 0.0
    """How much of a backfill's range is read, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One poll or backfill under way."""

    lease: Lease | None
    concurrent: ConcurrentWrites
    suppress_events: bool
    """Record statuses and publish nothing: the first poll of a source with a baseline."""
    account: dict[str, str | None]
    """The cursor's entry with the account, until it was written with the first commit."""
    result: PollResult = field(default_factory=PollResult)


class Intake:
    """Carries a source's observations into the ledger and the journal.

    Read, decide, write: the commit is the deduplication. An event exists once because its transition was committed
    once; a crash before the commit leaves nothing behind, a crash after it loses nothing. After each commit with events
    `committed` is called with the number of the last event and with the events. `lagged` is called with the seconds
    between the provider's own times and our observations, for those transitions for which the provider gave a time.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        source: Source,
        ledger: Ledger,
        clock: Clock,
        *,
        baseline: bool = False,
        finals: FinalStatuses | None = None,
        notes_activity: bool = False,
        account_label: str | None = None,
        committed: Callable[[int, Sequence[WireEvent]], None] = lambda _, __: None,
        lagged: Callable[[Sequence[float]], None] = lambda _: None,
        waits: Callable[[str | None], object] = lambda _: None,
    ) -> None:
        self.name = name
        self.uri = f"/{kind}/{name}"
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._baseline = baseline
        self._account_label = account_label
        self._committed = committed
        self._lagged = lagged
        self._waits = waits
        self.times = RecordedTimes(clock)
        self._finals = finals
        self._notes_activity = notes_activity
        self._decider = Decider(name, self.uri, self.times, baseline=baseline, finals=finals)
        self._written = 0
        """The number of the last event that is known to be before what we write next."""

    @property
    def behind(self) -> bool:
        """Whether the last poll left something for the next one, which should follow at once."""
        return self._source.behind

    def expect_news(self, things: Mapping[str, datetime], *, early: bool) -> None:
        """Have the next poll look at things that were pushed; see `bridge.protocols.hints.TakesPushes`."""
        if isinstance(self._source, TakesPushes):
            self._source.expect_news(things, early=early)

    @property
    def postponed(self) -> Collection[str]:
        """The things that were pushed, and that the last poll had no time for."""
        return self._source.postponed if isinstance(self._source, TakesPushes) else ()

    async def poll(self, lease: Lease) -> PollResult:
        """Ask the source once and commit what it shows.

        Raises what the source and the ledger raise, and `OtherAccount`; all pages committed before stay, and the next
        poll goes on where the cursor stands.
        """
        cursor, account = await self._verified_cursor()
        account |= await begin_expecting(
            self._finals, self._ledger, lease, self.name, self._clock, cursor, notes_activity=self._notes_activity
        )
        watched = await self._ledger.watched(self.name)
        suppress_events = self._baseline and _STARTED not in cursor
        deferred: list[tuple[Page, list[Observation]]] = []
        run = _Run(lease, await self._start_tracking(), suppress_events, account)
        own = {key: value for key, value in cursor.items() if not key.startswith(INTERNAL_PREFIX)}
        async with aclosing(prefetched(self._source.pages(own, watched))) as reading:
            async for read in reading:
                for pages in _commit_batches(read):
                    full = sum(len(late) for _, late in deferred) >= _MAX_DEFERRED
                    before = 0 if full else _leading_without_cursor(pages) if deferred else len(pages)
                    if before:
                        deferred += await self._commit(run, pages[:before])
                    if before < len(pages):
                        # A cursor may only move once everything before it is safe, also what still lacks its details.
                        await self._complete(run, deferred)
                        deferred = await self._commit(run, pages[before:])
        if deferred:
            await self._complete(run, deferred)
        if _STARTED not in cursor:
            run.account[_STARTED] = rfc3339(truncate_to_millis(self._clock.now()))
        if run.account:
            await self._ledger.commit(lease, Commit(self.name, cursor=run.account))
        run.result.problems = list(self._source.problems)
        return run.result

    async def backfill(
        self, start: datetime, end: datetime, on_result: Callable[[PollResult], Awaitable[None]] | None = None
    ) -> PollResult:
        """Commit what the source shows of a past range, while another process may poll it: without lease and cursor.

        A backfill is one more observer of the same resources: what the ledger knows already makes no event, also if a
        first start recorded it without publishing. If poll and backfill read one resource at about the same time,
        neither takes it a step back. `on_result` is called after each page with the result so far. Raises what the
        source and the ledger raise; all pages committed before stay.
        """
        _, account = await self._verified_cursor()
        run = _Run(None, await self._start_tracking(), suppress_events=False, account=account)
        async for page in self._source.backfill(start, end):
            bare = replace(page, cursor={})
            if late := await self._commit(run, [bare]):
                await self._complete(run, late)
            run.result.progress = max(run.result.progress, min(page.progress, 1.0))
            if on_result is not None:
                await on_result(run.result)
        run.result.problems = list(self._source.problems)
        return run.result

    async def _verified_cursor(self) -> tuple[dict[str, str], dict[str, str | None]]:
        """Return the cursor, if it is of the account that is asked, and the entry that has yet to say so."""
        cursor = await self._ledger.cursor(self.name)
        entry = await check_account(self.name, self._source, self._account_label, cursor)
        return cursor, {} if entry is None else {ACCOUNT: entry}

    async def stalled(self, lease: Lease, since: datetime, failures: int, reason: str) -> None:
        """Publish once that the source has been failing since `since`."""
        cursor = await self._ledger.cursor(self.name)
        if _STALLED not in cursor:
            await self._own_event(lease, SourceStalled, since, failures, reason, {_STALLED: rfc3339(since)})

    async def recovered(self, lease: Lease) -> bool:
        """Publish that the source is back, if it had been said to be stalled; say whether it was."""
        cursor = await self._ledger.cursor(self.name)
        if _STALLED not in cursor:
            return False
        since = datetime.fromisoformat(cursor[_STALLED])
        await self._own_event(lease, SourceRecovered, since, 0, None, {_STALLED: None})
        return True

    async def _own_event(
        self,
        lease: Lease,
        cls: type[SourceEvent],
        since: datetime,
        failures: int,
        reason: str | None,
        cursor: dict[str, str | None],
    ) -> None:
        now = self.times.next()
        event = internal_event(
            cls,
            SourceData,
            source=self.uri,
            subject=f"/sources/{self.name}",
            occurrence=rfc3339(since),
            now=now,
            after=since,
            previous="stalled" if cls is SourceRecovered else None,
            failures=failures,
            since=since,
            reason=reason,
        )
        wire = [event.to_wire()]
        last = await self._ledger.commit(lease, Commit(self.name, events=wire, cursor=cursor))
        self._note_own_write(1, last)
        self._committed(last, wire)

    def _note_own_write(self, count: int, last: int) -> None:
        if self._written == last - count:  # else the next poll looks at what somebody else wrote in between
            self._written = last

    async def _start_tracking(self) -> ConcurrentWrites:
        """Follow what others write from now on, and have our events recorded after what they wrote by now."""
        concurrent = await ConcurrentWrites.from_now(self._ledger, self.name)
        if concurrent.after != self._written:
            for entry in await self._ledger.read(self.name, concurrent.after - 1, 1):
                self.times.follow(datetime.fromisoformat(from_json(entry.event.body)["recordedtime"]))
            self._written = concurrent.after
        return concurrent

    async def _complete(self, run: _Run, deferred: Sequence[tuple[Page, list[Observation]]]) -> None:
        completed = iter(await self._source.complete([observation for _, late in deferred for observation in late]))
        for page, late in deferred:
            again = replace(page, observations=[next(completed) for _ in late], unchanged=0)
            await self._commit(run, [again], final=True)

    async def _commit(
        self, run: _Run, pages: Sequence[Page], *, final: bool = False
    ) -> list[tuple[Page, list[Observation]]]:
        """Commit pages as one; return the observations that are news and have to wait for their details."""
        keys = [Key(observation.scope, observation.key) for page in pages for observation in page.observations]
        cursor = {name: value for page in pages for name, value in page.cursor.items()}
        if not final:
            run.result.observed += len(keys) + sum(page.unchanged for page in pages)
        for attempt in range(1, _MAX_COMMIT_ATTEMPTS + 1):
            seen = await self._with_retry(partial(self._last_seen, keys))
            decision = self._decider.decide(pages, keys, seen, final=final)
            yielded = 0
            if decision.back:
                by = min(page.by for page in pages)
                newer = await run.concurrent.newer_than({event.subject for _, event in decision.back}, by)
                yielded = decision.withdraw({key for key, event in decision.back if event.subject in newer})
            if decision.deferred:
                cursor = {}  # it moves with what this page still lacks
            events = [] if run.suppress_events else decision.events
            if not (decision.statuses or cursor):
                run.result.yielded += yielded
                return decision.deferred
            wires = [event.wire for event in events]
            expected = decision.expectations(events)
            noted = {ACTIVITY: rfc3339(self.times.last)} if events and self._notes_activity and run.lease else {}
            commit = Commit(
                self.name,
                statuses=list(decision.statuses.values()),
                events=wires,
                cursor=run.account | cursor | noted,
                retention=self._source.retention,
                expected=expected,
                met=list(decision.met),
            )
            try:
                # The crash before this line costs nothing: the next poll sees the same. The crash after it costs
                # nothing either: statuses, events and cursor are there together.
                last = await self._with_retry(partial(self._ledger.commit, run.lease, commit))
            except Conflict:
                # Somebody else (a backfill) wrote the same resource in between: what was decision is out of date.
                if attempt == _MAX_COMMIT_ATTEMPTS:
                    raise
                continue
            run.account.clear()
            if self._finals is not None:
                self._finals.on_commit(expected, list(decision.earlier))
            self._count(run.result, events)
            run.result.yielded += yielded
            run.concurrent.record_own(len(wires), last)
            if events:
                self._note_own_write(len(wires), last)
                self._committed(last, wires)
            return decision.deferred
        raise AssertionError("unreachable")  # pragma: no cover - the last try returns or raises

    async def _last_seen(self, keys: Sequence[Key]) -> Sequence[str | None]:
        return await self._ledger.last_seen(self.name, keys, self._source.retention) if keys else ()

    async def _with_retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the ledger until it answers, while our lease may still hold: a status that was read may be gone soon.

        Raises `Unavailable` when that is over, and at once where there is no lease.
        """
        retry = Backoff(self._clock.random, base=_RETRY_SECONDS, cap=_MAX_RETRY_SECONDS)
        while True:
            try:
                result = await call()
            except Unavailable as error:
                wait = retry.on_failure()
                self._waits(str(error))
                lease = current().lease
                if lease is None or self._clock.monotonic() + wait >= lease.until:
                    raise
                log.warning(
                    "source.cannot_write_store", source=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="what was read is kept in memory until it can be written, or until the lease ends",
                )  # fmt: skip
                await self._clock.sleep(wait)
            else:
                if retry.failures:
                    self._waits(None)
                return result

    def _count(self, result: PollResult, events: Sequence[PendingEvent]) -> None:
        result.events += len(events)
        self._lagged([event.lag for event in events if event.lag is not None])
        topics = Counter(event.wire.topic for event in events)
        for topic, count in topics.items():
            kind = type_of_topic(topic)
            result.by_type[kind] = result.by_type.get(kind, 0) + count


def _leading_without_cursor(pages: Sequence[Page]) -> int:
    """Return how many pages stand before the first one that moves the cursor.

    However the pages were grouped when they were read, events are committed in the same order.
    """
    return next((index for index, page in enumerate(pages) if page.cursor), len(pages))


def _commit_batches(pages: Sequence[Page]) -> Iterator[list[Page]]:
    """Yield what goes into one commit each: a page that may have to wait for details goes alone."""
    batch: list[Page] = []
    for page in pages:
        if not any(observation.awaits_detail for observation in page.observations):
            batch.append(page)
            continue
        if batch:
            yield batch
        batch = []
        yield [page]
    if batch:
        yield batch
