"""Claims what is due in the store, finds its events, and hands over what is sent now."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from bridge.delivery.claims import ClaimedDelivery, Claims, write_with_retry
from bridge.delivery.send_times import SendTimes
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry
from bridge.domain.event_view import EventView
from bridge.protocols.deliveries import Attempt, Delivery, DeliveryStore
from bridge.protocols.ledger import Ledger

log = structlog.get_logger()


class Claiming:
    """The way of one sink's deliveries from the store to its sender."""

    def __init__(
        self,
        sink: str,
        ledger: Ledger,
        deliveries: DeliveryStore,
        claims: Claims,
        times: SendTimes,
        clock: Clock,
        send: Callable[[ClaimedDelivery, float], None],
    ) -> None:
        """Prepare; `send` gets each delivery that is sent now, with the deadline of its claim."""
        self._sink = sink
        self._ledger = ledger
        self._deliveries = deliveries
        self._claims = claims
        self._times = times
        self._clock = clock
        self._send = send

    async def claim(self, limit: int, most: int, due: float) -> bool:
        """Claim what is due, the first of it at `due`, and have up to `limit` sent; return whether anything was due.

        While an endpoint is down, `limit` is one probe at a time. If something hinders events now, up to `most` are
        claimed all the same: what is not to be sent leaves, and what is too many goes back to its place.
        """
        claimed, claim_deadline = await self._claims.claim(limit if self._times.is_open else most)
        entries = await self._ledger.entries([delivery.position for delivery in claimed]) if claimed else ()
        deliverable = await self._with_events(claimed, entries)
        if self._times.is_open:
            ready = deliverable
        else:
            ready, hindered = self._times.divide(deliverable)
            for aside in hindered:
                self._claims.add(aside.claimed.position, claim_deadline)
            for write in self._times.writes(hindered):
                await write_with_retry(self._sink, self._clock, write)
        for item in ready[:limit]:
            self._send(item, claim_deadline)
        if surplus := [item.position for item in ready[limit:]]:
            await self._claims.requeue_at(surplus, due)
        return bool(claimed)

    async def _with_events(
        self, claimed: Sequence[Delivery], entries: Sequence[JournalEntry | None]
    ) -> list[ClaimedDelivery]:
        """Return the deliveries whose events are there; the others become dead letters."""
        deliverable = []
        for delivery, entry in zip(claimed, entries, strict=True):
            position = delivery.position
            if entry is None:
                log.error(
                    "delivery.event_trimmed", sink=self._sink, position=str(position),
                    consequence="kept as a dead letter without its content",
                )  # fmt: skip
                await self._deliveries.dead_letter(self._sink, position, "expired", None)
            elif position.source.startswith("@") and "id" not in EventView.of(entry).body:
                # A process accepted it and died before it could make it a dead letter.
                attempt = Attempt(self._clock.epoch(), "not a CloudEvent", "permanent")
                await self._deliveries.dead_letter(self._sink, position, "malformed", attempt)
            else:
                deliverable.append(ClaimedDelivery(position, entry.event, len(delivery.attempts)))
        return deliverable
