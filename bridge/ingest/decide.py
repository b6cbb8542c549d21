"""Where a status becomes an event: what pages lead to, decided from values alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from bridge.domain.catalogue import UnknownData, unknown_status
from bridge.domain.clock import Clock
from bridge.domain.encoding import EventEncoder, ObservationTimes
from bridge.domain.event import Data, Transition, WireEvent, event_id
from bridge.domain.lifecycle import UNKNOWN, Change, classify
from bridge.domain.overdue import overdue_id
from bridge.domain.times import truncate_to_millis
from bridge.ingest.expectations import FinalStatuses
from bridge.protocols.ledger import Expectation, Key, StatusChange
from bridge.protocols.source import Observation, Page, ResourceType

log = structlog.get_logger()

_FIRST = Transition.FIRST  # looked up once: an enumeration's members cost more than all else in a line
_BACK = frozenset({Transition.REGRESS, Transition.REOPEN, Transition.UNKNOWN})
_MAX_ENCODERS = 1000
_TICK = timedelta(milliseconds=1)
"""The smallest difference between two recorded times of one resource: recorded times are written in milliseconds."""
_SET_BACK = timedelta(minutes=1)
"""If the clock was set back by more, it was wrong before, and is believed at once."""


class PendingEvent(NamedTuple):
    """An event as it travels, and what has to be known of it until it is committed."""

    wire: WireEvent
    subject: str
    lag: float | None
    """Seconds from the provider's own time of the transition to its observation, if the provider gave a time."""


@dataclass(slots=True)
class Decision:
    """What pages lead to, before it is written."""

    statuses: dict[Key, StatusChange] = field(default_factory=dict)
    events: list[PendingEvent] = field(default_factory=list)
    deferred: list[tuple[Page, list[Observation]]] = field(default_factory=list)
    """New observations that have to wait for their details."""
    back: list[tuple[Key, PendingEvent]] = field(default_factory=list)
    """The events that are steps back, as an outdated answer leads to; occurrences with a provider's id are not here."""

    due: dict[Key, tuple[int, PendingEvent]] = field(default_factory=dict)
    """By when resources should have a final status, and their last events."""
    met: dict[Key, None] = field(default_factory=dict)
    """Resources that have a final status now."""
    earlier: dict[str, Expectation] = field(default_factory=dict)
    """By subject: resources without news that are waited for from now on."""

    def expectations(self, events: Sequence[PendingEvent]) -> list[Expectation]:
        """Return what is to be written with these events."""
        if not self.due:
            return list(self.earlier.values())
        places = {id(event): index - len(events) for index, event in enumerate(events)}
        news = [
            Expectation(key, due, places[id(event)]) for key, (due, event) in self.due.items() if id(event) in places
        ]
        return [*news, *self.earlier.values()]

    def withdraw(self, keys: set[Key]) -> int:
        """Decide nothing about these resources after all; return how many events that removes."""
        gone = {id(event) for key, event in self.back if key in keys}
        self.events = [event for event in self.events if id(event) not in gone]
        for key in keys:
            del self.statuses[key]
            self.due.pop(key, None)
            self.met.pop(key, None)
        return len(gone)


class RecordedTimes:
    """Gives the times at which a source's pages are recorded: each one is later than those before it.

    Consumers keep, of each resource, the event that was recorded last. Pages that are committed together are in one
    millisecond, and clocks are set back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: datetime | None = None

    def next(self) -> datetime:
        """Return the clock's time, or a millisecond more than the time before if that is later."""
        now = truncate_to_millis(self._clock.now())
        if self._last is not None and now <= self._last <= now + _SET_BACK:
            now = self._last + _TICK
        self._last = now
        return now

    @property
    def last(self) -> datetime:
        """Return the time that was given last; the clock's before the first."""
        return truncate_to_millis(self._clock.now()) if self._last is None else self._last

    def follow(self, other: datetime) -> None:
        """Give only times after `other`, which another process has recorded."""
        self._last = other if self._last is None else max(self._last, other)


