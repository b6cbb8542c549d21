"""The books of the sinks: what the journal has and a sink never settled is offered to it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bridge import topics
from bridge.broker import QUEUE_PREFIX, Broker
from bridge.clock import Clock
from bridge.delivery import lane_of
from bridge.event import Entry
from bridge.ledger import Ledger
from bridge.settlement import Arrival, Settlements
from bridge.sink import SinkSettings

_BATCH = 1000


@dataclass(slots=True)
class Account:
    """What one look into one sink's books of one source found."""

    missing: int = 0
    """Events that the sink should have and nobody knows of: still in its queue, or lost there."""
    offered: int = 0
    """How many of them are taken for lost and were put to the store's deliveries, due at once."""


class Audit:
    """Compares the journal with the deliveries of each sink, behind everything else.

    A queue that was purged, a broker that lost its memory, a queue that was not bound yet: whatever became of an event
    on its way, the journal still has it. Only what the broker had confirmed by the time of the look before is looked
    at, and of that what is overdue: later events of the same source have arrived, or the queue is empty.
    """

    def __init__(self, ledger: Ledger, settlements: Settlements, broker: Broker, clock: Clock) -> None:
        self._ledger = ledger
        self._settlements = settlements
        self._broker = broker
        self._clock = clock
        self._confirmed: dict[tuple[str, str], int] = {}

    async def open_books(self, sink: str) -> None:
        """Start the books of a sink that is new to the store: events from now on are its own."""
        for source in await self._ledger.sources():
            await self._settlements.raise_floor(sink, source, (await self._ledger.journal(source)).committed)

    async def look(self, sink: str, settings: SinkSettings) -> Account:
        """Look through all sources once; call it at intervals longer than a message needs from broker to store."""
        total = Account()
        for source in await self._ledger.sources():
            key = (sink, source)
            confirmed = (await self._ledger.journal(source)).confirmed
            settled_by_now, self._confirmed[key] = self._confirmed.get(key, 0), confirmed
            found = await self.account(sink, settings, source, settled_by_now, offer=True)
            total.missing += found.missing
            total.offered += found.offered
        return total

    async def account(self, sink: str, settings: SinkSettings, source: str, upto: int, *, offer: bool) -> Account:
        """Account for everything of `source` up to `upto`, and with `offer` put what is lost among the deliveries."""
        found = Account()
        after = await self._settlements.floor(sink, source)
        complete = True
        while after < upto:
            entries = [one for one in await self._ledger.read(source, after, _BATCH) if one.position.seq <= upto]
            if not entries:
                break
            wanted = [one for one in entries if topics.matches(settings.topics, one.event.topic)]
            missing = await self._missing(sink, source, wanted)
            found.missing += len(missing)
            if missing and offer:
                lost = await self._lost(sink, wanted, missing)
                now = self._clock.epoch()
                found.offered += await self._settlements.offer(
                    sink, [Arrival(one.position, lane_of(one.event) if settings.ordered else None) for one in lost], now
                )
                complete = complete and len(lost) == len(missing)
            elif missing:
                complete = False
            after = entries[-1].position.seq
            if complete:
                await self._settlements.raise_floor(sink, source, after)
        return found

    async def _missing(self, sink: str, source: str, wanted: Sequence[Entry]) -> set[int]:
        if not wanted:
            return set()
        return set(await self._settlements.unaccounted(sink, source, [one.position.seq for one in wanted]))

    async def _lost(self, sink: str, wanted: Sequence[Entry], missing: set[int]) -> list[Entry]:
        overdue = [one for one in wanted if one.position.seq in missing]
        if await self._broker.depth(QUEUE_PREFIX + sink) == 0:
            return overdue
        # A queue keeps the order of one source: what is missing before something that arrived will not arrive.
        arrived = max((one.position.seq for one in wanted if one.position.seq not in missing), default=0)
        return [one for one in overdue if one.position.seq < arrived]
