"""The books of the sinks: offers a sink again what the journal has and the sink never settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.delivery.journal_audit import AuditProgress, AuditResult, JournalAudit
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.broker import Broker
from bridge.protocols.deliveries import DeliveryStore
from bridge.protocols.ledger import Ledger
from bridge.protocols.sink import SinkSettings

_PAUSE_SECONDS = 0.1
"""Seconds between two batches of an audit, so that the store has time for other work."""


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

    An audit goes on where the one before ended: it reads each event once, and remembers the numbers that were missing.
    However many wait in the queue of a sink that is down, it asks for a few of them only. A queue keeps the order of a
    source, so its head tells whether anything has left it. The others are asked for by turns.
    """

    def __init__(self, ledger: Ledger, deliveries: DeliveryStore, broker: Broker, clock: Clock) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._broker = broker
        self._clock = clock
        self._snapshots: dict[str, _Snapshot] = {}
        self._progress: dict[tuple[str, str], AuditProgress] = {}
        self._topics: dict[str, Sequence[str]] = {}

    async def register_sink(self, sink: str) -> None:
        """Start the books of a sink that is new to the store: it gets the events from now on."""
        for source in await self._ledger.sources():
            await self._deliveries.raise_low_watermark(sink, source, (await self._ledger.journal(source)).committed)

    async def run(self, sink: str, settings: SinkSettings) -> AuditResult:
        """Audit all sources once; call it at intervals longer than a message needs from the broker to the store."""
        before, now = self._snapshots.get(sink, _Snapshot()), _Snapshot(empty=await self._is_empty(sink))
        total = AuditResult()
        if self._topics.get(sink) != settings.topics:  # what was not wanted before may be now
            self._progress = {key: kept for key, kept in self._progress.items() if key[0] != sink}
            self._topics[sink] = settings.topics
        for source in await self._ledger.sources():
            now.confirmed[source] = (await self._ledger.journal(source)).confirmed
            # A queue keeps the order of one source: what is missing before something that arrived will not arrive.
            overdue = math.inf if before.empty and now.empty else before.arrived.get(source, 0)
            progress = await self._progress_of(sink, source, now.confirmed[source])
            audit = JournalAudit(
                self._ledger, self._deliveries, self._clock, sink, settings, source, progress, pause=_PAUSE_SECONDS
            )
            result = await audit.run(before.confirmed.get(source, 0), overdue)
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
        """Account for everything of `source` up to `upto`; offer again what is missing below number `overdue`.

        It begins behind what is complete, whatever was looked at before.
        """
        progress = AuditProgress.after(await self._deliveries.low_watermark(sink, source))
        audit = JournalAudit(self._ledger, self._deliveries, self._clock, sink, settings, source, progress)
        return await audit.run(upto, overdue)

    async def _progress_of(self, sink: str, source: str, confirmed: int) -> AuditProgress:
        """Return how far the audits have come; they begin anew if the store has lost what it knew."""
        progress = self._progress.get((sink, source))
        if progress is None or progress.read > confirmed:
            progress = AuditProgress.after(await self._deliveries.low_watermark(sink, source))
            self._progress[sink, source] = progress
        return progress
