"""Carries the journal of a source to the broker, and marks how far the broker has confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.broker import Broker
from bridge.event import Entry
from bridge.fresh import Fresh
from bridge.ledger import Lease, Ledger

BATCH = 500


@dataclass(slots=True)
class Relayed:
    """What one run of the relay came to."""

    published: int = 0
    unroutable: int = 0
    upto: int = 0


class Relay:
    """Publishes what the journal has beyond its mark.

    The mark moves only when the broker has confirmed a whole batch: a crash in between repeats events of that batch,
    with the same ids, and never loses one. What is `fresh` is not read back from the journal.
    """

    def __init__(self, ledger: Ledger, broker: Broker, *, batch: int = BATCH, fresh: Fresh | None = None) -> None:
        self._ledger = ledger
        self._broker = broker
        self._batch = batch
        self._fresh = fresh

    async def drain(self, lease: Lease, source: str) -> Relayed:
        """Publish until nothing is left; raises `Unavailable` or `LeaseLost`, with all marks where they belong."""
        done = Relayed(upto=(await self._ledger.journal(source)).confirmed)
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

    async def _read(self, source: str, after: int) -> Sequence[Entry]:
        if self._fresh is not None and (entries := self._fresh.take(after, self._batch)):
            return entries
        return await self._ledger.read(source, after, self._batch)

    async def _publish(self, lease: Lease, source: str, entries: Sequence[Entry], done: Relayed) -> None:
        unroutable = await self._broker.publish(entries)
        # A crash here publishes this batch again, with the same ids.
        upto = entries[-1].position.seq
        await self._ledger.confirm(lease, source, upto, unroutable)
        done.published += len(entries)
        done.unroutable += unroutable
        done.upto = upto
