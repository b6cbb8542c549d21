"""Publishes the journal of a source to the broker, and marks how far the broker has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position
from bridge.protocols.broker import Broker, PartlyPublished, Unpublishable
from bridge.protocols.ledger import Lease
from bridge.protocols.store import Store
from bridge.relay.dead_letters import RelayDeadLetters
from bridge.relay.recent_entries import RecentEntries

BATCH = 1000
"""Entries that are published at most with one wait for the confirms; a crash during that wait repeats them."""


@dataclass(slots=True)
class RelayResult:
    """What one run of the relay did."""

    published: int = 0
    unroutable: int = 0
    set_aside: int = 0
    """Events that the broker does not accept: dead letters of the relay."""
    upto: int = 0


@dataclass(slots=True)
class _Confirmed:
    """Entries that the broker confirmed in publications that failed as a whole."""

    ids: dict[Position, str] = field(default_factory=dict)
    """The event's id at each position: another event may stand there after the store was restored."""
    unroutable: int = 0

    def __contains__(self, entry: JournalEntry) -> bool:
        return self.ids.get(entry.position) == entry.event.id


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries that were published or set aside together."""

    entries: Sequence[JournalEntry]
    published: int
    unroutable: int
    """How many of the published ones no queue wanted."""


class Relay:
    """Publishes what the journal has beyond its mark.

    The mark moves only when the broker has confirmed a whole batch: a crash in between repeats events of that batch,
    with the same ids, and never loses one. If the store cannot move the mark, nothing is repeated: the relay remembers
    what was published, and moves the mark first. What the broker confirmed of a batch that failed is not published
    again either, as long as this relay lives. Entries in `recent` are not read from the journal.

    What the broker never accepts is set aside as a dead letter of the relay before the mark moves; the rest goes on.
    """

    def __init__(
        self, store: Store, broker: Broker, clock: Clock, *, batch: int = BATCH, recent: RecentEntries | None = None
    ) -> None:
        self._ledger = store
        self._broker = broker
        self._dead_letters = RelayDeadLetters(store, broker, clock)
        self._uninterrupted: set[str] = set()
        """The sources whose last batch was marked: nothing behind their marks can be set aside already."""
        self._batch = batch
        self._recent = recent
        self._published_unconfirmed: dict[str, _Batch] = {}
        """By source: what the broker has, or does not accept, and the mark does not cover yet."""
        self._confirmed: dict[str, _Confirmed] = {}
        """By source: what the broker confirmed of the last batch, where that batch failed."""

    async def drain(self, lease: Lease, source: str) -> RelayResult:
        """Publish until nothing is left; raises `Unavailable` or `LeaseLost`, and then all marks are right."""
        result = RelayResult()
        await self._mark_published(lease, source, result)
        state = await self._ledger.journal(source)
        result.upto = state.confirmed
        if not state.backlog:
            return result
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
        publishable = entries
        if source not in self._uninterrupted:
            publishable = await self._dead_letters.without_known(source, entries)
        self._uninterrupted.discard(source)
        confirmed = self._confirmed.get(source, _Confirmed())
        unconfirmed = [entry for entry in publishable if entry not in confirmed] if confirmed.ids else publishable
        published, unroutable = len(publishable), confirmed.unroutable
        try:
            if unconfirmed:
                unroutable += await self._broker.publish(unconfirmed)
        except PartlyPublished as error:
            self._note_confirmed(source, unconfirmed, error)
            raise
        except Unpublishable as error:
            # A crash here publishes this batch again, as a crash before the mark does, and sets aside the same.
            await self._dead_letters.set_aside(unconfirmed, error.reasons)
            published, unroutable = published - len(error.reasons), unroutable + error.unroutable
        # A crash here publishes this batch again, with the same ids, without what is set aside.
        self._published_unconfirmed[source] = _Batch(entries, published, unroutable)
        await self._mark(lease, source, result)
        self._uninterrupted.add(source)

    def _note_confirmed(self, source: str, entries: Sequence[JournalEntry], error: PartlyPublished) -> None:
        confirmed = self._confirmed.setdefault(source, _Confirmed())
        confirmed.ids |= {entry.position: entry.event.id for entry in entries if entry.position in error.confirmed}
        confirmed.unroutable += error.unroutable

    async def _mark_published(self, lease: Lease, source: str, result: RelayResult) -> None:
        """Mark what was published while the store could not move the mark, unless its entries have changed since."""
        if source in self._published_unconfirmed:
            last = self._published_unconfirmed[source].entries[-1]
            if list(await self._ledger.entries([last.position])) == [last]:
                await self._mark(lease, source, result)
            else:
                del self._published_unconfirmed[source]

    async def _mark(self, lease: Lease, source: str, result: RelayResult) -> None:
        batch = self._published_unconfirmed[source]
        upto = batch.entries[-1].position.seq
        await self._ledger.confirm(lease, source, upto, batch.unroutable)
        del self._published_unconfirmed[source]
        self._confirmed.pop(source, None)
        result.published += batch.published
        result.set_aside += len(batch.entries) - batch.published
        result.unroutable += batch.unroutable
        result.upto = upto
