"""The books of the sinks: what the journal has and a sink never settled is offered to it again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.delivery.worker import partition_of
from bridge.domain import topics
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry
from bridge.protocols.broker import QUEUE_PREFIX, Broker
from bridge.protocols.deliveries import DeliveryStore, NewDelivery
from bridge.protocols.ledger import Ledger
from bridge.protocols.sink import SinkSettings

_BATCH = 1000


@dataclass(slots=True)
class AuditResult:
    """What one look into one sink's books of one source found."""

    missing: int = 0
    """Events that the sink should have and nobody knows of: still in its queue, or lost there."""
    offered: int = 0
    """How many of them are taken for lost and were put to the store's deliveries, due at once."""
    arrived: int = 0
    """The highest number that the sink's books know, of those looked at."""


@dataclass(slots=True)
class _Snapshot:
    """What one look saw, for the next one."""

    empty: bool = False
    """Whether the sink's queue was."""
    confirmed: dict[str, int] = field(default_factory=dict)
    arrived: dict[str, int] = field(default_factory=dict)


class Audit:
    """Compares the journal with the deliveries of each sink, behind everything else.

    A queue that was purged, a broker that lost its memory, a queue that was not bound yet: whatever became of an event
    on its way, the journal still has it. Only what the broker had confirmed by the time of the look before is looked
    at, and of that what is overdue: by that time, later events of the same source had arrived, or the queue was empty,
    and it still is. What had left the queue by then has had all the time between two looks to reach the store.
    """

    def __init__(self, ledger: Ledger, settlements: DeliveryStore, broker: Broker, clock: Clock) -> None:
        self._ledger = ledger
        self._settlements = settlements
        self._broker = broker
        self._clock = clock
        self._looks: dict[str, _Snapshot] = {}

    async def register_sink(self, sink: str) -> None:
        """Start the books of a sink that is new to the store: events from now on are its own."""
        for source in await self._ledger.sources():
            await self._settlements.raise_low_watermark(sink, source, (await self._ledger.journal(source)).committed)

    async def run(self, sink: str, settings: SinkSettings) -> AuditResult:
        """Look through all sources once; call it at intervals longer than a message needs from broker to store."""
        before, now = self._looks.get(sink, _Snapshot()), _Snapshot(empty=await self._is_empty(sink))
        total = AuditResult()
        for source in await self._ledger.sources():
            now.confirmed[source] = (await self._ledger.journal(source)).confirmed
            # A queue keeps the order of one source: what is missing before something that arrived will not arrive.
            overdue = math.inf if before.empty and now.empty else before.arrived.get(source, 0)
            upto = before.confirmed.get(source, 0)
            found = await self.account(sink, settings, source, upto, overdue=overdue)
            now.arrived[source] = found.arrived
            total.missing += found.missing
            total.offered += found.offered
        self._looks[sink] = now
        return total

    async def _is_empty(self, sink: str) -> bool:
        try:
            return await self._broker.depth(QUEUE_PREFIX + sink) == 0
        except Unavailable:
            return False

    async def account(
        self, sink: str, settings: SinkSettings, source: str, upto: int, *, overdue: float = 0
    ) -> AuditResult:
        """Account for everything of `source` up to `upto`; what is missing below `overdue` is put to the deliveries."""
        found = AuditResult()
        after = await self._settlements.low_watermark(sink, source)
        complete = True
        while after < upto:
            entries = [one for one in await self._ledger.read(source, after, _BATCH) if one.position.seq <= upto]
            if not entries:
                break
            wanted = [one for one in entries if topics.matches(settings.topics, one.event.topic)]
            missing = await self._missing(sink, source, wanted)
            lost = [one for one in wanted if one.position.seq in missing and one.position.seq < overdue]
            found.missing += len(missing)
            found.offered += await self._offer(sink, settings, lost)
            found.arrived = max(
                (one.position.seq for one in wanted if one.position.seq not in missing), default=found.arrived
            )
            complete = complete and len(lost) == len(missing)
            after = entries[-1].position.seq
            if complete:
                await self._settlements.raise_low_watermark(sink, source, after)
        return found

    async def _offer(self, sink: str, settings: SinkSettings, lost: Sequence[JournalEntry]) -> int:
        if not lost:
            return 0
        arrivals = [NewDelivery(one.position, partition_of(one.event) if settings.ordered else None) for one in lost]
        return await self._settlements.enqueue(sink, arrivals, self._clock.epoch())

    async def _missing(self, sink: str, source: str, wanted: Sequence[JournalEntry]) -> set[int]:
        if not wanted:
            return set()
        return set(await self._settlements.unaccounted(sink, source, [one.position.seq for one in wanted]))
