"""One poll of one source: read what was seen, decide, commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from bridge.clock import Clock
from bridge.errors import Conflict
from bridge.event import (
    Data,
    Event,
    Observed,
    SourceData,
    SourceEvent,
    SourceRecovered,
    SourceStalled,
    Transition,
    UnknownData,
    milliseconds,
    occurrence_id,
    rfc3339,
    unknown_status,
)
from bridge.ledger import Commit, Key, Lease, Ledger, StatusChange
from bridge.lifecycle import UNKNOWN, Change, classify
from bridge.source import Observation, Page, Source

log = structlog.get_logger()

OWN = "~"
"""Cursor entries that begin so are the intake's; a source never sees them."""
_STARTED = f"{OWN}started"
_STALLED = f"{OWN}stalled"
_DEFER_AT_MOST = 2000
_TRIES = 5


@dataclass(slots=True)
class Round:
    """What one poll came to."""

    observed: int = 0
    events: int = 0
    by_topic: dict[str, int] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    """Seconds from the provider's own time of a transition to its observation, where the provider gave one."""
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Decided:
    """What a page leads to, before it is written."""

    statuses: dict[Key, StatusChange] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    deferred: list[Observation] = field(default_factory=list)


class Intake:
    """Carries a source's observations into the ledger and the journal.

    Read, decide, write: the commit is the deduplication. An event exists once because its transition was committed
    once; a crash before the commit leaves nothing behind, a crash after it loses nothing.
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
        committed: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.uri = f"/{kind}/{name}"
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._baseline = baseline
        self._committed = committed

    @property
    def behind(self) -> bool:
        """Whether the last poll left something for the next one, which should follow at once."""
        return self._source.behind

    async def poll(self, lease: Lease) -> Round:
        """Ask the source once and commit what it shows.

        Raises what the source and the ledger raise; all pages committed before stay, and the next poll goes on where
        the cursor stands.
        """
        cursor = await self._ledger.cursor(self.name)
        watched = await self._ledger.watched(self.name)
        silent = self._baseline and _STARTED not in cursor
        result = Round()
        deferred: list[tuple[Page, list[Observation]]] = []
        own = {key: value for key, value in cursor.items() if not key.startswith(OWN)}
        async for page in self._source.pages(own, watched):
            if deferred and (page.cursor or sum(len(late) for _, late in deferred) >= _DEFER_AT_MOST):
                # A cursor may only move once everything before it is safe, also what still lacks its details.
                await self._complete(lease, deferred, result, silent=silent)
                deferred = []
            if late := await self._commit(lease, page, result, silent=silent):
                deferred.append((page, late))
        if deferred:
            await self._complete(lease, deferred, result, silent=silent)
        if _STARTED not in cursor:
            await self._ledger.commit(
                lease, Commit(self.name, cursor={_STARTED: rfc3339(milliseconds(self._clock.now()))})
            )
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
        now = milliseconds(self._clock.now())
        subject = f"/sources/{self.name}"
        event = cls.of(
            id=occurrence_id(self.uri, subject, cls.status, rfc3339(since)),
            source=self.uri,
            subject=subject,
            time=now,
            recordedtime=now,
            data=SourceData(
                channel="bridge",
                status=cls.status,
                previous="stalled" if cls.status == "recovered" else None,
                transition=Transition.ADVANCE,
                observed=Observed(after=since, by=now),
                failures=failures,
                since=since,
                reason=reason,
            ),
        )
        self._committed(await self._ledger.commit(lease, Commit(self.name, events=[event.to_wire()], cursor=cursor)))

    async def _complete(
        self, lease: Lease | None, deferred: Sequence[tuple[Page, list[Observation]]], result: Round, *, silent: bool
    ) -> None:
        completed = iter(await self._source.complete([one for _, late in deferred for one in late]))
        for page, late in deferred:
            again = Page([next(completed) for _ in late], page.by, page.after)
            await self._commit(lease, again, result, silent=silent, final=True)

    async def _commit(
        self, lease: Lease | None, page: Page, result: Round, *, silent: bool, final: bool = False
    ) -> list[Observation]:
        if not final:
            result.observed += len(page.observations)
        keys = [Key(one.scope, one.key) for one in page.observations]
        for tried in range(1, _TRIES + 1):
            seen = await self._ledger.last_seen(self.name, keys, self._source.retention) if keys else ()
            decided = self._decide(page, keys, seen, final=final)
            events = [] if silent else decided.events
            if not (decided.statuses or page.cursor):
                return decided.deferred
            commit = Commit(
                self.name,
                statuses=list(decided.statuses.values()),
                events=[event.to_wire() for event in events],
                cursor=page.cursor,
                retention=self._source.retention,
            )
            try:
                # The crash before this line costs nothing: the next poll sees the same. The crash after it costs
                # nothing either: statuses, events and cursor are there together.
                last = await self._ledger.commit(lease, commit)
            except Conflict:
                # Somebody else (a backfill) wrote the same resource in between: what was decided is out of date.
                if tried == _TRIES:
                    raise
                continue
            self._count(result, events, page)
            if events:
                self._committed(last)
            return decided.deferred
        raise AssertionError("unreachable")  # pragma: no cover

    def _decide(self, page: Page, keys: Sequence[Key], seen: Sequence[str | None], *, final: bool) -> _Decided:
        decided = _Decided()
        statuses = decided.statuses
        for one, key, before in zip(page.observations, keys, seen, strict=True):
            lifecycle = one.kind.lifecycle
            if key in statuses:
                trail: str | None = statuses[key].trail  # the same resource twice on one page
            else:
                trail = before
                code = lifecycle.code_of.get(one.status)
                if code is not None and one.mark is None and before is not None and before.endswith(code):
                    continue  # by far the most common case: nothing new, decided without taking the trail apart
            change = classify(lifecycle, trail, one.status, one.mark)
            if change is None:
                continue
            if one.awaits_detail and not final:
                decided.deferred.append(one)
                continue
            event = self._event(one, change, page)
            if event is not None:
                statuses[key] = StatusChange(key, before, change.trail)
                decided.events.append(event)
        return decided

    def _event(self, one: Observation, change: Change, page: Page) -> Event | None:
        try:
            return self._build(one, change, page)
        except Exception as error:  # noqa: BLE001 - a plugin's fault in one resource must not stop the sweep
            log.error(  # noqa: TRY400 - a traceback could quote the provider's answer
                "intake.cannot_describe_resource",
                source=self.name,
                entity=one.kind.entity,
                error=type(error).__name__,
                consequence="nothing was recorded of it; it is tried again at the next poll",
            )
            return None

    def _build(self, one: Observation, change: Change, page: Page) -> Event:
        kind = one.kind
        facts = kind.describe(one)
        unknown = change.status == UNKNOWN
        raw = one.status if facts.raw_status is None else facts.raw_status
        cls: type[Event] = unknown_status(kind.entity) if unknown else kind.events[change.status]
        model: type[Data] = UnknownData if unknown else facts.model
        data = model(
            channel=kind.channel,
            status=change.status,
            previous=change.previous,
            detail=None if unknown else one.detail,
            transition=change.transition,
            observed=Observed(after=None if page.after is None else milliseconds(page.after), by=milliseconds(page.by)),
            **({"provider_status": raw} if unknown else {}),
            **facts.fields,
        )
        first = facts.first_time if change.transition is Transition.FIRST else None
        return cls.of(
            id=occurrence_id(
                self.uri, facts.subject, f"{UNKNOWN}:{one.status}" if unknown else change.status, change.occurrence
            ),
            source=self.uri,
            subject=facts.subject,
            time=facts.time or first or milliseconds(page.by),
            recordedtime=self._clock.now(),
            data=data,
        )

    @staticmethod
    def _count(result: Round, events: Sequence[Event], page: Page) -> None:
        result.events += len(events)
        by = milliseconds(page.by)
        for event in events:
            stem = event.type.removeprefix("bridge.")
            result.by_topic[stem] = result.by_topic.get(stem, 0) + 1
            if event.time != by:
                result.lags.append((by - event.time).total_seconds())
