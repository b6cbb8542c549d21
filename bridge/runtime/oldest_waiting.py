"""How long the oldest event has waited for a sink."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from bridge.domain.clock import Clock
from bridge.domain.event import Position
from bridge.domain.event_view import EventView
from bridge.protocols.deliveries import DeliveryCounts
from bridge.protocols.store import Store

_MAX_SEARCHED = 100_000
"""Waiting deliveries among which the oldest is searched for; of more, that of the delivery that is due first counts."""
_SEARCHED_PER_SECOND = 2_000
"""Deliveries; the more wait, the less often the oldest is searched for."""


async def oldest_waiting(store: Store, sink: str, books: Mapping[str, DeliveryCounts]) -> datetime | None:
    """Return when the oldest event was recorded that waits for a sink, given its books by source."""
    positions = []
    for source, count in books.items():
        if 0 < count.waiting <= _MAX_SEARCHED:
            seq = await store.oldest(sink, source)
            positions += [] if seq is None else [Position(source, seq)]
        elif count.waiting:
            first = await store.deliveries(sink, states=("waiting",), limit=1)
            positions += [delivery.position for delivery in first]
    entries = await store.entries(positions) if positions else ()
    recorded = [EventView.of(entry).recorded for entry in entries if entry is not None]
    # Another publisher's event may have no time, or one without its zone.
    return min((time for time in recorded if time is not None and time.tzinfo is not None), default=None)


class OldestWaiting:
    """Remembers the oldest event of each sink, so that a long queue is not searched every few seconds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[datetime | None, float]] = {}
        """For each sink when its oldest event was recorded, and in monotonic seconds when to search again."""

    async def age(self, sink: str, books: Mapping[str, DeliveryCounts]) -> float:
        """Return for how many seconds the oldest event has waited for a sink; 0 if none waits."""
        waiting = sum(count.waiting for count in books.values())
        if not waiting:
            self._known.pop(sink, None)
            return 0.0
        recorded, until = self._known.get(sink, (None, float("-inf")))
        if (now := self._clock.monotonic()) >= until:
            recorded = await oldest_waiting(self._store, sink, books)
            self._known[sink] = (recorded, now + min(waiting, _MAX_SEARCHED) / _SEARCHED_PER_SECOND)
        return 0.0 if recorded is None else max(0.0, (self._clock.now() - recorded).total_seconds())