class Decider:
    """Decides what the pages of one source lead to. It reads no store, and writes none.

    With `baseline`, resources of a page's backlog that were never seen are recorded without an event. With `finals`, it
    says by when resources should have a final status.
    """

    def __init__(
        self, name: str, uri: str, times: RecordedTimes, *, baseline: bool, finals: FinalStatuses | None = None
    ) -> None:
        self._name = name
        self._uri = uri
        self._times = times
        self._baseline = baseline
        self._finals = finals
        self._encoders: dict[tuple[ResourceType, str, str | None, str | None, type[Data]], EventEncoder] = {}

    def decide(
        self, pages: Sequence[Page], keys: Sequence[Key], seen: Sequence[str | None], *, final: bool
    ) -> Decision:
        """Compare the pages with what was `seen` of their resources, `keys`, in the same order.

        With `final`, no observation waits for its details any more.
        """
        decision = Decision()
        start = 0
        for page in pages:
            end = start + len(page.observations)
            if late := self._decide_page(page, keys[start:end], seen[start:end], decision, final=final):
                decision.deferred.append((page, late))
            start = end
        if self._finals is not None and self._finals.earlier:
            observations = (observation for page in pages for observation in page.observations)
            for observation, key, before in zip(observations, keys, seen, strict=True):
                if before is not None and key not in decision.statuses:
                    self._expect_earlier(observation, key, before, decision)
        return decision

    def _decide_page(
        self, page: Page, keys: Sequence[Key], seen: Sequence[str | None], decision: Decision, *, final: bool
    ) -> list[Observation]:
        times: ObservationTimes | None = None
        recorded: set[Key] = set()
        late: list[Observation] = []
        statuses = decision.statuses
        for observation, key, before in zip(page.observations, keys, seen, strict=True):
            lifecycle = observation.kind.lifecycle
            if key in statuses:
                history: str | None = statuses[key].history  # the same resource twice in one commit
            else:
                history = before
                code = lifecycle.code_of.get(observation.status)
                if (
                    code is not None
                    and observation.occurrence_id is None
                    and before is not None
                    and before.endswith(code)
                ):
                    continue  # by far the most common case: nothing new, decided without parsing the history
            change = classify(lifecycle, history, observation.status, observation.occurrence_id)
            if change is None:
                continue
            if observation.awaits_detail and not final:
                late.append(observation)
                continue
            if times is None or (key in recorded and observation.occurrence_id is None):
                # By the page and not by the commit, so that a replay in other portions gives the same times.
                times = _times_of(page, self._times.next())
            recorded.add(key)
            event = self._event(observation, change, times)
            if event is not None:
                statuses[key] = StatusChange(key, before, change.history)
                if self._baseline and page.backlog and history is None:
                    continue
                decision.events.append(event)
                if self._finals is not None or change.transition in _BACK:
                    self._note(observation, statuses[key], history, change, event, times, decision)
        return late

    def _expect_earlier(self, observation: Observation, key: Key, before: str, decision: Decision) -> None:
        """Wait for the final status of a resource that was there before such were waited for, and does not move."""
        earlier = None if self._finals is None else self._finals.earlier_expectation(observation, key, before)
        if earlier is not None:
            subject, expectation = earlier
            decision.earlier[subject] = expectation
            decision.statuses[key] = StatusChange(key, before, before)  # a conflict if it moves in between

    def _note(
        self, observation: Observation, written: StatusChange, history: str | None, change: Change, event: PendingEvent,
        times: ObservationTimes, decision: Decision,
    ) -> None:  # fmt: skip
        """Note that an event is a step back, and that its resource waits for a final status, or has it."""
        kind, key = observation.kind, written.key
        if change.transition in _BACK and written.expected is not None and observation.occurrence_id is None:
            decision.back.append((key, event))
        if self._finals is None or not self._finals.is_open(kind, history):
            return
        if change.status in kind.lifecycle.finals:
            decision.due.pop(key, None)
            if history is not None:
                decision.met[key] = None
        else:
            due = decision.due[key][0] if key in decision.due else self._finals.due(times.recorded)
            decision.due[key] = (due, event)

    def _event(self, observation: Observation, change: Change, times: ObservationTimes) -> PendingEvent | None:
        try:
            return self._build(observation, change, times)
        except Exception as error:  # noqa: BLE001 - a plugin's fault in one resource must not stop the sweep
            log.error(  # noqa: TRY400 - a traceback could quote the provider's answer
                "intake.cannot_describe_resource",
                source=self._name,
                entity=observation.kind.entity,
                error=type(error).__name__,
                consequence="nothing was recorded of it; it is tried again at the next poll",
            )
            return None

    def _build(self, observation: Observation, change: Change, times: ObservationTimes) -> PendingEvent:
        kind, status = observation.kind, change.status
        facts = kind.describe(observation)
        fields = facts.fields
        first = facts.first_time if change.transition is _FIRST else None
        time, by = facts.time or first, times.observed.by
        if status == UNKNOWN:
            raw = observation.status if facts.raw_status is None else facts.raw_status
            fields = {"provider_status": raw, **fields}
            status = f"{UNKNOWN}:{observation.status}"
        if change.resolves_overdue:
            fields = {**fields, "resolves": overdue_id(self._uri, facts.subject)}
        encoder = self._encoder(kind, change, observation.detail, facts.model)
        wire = encoder.encode(
            event_id(self._uri, facts.subject, status, change.occurrence), facts.subject, time or by, times, fields
        )
        return PendingEvent(wire, facts.subject, None if time is None or time == by else (by - time).total_seconds())

    def _encoder(self, kind: ResourceType, change: Change, detail: str | None, model: type[Data]) -> EventEncoder:
        unknown = change.status == UNKNOWN
        case = (kind, change.status, change.previous, detail, model)
        encoder = self._encoders.get(case)
        if encoder is None:
            if len(self._encoders) >= _MAX_ENCODERS:  # a provider that invents a detail for each resource
                self._encoders.clear()
            encoder = self._encoders[case] = EventEncoder(
                unknown_status(kind.entity) if unknown else kind.events[change.status],
                UnknownData if unknown else model,
                self._uri,
                channel=kind.channel,
                status=change.status,
                previous=change.previous,
                detail=None if unknown else detail,
                transition=change.transition,
            )
        return encoder


def _times_of(page: Page, recorded: datetime) -> ObservationTimes:
    # A clock that was set back, or another process's clock, may have written a later time than that of the answer.
    after = None if page.after is None else min(page.after, page.by)
    return ObservationTimes(after, page.by, recorded, None if page.pushed is None else min(page.pushed, page.by))
