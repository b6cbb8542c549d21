"""What the audit of a sink that is down asks of Redis, by Redis' own count."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from rigs.delivery import event

from bridge.adapters.redis.store import RedisStore
from bridge.delivery.audit import Audit
from bridge.domain.clock import Clock
from bridge.domain.event import Position
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit
from bridge.protocols.sink import SinkSettings

WAITING_EVENTS = 4000
AUDIT_EVERY_SECONDS = 10.0
MAX_QUESTIONS_A_SECOND = 50
SETTINGS = SinkSettings(type="keeping", topics=["#"])


@dataclass
class Queue:
    """A broker as the audit sees it: one queue, with so many messages."""

    messages: int = WAITING_EVENTS

    def sink_queue(self, sink: str) -> str:
        return f"bridge.sink.{sink}"

    async def depth(self, queue: str) -> int:
        return self.messages


async def _questions(store: RedisStore) -> int:
    """Return how many commands Redis has processed, those of scripts as well."""
    stats = await store._link.command("INFO", "commandstats")
    return sum(int(values["calls"]) for values in stats.values())


@pytest.mark.parametrize("waits_in", ["the queue", "the store"])
async def test_full_sink_costs_the_store_little(redis_url: str, waits_in: str) -> None:
    store = RedisStore(redis_url, clock=Clock())
    await store.open()
    lease = await store.acquire("relay/city", "us", 60)
    assert lease is not None
    last = 0
    for start in range(0, WAITING_EVENTS, 1000):
        last = await store.commit(None, Commit("city", events=[event(start + number) for number in range(1000)]))
    await store.confirm(lease, "city", last)
    if waits_in == "the store":
        every = [NewDelivery(Position("city", last - number)) for number in range(WAITING_EVENTS)]
        await store.enqueue("crm", every[::-1], 2e9)
    queue = Queue()
    audit = Audit(store, store, queue, Clock())  # type: ignore[arg-type] - it asks for nothing else
    first, second = [await audit.run("crm", SETTINGS) for _ in range(2)]
    assert first.missing == 0, "nothing was confirmed before the first audit"
    assert second.missing == (WAITING_EVENTS if waits_in == "the queue" else 0)
    for _ in range(3):
        before = await _questions(store)
        result = await audit.run("crm", SETTINGS)
        assert await _questions(store) - before < MAX_QUESTIONS_A_SECOND * AUDIT_EVERY_SECONDS
        assert (result.missing, result.offered) == (second.missing, 0)

    if waits_in == "the queue":
        # Half of it leaves the queue in order: one audit sees all of that.
        half = [Position("city", last - WAITING_EVENTS + 1 + number) for number in range(WAITING_EVENTS // 2)]
        await store.accept("crm", [NewDelivery(position) for position in half], 2e9)
        assert (await audit.run("crm", SETTINGS)).missing == WAITING_EVENTS // 2
        # Then the broker loses the rest, and later events arrive.
        queue.messages = 0
        await audit.run("crm", SETTINGS)
        result = await audit.run("crm", SETTINGS)
        assert (result.missing, result.offered) == (WAITING_EVENTS // 2, WAITING_EVENTS // 2)
        assert (await audit.run("crm", SETTINGS)).missing == 0
        assert await store.low_watermark("crm", "city") == last
    await store.close()
