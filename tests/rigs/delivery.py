"""A store, a broker and one sink whose deliveries a test drives."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.coordination.gates import Gate
from bridge.delivery.sending import Outcome
from bridge.delivery.worker import DeliveryBackends, DeliveryWorker
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import Event, Position, WireEvent
from bridge.protocols.deliveries import Delivery as Waiting
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit
from bridge.protocols.sink import Outgoing, SinkSettings
from bridge.relay.relay import Relay
from bridge.testing.fakes import KeepingSink


def event(number: int, *, partition: str = "/r/1", topic: str = "sms.recipient.failed") -> WireEvent:
    body = json.dumps({"id": f"e{number}", "partitionkey": partition, "n": number}).encode()
    return WireEvent(f"e{number}", topic, 1_700_000_000, body)


class Store(SqliteStore):
    """A store that can be away for those who claim, and for those who settle, and answer late to those who accept."""

    away = False
    settles = True
    late: asyncio.Event | None = None
    """Set: what was accepted is answered when the event says so."""
    accepted = 0

    async def accept(self, sink: str, deliveries: Sequence[NewDelivery], until: float) -> Sequence[Position]:
        positions = await super().accept(sink, deliveries, until)
        self.accepted += len(positions)
        if self.late is not None:
            await self.late.wait()
        return positions

    async def settle(self, sink: str, positions: Sequence[Position]) -> int:
        if not self.settles:
            raise Unavailable("the store is away")
        return await super().settle(sink, positions)

    async def next_due(self, sink: str) -> float | None:
        if self.away:
            raise Unavailable("the store is away")
        return await super().next_due(sink)

    async def claim(self, sink: str, now: float, until: float, limit: int) -> Sequence[Waiting]:
        if self.away:
            raise Unavailable("the store is away")
        return await super().claim(sink, now, until, limit)


class World:
    """A store, a broker and one sink, driven by a test."""

    def __init__(self, store: Store, broker: SqliteBroker) -> None:
        self.store = store
        self.broker = broker
        self.sink = KeepingSink()
        self.settings = SinkSettings(type="keeping", topics=["#"], retry=["5s", "5s"])
        self.outcomes: list[str] = []
        self.disabled: list[str] = []
        self.reported: list[str] = []
        self.moments: list[datetime] = []
        self.unreported = 0
        self.filtered = 0
        self.unsent: Counter[str] = Counter()
        self.gate = Gate()
        self.offset = 0.0
        self.slept = 0.0
        self.clock = Clock(
            now=lambda: datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.offset, UTC),
            monotonic=lambda: time.monotonic() + self.slept,
        )

    def set(self, **changes) -> None:
        self.settings = SinkSettings.model_validate(
            {"type": "keeping", "topics": ["#"], "retry": ["5s", "5s"]} | changes
        )

    def delivery(self) -> DeliveryWorker:
        async def send(claimed) -> None:
            await self.sink.send(
                Outgoing(claimed.event, claimed.attempts + 1, lambda body: Event.model_construct(id=body))
            )

        async def changed(state: str, reason: str, at: datetime) -> None:
            self.moments.append(at)
            if self.unreported:
                self.unreported -= 1
                raise Unavailable("the store is away")
            self.disabled.append(reason)
            self.reported.append(state)

        def outcome(reported: Outcome) -> None:
            self.outcomes.append(reported.result)

        def filtered(number: int) -> None:
            self.filtered += number

        def unsent(kind: str, number: int) -> None:
            self.unsent[kind] += number

        stores = DeliveryBackends(self.store, self.store, self.broker)
        return DeliveryWorker(
            "crm", self.settings, stores, self.clock, send=send, outcome=outcome, changed=changed, filtered=filtered,
            unsent=unsent, gate=self.gate,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self, grace: float = 5.0) -> AsyncIterator[DeliveryWorker]:
        delivery, stop = self.delivery(), asyncio.Event()
        task = asyncio.ensure_future(delivery.run(stop, grace=grace))
        try:
            yield delivery
        finally:
            stop.set()
            await task

    async def publish(self, *events: WireEvent) -> None:
        await self.broker.declare("bridge.sink.crm", self.settings.topics)
        await self.store.commit(None, Commit("city", events=events))
        lease = await self.store.acquire("relay/city", "me", 60)
        await Relay(self.store, self.broker, self.clock).drain(lease, "city")

    async def positions(self) -> list[Position]:
        return [entry.position for entry in await self.store.read("city", 0, 1000)]

    async def is_acknowledged(self) -> bool:
        """Return whether all that was published has left the queue."""
        return await self.broker.depth("bridge.sink.crm") == 0

    async def until(self, condition: Callable[[], object], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while True:
                holds = condition()
                if asyncio.iscoroutine(holds):
                    holds = await holds
                if holds:
                    return
                await asyncio.sleep(0.01)

    async def delivered(self, count: int) -> None:
        async def settled() -> bool:
            return sum(counts.delivered for counts in (await self.store.counts("crm")).values()) == count

        await self.until(settled)
