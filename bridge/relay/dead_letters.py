"""The dead letters of the relay: events that the broker does not accept, kept until an operator redrives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry, Position
from bridge.protocols.broker import Broker, Unpublishable
from bridge.protocols.deliveries import RELAY_SINK, Attempt, Delivery, NewDelivery
from bridge.protocols.store import Store

log = structlog.get_logger()

_REASON = "refused"
_CLAIM_SECONDS = 120.0
"""Longer than one publication may take: no second process publishes the same event in that time."""
_UNWRITTEN_SECONDS = 60.0
"""After so long a dead letter whose process was killed between the two writes is published, or refused, once more."""


class RelayDeadLetters:
    """Keeps, in the store's deliveries, what the broker does not accept; all processes share it.

    An entry is set aside before the relay's mark moves over it. A process that is killed in between finds it here and
    neither publishes it nor sets it aside again.
    """

    def __init__(self, store: Store, broker: Broker, clock: Clock) -> None:
        self._store = store
        self._broker = broker
        self._clock = clock

    async def without_known(self, source: str, entries: Sequence[JournalEntry]) -> Sequence[JournalEntry]:
        """Return the entries of one source that were never set aside."""
        seqs = [entry.position.seq for entry in entries]
        unknown = set(await self._store.unaccounted(RELAY_SINK, source, seqs))
        return entries if len(unknown) == len(seqs) else [entry for entry in entries if entry.position.seq in unknown]

    async def set_aside(self, entries: Sequence[JournalEntry], reasons: Mapping[Position, str]) -> None:
        """Make dead letters of those entries that have a reason; idempotent."""
        refused = [entry for entry in entries if entry.position in reasons]
        now = self._clock.epoch()
        await self._store.enqueue(
            RELAY_SINK, [NewDelivery(entry.position) for entry in refused], now + _UNWRITTEN_SECONDS
        )
        for entry in refused:
            # A crash before this line: the dead letter waits, and is published or refused once more when it is due.
            await self._refuse(entry.position, reasons[entry.position], now)
            log.error(
                "relay.set_aside", source=entry.position.source, id=entry.event.id, position=str(entry.position),
                reason=reasons[entry.position],
                consequence="no sink gets it, all others go on; correct the broker's limit, then "
                f"`bridgectl deliveries redrive {RELAY_SINK} {entry.position}`",
            )  # fmt: skip

    async def publish_due(self) -> int:
        """Publish the dead letters that an operator redrove; return how many the broker accepted."""
        published = 0
        while await self._is_due():
            now = self._clock.epoch()
            claimed = await self._store.claim(RELAY_SINK, now, now + _CLAIM_SECONDS, 1)
            if not claimed:
                break
            published += await self._publish(claimed[0])
        return published

    async def _is_due(self) -> bool:
        """Look before a claim, which is a write."""
        due = await self._store.next_due(RELAY_SINK)
        return due is not None and due <= self._clock.epoch()

    async def _publish(self, delivery: Delivery) -> bool:
        position = delivery.position
        (entry,) = await self._store.entries([position])
        if entry is None:
            await self._store.dead_letter(RELAY_SINK, position, "expired", None)
            return False
        try:
            await self._broker.publish([entry])
        except Unpublishable as error:
            await self._refuse(position, error.reasons[position], self._clock.epoch())
            log.warning("relay.refused_again", position=str(position), reason=error.reasons[position])
            return False
        except Unavailable:
            await self._store.extend(RELAY_SINK, [position], self._clock.epoch())
            raise
        # A crash before this line publishes it again, with the same id.
        await self._store.settle(RELAY_SINK, [position])
        log.info("relay.redriven", position=str(position), id=entry.event.id, consequence="the broker has it")
        return True

    async def _refuse(self, position: Position, reason: str, now: float) -> None:
        await self._store.dead_letter(RELAY_SINK, position, _REASON, Attempt(now, reason, "permanent"))
