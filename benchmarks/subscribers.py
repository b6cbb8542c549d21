"""Events handed to a service: the loop of `bridge.client` beside a bare kombu consumer that parses and acknowledges."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import kombu

from benchmarks.ingest import BATCH
from benchmarks.rig import EXCHANGE, Rig, Sides
from bridge.adapters.kombu.broker import KombuBroker
from bridge.client import RecipientData, RecipientSent, Transition, subscribe
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position

QUEUES = ("bench.ours", "bench.bare")
PREFETCH_MESSAGES = 100


def entries(count: int) -> list[JournalEntry]:
    """Return events as the relay publishes them."""
    now = Clock().now()
    made = []
    for number in range(count):
        subject = f"/messages/sms/1/recipients/{number}"
        data = RecipientData(
            channel="sms", status="sent", previous="sending", transition=Transition.ADVANCE, message="/messages/sms/1"
        )
        event = RecipientSent.of(
            id=f"{number:032x}", source="/govdelivery/city", subject=subject, time=now, recordedtime=now, data=data
        )
        made.append(JournalEntry(Position("bench", number), event.to_wire()))
    return made


async def fill(url: str, events: Sequence[JournalEntry]) -> None:
    """Put the events into both queues."""
    broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock())
    try:
        for queue in QUEUES:
            await broker.declare(queue, ["#"])
        for start in range(0, len(events), BATCH):
            assert await broker.publish(events[start : start + BATCH]) == 0
    finally:
        await broker.close()


async def ours(url: str, count: int) -> float:
    """Take all events by a subscription, with its deduplication; return events a second."""
    seen = 0
    subscription = subscribe(url, queue=QUEUES[0], exchange=EXCHANGE, prefetch=PREFETCH_MESSAGES)
    started = time.perf_counter()
    async with subscription as events:
        async for event in events:
            assert isinstance(event, RecipientSent)
            seen += 1
            if seen == count:
                events.stop()
    return count / (time.perf_counter() - started)


def bare(url: str, count: int) -> float:
    """Take all events by kombu alone: parse the body, acknowledge; return events a second."""
    seen = 0

    def take(_body: Any, message: kombu.Message) -> None:
        nonlocal seen
        assert json.loads(message.body)["id"]
        message.ack()
        seen += 1

    started = time.perf_counter()
    with kombu.Connection(url) as connection:
        queue = kombu.Queue(QUEUES[1], no_declare=True)
        with connection.Consumer([queue], callbacks=[take], accept=None, prefetch_count=PREFETCH_MESSAGES):
            while seen < count:
                connection.drain_events(timeout=10)
    return count / (time.perf_counter() - started)


def measure(rig: Rig) -> dict[str, Sides]:
    """Let both take turns, on RabbitMQ and on Redis."""
    measured = {}
    events = entries(rig.scale.of(20_000, 2_000))
    for name, url in (("RabbitMQ", rig.rabbitmq.url), ("Redis", rig.redis.url)):
        rig.reset()
        sides = measured[name] = Sides()
        for _ in range(rig.scale.rounds):
            asyncio.run(fill(url, events))
            sides.add("ours", asyncio.run(ours(url, len(events))))
            sides.add("bare", bare(url, len(events) // 4))
    return measured
