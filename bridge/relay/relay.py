"""Publishes the journal of a source to the broker, and marks how far the broker has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Broker
from bridge.protocols.ledger import Lease, Ledger
from bridge.relay.recent_entries import RecentEntries

BATCH = 1000
"""Entries that are published at most with one wait for the confirms; a crash during that wait repeats them."""


@dataclass(slots=True)
class RelayResult:
    """What one run of the relay did."""

    published: int = 0
    unroutable: int = 0
    upto: int = 0


class Relay:
    """Publishes what the journal has beyond its mark.

    The mark moves only when the broker has confirmed a whole batch: a crash in between repeats events of that batch,
    with the same ids, and never loses one. If the store cannot move the mark, nothing is repeated: the relay remembers
    what was published, and moves the mark first. Entries in `recent` are not read from the journal.
    """

    def __init__(
        self, ledger: Ledger, broker: Broker, *, batch: int = BATCH, recent: RecentEntries | None = None
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._batch = batch
        self._recent = recent
        self._published_unconfirmed: dict[str, tuple[Sequence[JournalEntry], int]] = {}
        """By source: what the broker has and the mark does not cover yet, and how many of it no queue selected."""

    async def drain(self, lease: Lease, source: str) -> RelayResult:
        """Publish until nothing is left; raises `Unavailable` or `LeaseLost`, and then all marks are right."""
        result = RelayResult()
        await self._mark_published(lease, source, result)
        result.upto = (await self._ledger.journal(source)).confirmed
        entries = await self._read(source, result.upto)
        while entries:
            # While the broker confirms one batch, the next is read.
            ahead = asyncio.ensure_future(self._read(source, entries[-1].position.seq))
            try:
                await self._publish(lease, source, entries, result)
                entries = await ahead
            finally:
                if not ahead.done():
                    ahead.cancel()
                    await asyncio.gather(ahead, return_exceptions=True)
        return result

    async def _read(self, source: str, after: int) -> Sequence[JournalEntry]:
        if self._recent is not None and (entries := self._recent.take(after, self._batch)):
            return entries
        return await self._ledger.read(source, after, self._batch)

    async def _publish(self, lease: Lease, source: str, entries: Sequence[JournalEntry], result: RelayResult) -> None:
        unroutable = await self._broker.publish(entries)
        # A crash here publishes this batch again, with the same ids.
        self._published_unconfirmed[source] = entries, unroutable
        await self._mark(lease, source, result)

    async def _mark_published(self, lease: Lease, source: str, result: RelayResult) -> None:
        """Mark what was published while the store could not move the mark, unless its entries have changed since."""
        if source in self._published_unconfirmed:
            last = self._published_unconfirmed[source][0][-1]
            if list(await self._ledger.entries([last.position])) == [last]:
                await self._mark(lease, source, result)
            else:
                del self._published_unconfirmed[source]

    async def _mark(self, lease: Lease, source: str, result: RelayResult) -> None:
        entries, unroutable = self._published_unconfirmed[source]
        upto = entries[-1].position.seq
        await self._ledger.confirm(lease, source, upto, unroutable)
        del self._published_unconfirmed[source]
        result.published += len(entries)
        result.unroutable += unroutable
        result.upto = upto
