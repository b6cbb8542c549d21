"""The books of the sinks: offers a sink again what the journal has and the sink never settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.domain import topics
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry
from bridge.domain.event_view import EventView
from bridge.protocols.broker import Broker
from bridge.protocols.deliveries import RELAY_SINK, DeliveryStore, NewDelivery
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Ledger
from bridge.protocols.sink import SinkSettings


@dataclass(slots=True)
class AuditResult:
    """What an audit of one sink's books found, for one source or for all."""

    missing: int = 0
    """Events that the sink should have and its books do not know: still in its queue, or lost there."""
    offered: int = 0
    """How many of them count as lost and were given to the delivery store, due at once."""
    filtered: int = 0
    """How many that count as lost the sink's filter did not select: they were noted as such."""
    arrived: int = 0
    """The highest number among the audited events that the sink's books know."""


@dataclass(slots=True)
class _Snapshot:
    """What one audit saw, for the next one."""

    empty: bool = False
    """Whether the sink's queue was empty."""
    confirmed: dict[str, int] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)


class Audit:
    """Compares the journal with the deliveries of each sink, independently of broker and workers.

    The journal still has an event if its queue was purged, was not bound yet, or if the broker lost its data. An audit
    reads only what the broker had confirmed at the time of the audit before. Of that it offers again what is overdue:
    at that time later events of the same source had arrived, or the queue was empty, and is empty now. So what had left
    the queue then has had all the time between two audits to reach the store.
    """

    def __init__(self, ledger: Ledger, deliveries: DeliveryStore, broker: Broker, clock: Clock) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._broker = broker
        self._clock = clock
        self._snapshots: dict[str, _Snapshot] = {}

    async def register_sink(self, sink: str) -> None:
        """Start the books of a sink that is new to the store: it gets the events from now on."""
        for source in await self._ledger.sources():
            await self._deliveries.raise_low_watermark(sink, source, (await self._ledger.journal(source)).committed)

    async def run(self, sink: str, settings: SinkSettings) -> AuditResult:
        """Audit all sources once; call it at intervals longer than a message needs from the broker to the store."""
        before, now = self._snapshots.get(sink, _Snapshot()), _Snapshot(empty=await self._is_empty(sink))
        total = AuditResult()
        for source in await self._ledger.sources():
            now.confirmed[source] = (await self._ledger.journal(source)).confirmed
            # A queue keeps the order of one source: what is missing before something that arrived will not arrive.
            overdue = math.inf if before.empty and now.empty else before.arrived.get(source, 0)
            upto = before.confirmed.get(source, 0)
            result = await self.account(sink, settings, source, upto, overdue=overdue)
            now.arrived[source] = result.arrived
            total.missing += result.missing
            total.offered += result.offered
            total.filtered += result.filtered
        self._snapshots[sink] = now
        return total

    async def _is_empty(self, sink: str) -> bool:
        try:
            return await self._broker.depth(self._broker.sink_queue(sink)) == 0
        except Unavailable:
            return False

    async def account(
        self, sink: str, settings: SinkSettings, source: str, upto: int, *, overdue: float = 0
    ) -> AuditResult:
        """Account for everything of `source` up to `upto`; offer again what is missing below number `overdue`."""
        result = AuditResult()
        complete = True
        after = await self._deliveries.low_watermark(sink, source)
        if after >= upto:
            return result
        async for entries in journal_batches(self._ledger, source, after=after, upto=upto):
            selected = [entry for entry in entries if topics.matches(settings.topics, entry.event.topic)]
            missing = await self._missing(sink, source, selected)
            lost = [entry for entry in selected if entry.position.seq in missing and entry.position.seq < overdue]
            result.missing += len(missing)
            wanted = [entry for entry in lost if settings.filter_selects(entry.event)]
            result.offered += await self._offer(sink, settings, wanted)
            kept = {entry.position for entry in wanted}
            result.filtered += await self._filter_out(sink, [entry for entry in lost if entry.position not in kept])
            arrived = (entry.position.seq for entry in selected if entry.position.seq not in missing)
            result.arrived = max(arrived, default=result.arrived)
            complete = complete and len(lost) == len(missing)
            if complete:
                await self._deliveries.raise_low_watermark(sink, source, entries[-1].position.seq)
        return result

    async def _offer(self, sink: str, settings: SinkSettings, lost: Sequence[JournalEntry]) -> int:
        if not lost:
            return 0
        arrivals = [
            NewDelivery(entry.position, EventView.of(entry).partition if settings.ordered else None) for entry in lost
        ]
        return await self._deliveries.enqueue(sink, arrivals, self._clock.epoch())

    async def _filter_out(self, sink: str, lost: Sequence[JournalEntry]) -> int:
        return await self._deliveries.filter_out(sink, [entry.position for entry in lost]) if lost else 0

    async def _missing(self, sink: str, source: str, selected: Sequence[JournalEntry]) -> set[int]:
        if not selected:
            return set()
        missing = await self._deliveries.unaccounted(sink, source, [entry.position.seq for entry in selected])
        # A dead letter of the relay is not lost: the broker never had it.
        return set(await self._deliveries.unaccounted(RELAY_SINK, source, missing)) if missing else set()
