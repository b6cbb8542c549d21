"""Publishes once that a resource has had no final status for too long, within seconds of its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError

from bridge.coordination.leases import wait_for_stop
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, LeaseLost, Unavailable
from bridge.domain.event import Event, Position, Transition, WireEvent
from bridge.domain.event_view import EventView
from bridge.domain.lifecycle import StatusHistory
from bridge.domain.overdue import OVERDUE, overdue_id
from bridge.ingest.decide import RecordedTimes
from bridge.ingest.expectations import FinalStatuses
from bridge.protocols.ledger import Commit, Expectation, Lease, Ledger, StatusChange
from bridge.protocols.source import HasResourceTypes, ResourceType, Source

log = structlog.get_logger()

_TICK_SECONDS = 1.0
"""Seconds between two looks at the wall clock, which may be set at any time."""
_MAX_ASK_SECONDS = 60.0
"""Seconds between two questions to the store: a backfill in another process may add what is due."""
_BATCH_RESOURCES = 500
_LEFT_OUT = ("resolves", "detail")
"""What the last event says of its own transition, and not of the resource."""


class OverdueWatch:
    """Looks for what is due in the store, under the lease of the source, and publishes it.

    One commit marks the resource in its history, writes the event, and ends the expectation. It is refused if the
    resource has moved since, or if another process has the lease: so each resource is published once, whatever is
    killed, and if another process takes over.
    """

    def __init__(
        self,
        name: str,
        uri: str,
        source: Source,
        ledger: Ledger,
        clock: Clock,
        finals: FinalStatuses,
        times: RecordedTimes,
        *,
        committed: Callable[[int, Sequence[WireEvent]], None] = lambda _, __: None,
        shown: Callable[[int], None] = lambda _: None,
        counted: Callable[[Sequence[WireEvent]], None] = lambda _: None,
    ) -> None:
        """Prepare; `shown` hears how many resources are waited for, now and then, and `counted` what was published."""
        self._name = name
        self._uri = uri
        self._source = source
        self._ledger = ledger
        self._clock = clock
        self._finals = finals
        self._times = times
        self._committed = committed
        self._shown = shown
        self._counted = counted
        kinds = source.resource_types if isinstance(source, HasResourceTypes) else ()
        self._kinds = {(kind.channel, kind.entity): kind for kind in kinds}
        self._asked = 0.0

    async def run(self, lease: Lease, stop: asyncio.Event) -> None:
        """Publish what becomes due until `stop` is set or the lease is lost; failures are tried again."""
        self._finals.next_due = 0.0
        while not stop.is_set():
            try:
                await self._check_when_due(lease)
            except LeaseLost:
                return
            except Unavailable as error:
                log.warning(
                    "overdue.waits_for_store", source=self._name, reason=str(error),
                    consequence="overdue resources are published when it answers",
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001 - the polls go on
                log.error(  # noqa: TRY400 - a traceback could quote the provider's answer
                    "overdue.fails", source=self._name, error=type(error).__name__,
                    consequence="it is tried again; polling goes on",
                )  # fmt: skip
            await wait_for_stop(stop, self._clock, _TICK_SECONDS)

    async def _check_when_due(self, lease: Lease) -> None:
        now = self._clock.monotonic()
        is_time = now - self._asked >= min(_MAX_ASK_SECONDS, self._finals.final_within / 2)
        if not is_time and self._clock.epoch() < self._finals.next_due:
            return
        self._asked = now
        await self.check(lease)
        self._shown(await self._ledger.count_expectations(self._name))

    async def check(self, lease: Lease) -> int:
        """Publish all that is due now; return how many. Raises `LeaseLost` and `Unavailable`."""
        published = 0
        while due := await self._ledger.expectations(self._name, self._clock.epoch(), _BATCH_RESOURCES):
            try:
                published += await self._publish(lease, due)
            except Conflict:
                break  # a resource has moved in between: the next look finds what is still due
        following = await self._ledger.next_expectation(self._name)
        self._finals.next_due = self._clock.epoch() + _MAX_ASK_SECONDS if following is None else following
        return published

    async def _publish(self, lease: Lease, due: Sequence[Expectation]) -> int:
        retention = self._source.retention
        histories = await self._ledger.last_seen(self._name, [expectation.key for expectation in due], retention)
        entries = await self._ledger.entries([Position(self._name, expectation.seq) for expectation in due])
        recorded = self._times.next()
        statuses: list[StatusChange] = []
        events: list[WireEvent] = []
        for expectation, history, entry in zip(due, histories, entries, strict=True):
            if history is None:
                continue  # forgotten, or never committed
            if entry is None:
                log.error(
                    "overdue.event_trimmed", source=self._name, position=f"{self._name}:{expectation.seq}",
                    consequence="it is not published as overdue; raise journal.max_bytes",
                )  # fmt: skip
                continue
            view = EventView.of(entry)
            kind = self._kinds.get((str(view.data.get("channel")), _entity(view.event)))
            if kind is None or not self._finals.is_open(kind, history):
                continue
            event = self._event(view, kind, history, expectation, recorded)
            if event is not None:
                statuses.append(StatusChange(expectation.key, history, _marked(history)))
                events.append(event.to_wire())
        commit = Commit(self._name, statuses, events, met=[expectation.key for expectation in due], retention=retention)
        last = await self._ledger.commit(lease, commit)
        if events:
            log.warning(
                "overdue.published", source=self._name, resources=len(events),
                consequence="they have had no final status within expect.final_within",
            )  # fmt: skip
            self._committed(last, events)
            self._counted(events)
        return len(events)

    def _event(
        self, view: EventView, kind: ResourceType, history: str, expectation: Expectation, recorded: datetime
    ) -> Event | None:
        cls = kind.overdue
        last = StatusHistory.parse(history).last
        if cls is None or last is None:
            return None
        status, due = kind.lifecycle.status(last), datetime.fromtimestamp(expectation.due, UTC)
        own = {name: value for name, value in view.data.items() if name not in _LEFT_OUT}
        fields: dict[str, Any] = {
            "status": OVERDUE, "previous": status, "transition": Transition.ADVANCE,
            "stands_in": status, "since": view.body.get("time"), "due": due,
        }  # fmt: skip
        model = cls.model_fields["data"].annotation
        assert model is not None  # noqa: S101 - every event's data is a model
        try:
            data = model(**(own | fields))
        except ValidationError as error:
            log.error(  # noqa: TRY400 - a traceback could quote the provider's answer
                "overdue.cannot_be_described", source=self._name, position=str(view.position),
                error=type(error).__name__, consequence="it is not published as overdue",
            )  # fmt: skip
            return None
        return cls.of(
            id=overdue_id(self._uri, view.subject), source=self._uri, subject=view.subject, time=due,
            recordedtime=recorded, data=data,
        )  # fmt: skip


def _entity(event: WireEvent) -> str:
    return event.topic.split(".", 2)[1]


def _marked(history: str) -> str:
    parsed = StatusHistory.parse(history)
    return str(StatusHistory(parsed.visits, parsed.occurrence_ids, is_overdue=True))
