"""Redis as broker: our transaction for each batch beside kombu's own `Producer.batch()`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import kombu
import redis

from benchmarks.ingest import BATCH, bodies
from benchmarks.rig import EXCHANGE, Rig, Sides
from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position, WireEvent

QUEUES = ("bench.a", "bench.b", "bench.c")
"""Of three queues, two want what is published."""
_TOPIC = "sms.recipient.sent"


def bare(url: str, events: Sequence[bytes]) -> float:
    """Publish ready bytes by kombu, a batch of pipelined pushes at a time; return events a second."""
    exchange = kombu.Exchange(EXCHANGE, type="topic", durable=True)
    with kombu.Connection(url) as connection:
        producer = kombu.Producer(connection.default_channel, exchange=exchange, auto_declare=False)
        started = time.perf_counter()
        for start in range(0, len(events), BATCH):
            with producer.batch():
                for body in events[start : start + BATCH]:
                    producer.publish(
                        body, routing_key=_TOPIC, content_type="application/cloudevents+json",
                        content_encoding="utf-8", delivery_mode=2, message_id="0" * 32,
                    )  # fmt: skip
        return len(events) / (time.perf_counter() - started)


async def ours(url: str, events: Sequence[bytes]) -> float:
    """Publish the same through our broker; return events a second."""
    broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock())
    entries = [
        JournalEntry(Position("bench", number), WireEvent("0" * 32, _TOPIC, 1_700_000_000, body))
        for number, body in enumerate(events, 1)
    ]
    try:
        for name, topics in zip(QUEUES, (["#"], ["sms.*.sent"], ["voice.#"]), strict=True):
            await broker.declare(name, topics)
        started = time.perf_counter()
        for start in range(0, len(entries), BATCH):
            assert await broker.publish(entries[start : start + BATCH]) == 0
        return len(entries) / (time.perf_counter() - started)
    finally:
        await broker.close()


def measure(rig: Rig) -> Sides:
    """Let both take turns."""
    sides = Sides()
    rig.reset()
    events = bodies(rig.scale.of(20_000, 2_000))
    asyncio.run(ours(rig.redis.url, events[:1]))  # the bindings, for both
    for _ in range(rig.scale.rounds):
        sides.add("ours", asyncio.run(ours(rig.redis.url, events)))
        sides.add("bare", bare(rig.redis.url, events[: len(events) // 4]))
        with redis.Redis(port=rig.redis.port) as client:
            client.delete(*QUEUES)
    return sides
