"""Signed webhooks: from a queue on RabbitMQ through charge, claim, post and settlement, beside a bare loop of posts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from benchmarks.rig import SECRET, Rig, Sides, until
from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Observed, Position, Transition, WireEvent, event_id
from bridge.domain.events.govdelivery import RecipientData, RecipientSent
from bridge.protocols.ledger import Commit

CONCURRENCY = 16
_HEADERS = {"Content-Type": "application/cloudevents+json", "webhook-id": "0" * 32, "webhook-timestamp": "1700000000"}


def events(count: int, *, source: str = "a", message: int = 1) -> list[WireEvent]:
    """Return events as our own intake makes them."""
    now = Clock().now()
    uri, path = f"/govdelivery/{source}", f"/messages/sms/{message}"
    made = []
    for number in range(count):
        subject = f"{path}/recipients/{number}"
        data = RecipientData(
            channel="sms", status="sent", previous="sending", transition=Transition.ADVANCE,
            observed=Observed(after=now, by=now), message=path, phone=f"+1651{number:07d}", completed_at=now,
        )  # fmt: skip
        event = RecipientSent.of(
            id=event_id(uri, subject, "sent", 0),
            source=uri,
            subject=subject,
            time=now,
            recordedtime=now,
            data=data,
        )
        made.append(event.to_wire())
    return made


async def queue(rig: Rig, wire_events: Sequence[WireEvent], sink: str) -> None:
    """Have these events committed, and waiting in a sink's queue."""
    broker = KombuBroker(rig.rabbitmq.url, exchange="bridge.events", clock=Clock())
    try:
        async with rig.store() as store:
            await broker.declare(f"bridge.sink.{sink}", ["#"])
            for start in range(0, len(wire_events), 500):
                batch = wire_events[start : start + 500]
                last = await store.commit(None, Commit("a", events=batch))
                first = last - len(batch) + 1
                await broker.publish(
                    [JournalEntry(Position("a", first + index), event) for index, event in enumerate(batch)]
                )
    finally:
        await broker.close()


async def bare(url: str, wire_events: Sequence[WireEvent], concurrency: int) -> float:
    """Post ready bytes, as many at once as the sink does; return posts a second."""
    waiting = list(wire_events)

    async def post(session: aiohttp.ClientSession) -> None:
        while waiting:
            async with session.post(url, data=waiting.pop().body, headers=_HEADERS) as response:
                assert response.status == 200
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(post(session) for _ in range(concurrency)))
        return len(wire_events) / (time.perf_counter() - started)


async def ours(rig: Rig, wire_events: Sequence[WireEvent]) -> float:
    """Let the real process deliver what waits in the queue; return events settled a second."""
    rig.reset()
    await queue(rig, wire_events, "crm")
    config = rig.config(
        "webhooks",
        sources={"a": rig.source(["/messages/sms/1"])},
        sinks={"crm": {
            "type": "webhook", "topics": ["#"], "url": f"{rig.far.url}/hook", "secret": SECRET, "allow_private": True,
            "concurrency": CONCURRENCY,
        }},
    )  # fmt: skip
    before = rig.far.posts()
    async with rig.store() as store:

        async def settled() -> int:
            return sum(counts.delivered for counts in (await store.counts("crm")).values())

        async def begun() -> bool:
            return await settled() >= len(wire_events) // 10

        async def done() -> bool:
            return await settled() >= len(wire_events)

        with rig.bridge(config, "sink"):
            await until(begun, "the first events settled", poll_seconds=0.005)
            first, started = await settled(), time.perf_counter()
            await until(done, "all events settled", poll_seconds=0.005)
            seconds = time.perf_counter() - started
    assert rig.far.posts() - before == len(wire_events), "each event is posted once"
    return (len(wire_events) - first) / seconds


def measure(rig: Rig) -> Sides:
    """Let both take turns."""
    sides = Sides()
    wire_events = events(rig.scale.of(12_000, 2_000))
    for _ in range(rig.scale.of(3, 1)):
        sides.add("ours", asyncio.run(ours(rig, wire_events)))
        sides.add("bare", asyncio.run(bare(f"{rig.far.url}/hook", wire_events, CONCURRENCY)))
    return sides
