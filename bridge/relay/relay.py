"""Carries the journal of a source to the broker, and marks how far the broker has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.domain.event import JournalEntry
from bridge.protocols.broker import Broker
from bridge.protocols.ledger import Lease, Ledger
from bridge.relay.recent_entries import RecentEntries

BATCH = 1000
"""As many as wait are published with one wait for the confirms, and come again after a crash in between."""


@dataclass(slots=True)
class RelayResult:
    """What one run of the relay came to."""

    published: int = 0
    unroutable: int = 0
    upto: int = 0


class Relay:
    """Publishes what the journal has beyond its mark.

    The mark moves only when the broker has confirmed a whole batch: a crash in between repeats events of that batch,
    with the same ids, and never loses one. While the store takes no mark, nothing is repeated: what was published is
    remembered, and marked first. What is `fresh` is not read back from the journal.
    """

    def __init__(
        self, ledger: Ledger, broker: Broker, *, batch: int = BATCH, fresh: RecentEntries | None = None
    ) -> None:
        self._ledger = ledger
        self._broker = broker
        self._batch = batch
        self._fresh = fresh
        self._unmarked: dict[str, tuple[Sequence[JournalEntry], int]] = {}
        """By source: what the broker holds though the mark could not be moved, and how many no queue wanted."""

    async def drain(self, lease: Lease, source: str) -> RelayResult:
        """Publish until nothing is left; raises `Unavailable` or `LeaseLost`, with all marks where they belong."""
        done = RelayResult()
        await self._mark_held(lease, source, done)
        done.upto = (await self._ledger.journal(source)).confirmed
        entries = await self._read(source, done.upto)
        while entries:
            # While the broker confirms one batch, the next is read.
            ahead = asyncio.ensure_future(self._read(source, entries[-1].position.seq))
            try:
                await self._publish(lease, source, entries, done)
                entries = await ahead
            finally:
                if not ahead.done():
                    ahead.cancel()
                    await asyncio.gather(ahead, return_exceptions=True)
        return done

    async def _read(self, source: str, after: int) -> Sequence[JournalEntry]:
        if self._fresh is not None and (entries := self._fresh.take(after, self._batch)):
            return entries
        return await self._ledger.read(source, after, self._batch)

    async def _publish(self, lease: Lease, source: str, entries: Sequence[JournalEntry], done: RelayResult) -> None:
        unroutable = await self._broker.publish(entries)
        # A crash here publishes this batch again, with the same ids.
        self._unmarked[source] = entries, unroutable
        await self._mark(lease, source, done)

    async def _mark_held(self, lease: Lease, source: str, done: RelayResult) -> None:
        """Mark what was published when the store took no mark, unless the journal has other events there by now."""
        if source in self._unmarked:
            last = self._unmarked[source][0][-1]
            if list(await self._ledger.entries([last.position])) == [last]:
                await self._mark(lease, source, done)
            else:
                del self._unmarked[source]

    async def _mark(self, lease: Lease, source: str, done: RelayResult) -> None:
        entries, unroutable = self._unmarked[source]
        upto = entries[-1].position.seq
        await self._ledger.confirm(lease, source, upto, unroutable)
        del self._unmarked[source]
        done.published += len(entries)
        done.unroutable += unroutable
        done.upto = upto
