"""One poll of one source: read what was seen, decide, commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar

import structlog
from pydantic_core import from_json

from bridge.domain.catalogue import (
    SourceData,
    SourceEvent,
    SourceRecovered,
    SourceStalled,
    UnknownData,
    internal_event,
    unknown_status,
)
from bridge.domain.clock import Clock
from bridge.domain.encoding import EventEncoder, ObservationTimes
from bridge.domain.errors import Conflict, Unavailable
from bridge.domain.event import Data, Transition, WireEvent, event_id, type_of_topic
from bridge.domain.lifecycle import UNKNOWN, Change, classify
from bridge.domain.retry import backoff
from bridge.domain.times import rfc3339, truncate_to_millis
from bridge.ingest.concurrent_writes import ConcurrentWrites
from bridge.ingest.prefetch import prefetched
from bridge.protocols.ledger import Commit, Key, Lease, Ledger, StatusChange
from bridge.protocols.request_context import current
from bridge.protocols.source import Observation, Page, ResourceType, Source

T = TypeVar("T")
log = structlog.get_logger()

INTERNAL_PREFIX = "~"
"""Cursor entries that begin so are the intake's; a source never sees them."""
_STARTED = f"{INTERNAL_PREFIX}started"
_STALLED = f"{INTERNAL_PREFIX}stalled"
_FIRST = Transition.FIRST  # looked up once: an enumeration's members cost more than all else in a line
_DEFER_AT_MOST = 2000
_TRIES = 5
_MOULDS_KEPT = 1000
_BACK = frozenset({Transition.REGRESS, Transition.REOPEN, Transition.UNKNOWN})
_TICK = timedelta(milliseconds=1)
"""What two recorded times of one resource differ by at least: as much as is written."""
_SET_BACK = timedelta(minutes=1)
"""A clock that was set back by more was wrong before, and is believed at once."""


@dataclass(slots=True)
class PollResult:
    """What one poll came to."""

    observed: int = 0
    events: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    """How many of the events have which CloudEvents type."""
    problems: list[str] = field(default_factory=list)
    yielded: int = 0
    """How many steps back were not taken, for somebody else (a backfill, or the poller) may have the newer answer."""


class _PendingEvent(NamedTuple):
    """An event as it travels, and what is asked of it before it goes."""

    wire: WireEvent
    subject: str
    lag: float | None
    """Seconds from the provider's own time of the transition to its observation, where the provider gave one."""


@dataclass(slots=True)
class _Decision:
    """What pages lead to, before it is written."""

    statuses: dict[Key, StatusChange] = field(default_factory=dict)
    events: list[_PendingEvent] = field(default_factory=list)
    deferred: list[tuple[Page, list[Observation]]] = field(default_factory=list)
    back: list[tuple[Key, _PendingEvent]] = field(default_factory=list)
    """The events that are steps back, which an answer that is out of date looks like; not of marked occurrences."""

    def leave(self, keys: set[Key]) -> int:
        """Decide nothing of these resources after all; return how many events that takes away."""
        gone = {id(event) for key, event in self.back if key in keys}
        self.events = [event for event in self.events if id(event) not in gone]
        for key in keys:
            del self.statuses[key]
        return len(gone)


class _RecordedTimes:
    """Gives the times at which a source's pages are recorded: each one later than those before it.

    Consumers are told to keep of each resource what was recorded last. Pages that are committed together fall into one
    millisecond, and clocks are set back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: datetime | None = None

    def next(self) -> datetime:
        """Return what the clock says, and at least a millisecond more than the time before."""
        now = truncate_to_millis(self._clock.now())
        if self._last is not None and now <= self._last <= now + _SET_BACK:
            now = self._last + _TICK
        self._last = now
        return now

    def follow(self, other: datetime) -> None:
        """Give only times after `other`, which is what another process's clock said."""
        self._last = other if self._last is None else max(self._last, other)


class Intake:
    """Carries a source's observations into the ledger and the journal.

    Read, decide, write: the commit is the deduplication. An event exists once because its transition was committed
    once; a crash before the commit leaves nothing behind, a crash after it loses nothing. `committed` hears after each
    commit with events the number of the last one, and the events; `lagged`, for how many seconds transitions had been
    true by the provider's own clock when they were observed, where it told.
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
        committed: Callable[[int, Sequence[WireEvent]], None] = lambda _, __: None,
        lagged: Callable[[Sequence[float]], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.uri = f"/{kind}/{name}"
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._baseline = baseline
        self._committed = committed
        self._lagged = lagged
        self._moulds: dict[tuple[ResourceType, str, str | None, str | None, type[Data]], EventEncoder] = {}
        self._recording = _RecordedTimes(clock)
        self._written = 0
        """The number of the last event that is known to be before what we write next."""

    @property
    def behind(self) -> bool:
        """Whether the last poll left something for the next one, which should follow at once."""
        return self._source.behind

    async def poll(self, lease: Lease) -> PollResult:
        """Ask the source once and commit what it shows.

        Raises what the source and the ledger raise; all pages committed before stay, and the next poll goes on where
        the cursor stands.
        """
        cursor = await self._ledger.cursor(self.name)
        watched = await self._ledger.watched(self.name)
        silent = self._baseline and _STARTED not in cursor
        result = PollResult()
        deferred: list[tuple[Page, list[Observation]]] = []
        meanwhile = await self._from_now()
        own = {key: value for key, value in cursor.items() if not key.startswith(INTERNAL_PREFIX)}
        async with aclosing(prefetched(self._source.pages(own, watched))) as reading:
            async for read in reading:
                for pages in _commit_batches(read):
                    full = sum(len(late) for _, late in deferred) >= _DEFER_AT_MOST
                    before = 0 if full else _leading_without_cursor(pages) if deferred else len(pages)
                    if before:
                        deferred += await self._commit(lease, pages[:before], result, meanwhile, silent=silent)
                    if before < len(pages):
                        # A cursor may only move once everything before it is safe, also what still lacks its details.
                        await self._complete(lease, deferred, result, meanwhile, silent=silent)
                        deferred = await self._commit(lease, pages[before:], result, meanwhile, silent=silent)
        if deferred:
            await self._complete(lease, deferred, result, meanwhile, silent=silent)
        if _STARTED not in cursor:
            await self._ledger.commit(
                lease, Commit(self.name, cursor={_STARTED: rfc3339(truncate_to_millis(self._clock.now()))})
            )
        result.problems = list(self._source.problems)
        return result

    async def backfill(
        self, start: datetime, end: datetime, on_result: Callable[[PollResult], Awaitable[None]] | None = None
    ) -> PollResult:
        """Commit what the source shows of a past range, beside whoever polls it: without the lease and the cursor.

        A backfill is one more observer of the same resources: what the ledger knows already is no event, also where a
        first start recorded it without publishing. Where poll and backfill have read one resource at about the same
        time, neither takes it a step back. `told` hears after each page how far it is. Raises what the source and the
        ledger raise; all pages committed before stay.
        """
        result = PollResult()
        meanwhile = await self._from_now()
        async for page in self._source.backfill(start, end):
            bare = replace(page, cursor={})
            if late := await self._commit(None, [bare], result, meanwhile, silent=False):
                await self._complete(None, late, result, meanwhile, silent=False)
            if on_result is not None:
                await on_result(result)
        result.problems = list(self._source.problems)
        return result

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
        now = self._recording.next()
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
        self._wrote(1, last)
        self._committed(last, wire)

    def _wrote(self, count: int, last: int) -> None:
        if self._written == last - count:  # else the next poll looks at what somebody else wrote in between
            self._written = last

    async def _from_now(self) -> ConcurrentWrites:
        """Follow what others write from now on, and have our events recorded after what they wrote by now."""
        meanwhile = await ConcurrentWrites.from_now(self._ledger, self.name)
        if meanwhile.after != self._written:
            for entry in await self._ledger.read(self.name, meanwhile.after - 1, 1):
                self._recording.follow(datetime.fromisoformat(from_json(entry.event.body)["recordedtime"]))
            self._written = meanwhile.after
        return meanwhile

    async def _complete(
        self,
        lease: Lease | None,
        deferred: Sequence[tuple[Page, list[Observation]]],
        result: PollResult,
        meanwhile: ConcurrentWrites,
        *,
        silent: bool,
    ) -> None:
        completed = iter(await self._source.complete([observation for _, late in deferred for observation in late]))
        for page, late in deferred:
            again = replace(page, observations=[next(completed) for _ in late], unchanged=0)
            await self._commit(lease, [again], result, meanwhile, silent=silent, final=True)

    async def _commit(
        self,
        lease: Lease | None,
        pages: Sequence[Page],
        result: PollResult,
        meanwhile: ConcurrentWrites,
        *,
        silent: bool,
        final: bool = False,
    ) -> list[tuple[Page, list[Observation]]]:
        """Commit pages as one; return the observations that are news and have to wait for their details."""
        keys = [Key(observation.scope, observation.key) for page in pages for observation in page.observations]
        cursor = {name: value for page in pages for name, value in page.cursor.items()}
        if not final:
            result.observed += len(keys) + sum(page.unchanged for page in pages)
        for tried in range(1, _TRIES + 1):
            seen = await self._patiently(partial(self._last_seen, keys))
            decided = self._decide(pages, keys, seen, final=final)
            left = 0
            if decided.back:
                by = min(page.by for page in pages)
                newer = await meanwhile.newer_than({event.subject for _, event in decided.back}, by)
                left = decided.leave({key for key, event in decided.back if event.subject in newer})
            if decided.deferred:
                cursor = {}  # it moves with what this page still lacks
            events = [] if silent else decided.events
            if not (decided.statuses or cursor):
                result.yielded += left
                return decided.deferred
            wires = [event.wire for event in events]
            commit = Commit(
                self.name,
                statuses=list(decided.statuses.values()),
                events=wires,
                cursor=cursor,
                retention=self._source.retention,
            )
            try:
                # The crash before this line costs nothing: the next poll sees the same. The crash after it costs
                # nothing either: statuses, events and cursor are there together.
                last = await self._patiently(partial(self._ledger.commit, lease, commit))
            except Conflict:
                # Somebody else (a backfill) wrote the same resource in between: what was decided is out of date.
                if tried == _TRIES:
                    raise
                continue
            self._count(result, events)
            result.yielded += left
            meanwhile.record_own(len(wires), last)
            if events:
                self._wrote(len(wires), last)
                self._committed(last, wires)
            return decided.deferred
        raise AssertionError("unreachable")  # pragma: no cover - the last try returns or raises

    async def _last_seen(self, keys: Sequence[Key]) -> Sequence[str | None]:
        return await self._ledger.last_seen(self.name, keys, self._source.retention) if keys else ()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Ask the ledger until it answers, while our lease may still hold: a status that was read may be gone soon.

        Raises `Unavailable` when that is over, and at once where there is no lease.
        """
        failures = 0
        while True:
            try:
                return await call()
            except Unavailable as error:
                failures += 1
                wait = backoff(failures, self._clock.random, base=0.1, cap=1.0)
                tenure = current().lease
                if tenure is None or self._clock.monotonic() + wait >= tenure.until:
                    raise
                log.warning(
                    "source.cannot_write_store", source=self.name, reason=str(error), again_in=round(wait, 1),
                    consequence="what was read is kept in memory until it can be written, or until the lease ends",
                )  # fmt: skip
                await self._clock.sleep(wait)

    def _decide(
        self, pages: Sequence[Page], keys: Sequence[Key], seen: Sequence[str | None], *, final: bool
    ) -> _Decision:
        decided = _Decision()
        start = 0
        for page in pages:
            end = start + len(page.observations)
            if late := self._decide_page(page, keys[start:end], seen[start:end], decided, final=final):
                decided.deferred.append((page, late))
            start = end
        return decided

    def _decide_page(
        self, page: Page, keys: Sequence[Key], seen: Sequence[str | None], decided: _Decision, *, final: bool
    ) -> list[Observation]:
        sight: ObservationTimes | None = None
        recorded: set[Key] = set()
        late: list[Observation] = []
        statuses = decided.statuses
        for observation, key, before in zip(page.observations, keys, seen, strict=True):
            lifecycle = observation.kind.lifecycle
            if key in statuses:
                trail: str | None = statuses[key].history  # the same resource twice in one commit
            else:
                trail = before
                code = lifecycle.code_of.get(observation.status)
                if (
                    code is not None
                    and observation.occurrence_id is None
                    and before is not None
                    and before.endswith(code)
                ):
                    continue  # by far the most common case: nothing new, decided without taking the trail apart
            change = classify(lifecycle, trail, observation.status, observation.occurrence_id)
            if change is None:
                continue
            if observation.awaits_detail and not final:
                late.append(observation)
                continue
            if sight is None or (key in recorded and observation.occurrence_id is None):
                # By the page and not by the commit, so that a replay in other portions gives the same times.
                sight = _sight(page, self._recording.next())
            recorded.add(key)
            event = self._event(observation, change, sight)
            if event is not None:
                statuses[key] = StatusChange(key, before, change.history)
                if self._baseline and page.backlog and trail is None:
                    continue
                decided.events.append(event)
                if change.transition in _BACK and before is not None and observation.occurrence_id is None:
                    decided.back.append((key, event))
        return late

    def _event(self, observation: Observation, change: Change, sight: ObservationTimes) -> _PendingEvent | None:
        try:
            return self._build(observation, change, sight)
        except Exception as error:  # noqa: BLE001 - a plugin's fault in one resource must not stop the sweep
            log.error(  # noqa: TRY400 - a traceback could quote the provider's answer
                "intake.cannot_describe_resource",
                source=self.name,
                entity=observation.kind.entity,
                error=type(error).__name__,
                consequence="nothing was recorded of it; it is tried again at the next poll",
            )
            return None

    def _build(self, observation: Observation, change: Change, sight: ObservationTimes) -> _PendingEvent:
        kind, status = observation.kind, change.status
        facts = kind.describe(observation)
        fields = facts.fields
        first = facts.first_time if change.transition is _FIRST else None
        time, by = facts.time or first, sight.observed.by
        if status == UNKNOWN:
            raw = observation.status if facts.raw_status is None else facts.raw_status
            fields = {"provider_status": raw, **fields}
            status = f"{UNKNOWN}:{observation.status}"
        mould = self._mould(kind, change, observation.detail, facts.model)
        wire = mould.cast(
            event_id(self.uri, facts.subject, status, change.occurrence), facts.subject, time or by, sight, fields
        )
        return _PendingEvent(wire, facts.subject, None if time is None or time == by else (by - time).total_seconds())

    def _mould(self, kind: ResourceType, change: Change, detail: str | None, model: type[Data]) -> EventEncoder:
        unknown = change.status == UNKNOWN
        case = (kind, change.status, change.previous, detail, model)
        mould = self._moulds.get(case)
        if mould is None:
            if len(self._moulds) >= _MOULDS_KEPT:  # a provider that makes up a detail for each resource
                self._moulds.clear()
            mould = self._moulds[case] = EventEncoder(
                unknown_status(kind.entity) if unknown else kind.events[change.status],
                UnknownData if unknown else model,
                self.uri,
                channel=kind.channel,
                status=change.status,
                previous=change.previous,
                detail=None if unknown else detail,
                transition=change.transition,
            )
        return mould

    def _count(self, result: PollResult, events: Sequence[_PendingEvent]) -> None:
        result.events += len(events)
        self._lagged([event.lag for event in events if event.lag is not None])
        topics = Counter(event.wire.topic for event in events)
        for topic, count in topics.items():
            kind = type_of_topic(topic)
            result.by_type[kind] = result.by_type.get(kind, 0) + count


def _sight(page: Page, recorded: datetime) -> ObservationTimes:
    # A clock that was set back, or another process's, may have written a later time than that of the answer.
    return ObservationTimes(None if page.after is None else min(page.after, page.by), page.by, recorded)


def _leading_without_cursor(pages: Sequence[Page]) -> int:
    """Return how many pages stand before the first one that moves the cursor.

    In whichever portions the pages were read, events are committed in the same order.
    """
    return next((index for index, page in enumerate(pages) if page.cursor), len(pages))


def _commit_batches(pages: Sequence[Page]) -> Iterator[list[Page]]:
    """Yield what goes into one commit each: a page that may have to wait for details goes alone."""
    bunch: list[Page] = []
    for page in pages:
        if not any(observation.awaits_detail for observation in page.observations):
            bunch.append(page)
            continue
        if bunch:
            yield bunch
        bunch = []
        yield [page]
    if bunch:
        yield bunch
