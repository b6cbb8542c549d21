"""Many sources and many sinks in one process: the same work, spread over more of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers import depth_of
from benchmarks.remote_server import PAGE
from benchmarks.rig import SECRET, Rig, resident, until
from benchmarks.webhooks import events
from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position
from bridge.protocols.ledger import Commit


@dataclass(frozen=True, slots=True)
class Spread:
    """What one number of parts came to."""

    parts: int
    rate: float
    """Events (of sources) or deliveries (to sinks) a second, over all parts."""
    memory: int
    """Resident bytes of the process at the end."""


async def sources(rig: Rig, number: int, recipients: int) -> Spread:
    """Ingest so many recipients through so many sources."""
    rig.reset()
    per_source = max(PAGE, recipients // number)
    paths = rig.far.make(messages=number, recipients=per_source, phase="sending")
    config = rig.config(
        "many",
        sources={f"s{index}": rig.source([path], token=f"t{index}") for index, path in enumerate(paths)},
        sinks={"out": {"type": "stdout", "topics": ["#"]}},
    )
    total = number * (per_source + 1)
    # One passive declaration counts them all; asking each source's journal would be work beside the work.
    with depth_of(rig, "bridge.sink.out") as confirmed:

        async def begun() -> bool:
            return confirmed() > total // 20

        async def done() -> bool:
            return confirmed() >= total

        with rig.bridge(config, "poll", "relay") as process:
            await until(begun, "the first events confirmed", poll_seconds=0.05)
            first, started = confirmed(), time.perf_counter()
            await until(done, f"{total} events confirmed", poll_seconds=0.05)
            rate = (total - first) / (time.perf_counter() - started)
            return Spread(number, rate, resident(process.pid)["VmRSS"])


async def sinks(rig: Rig, number: int, deliveries: int) -> Spread:
    """Deliver so many events over so many sinks, each of which gets every event."""
    rig.reset()
    queued = events(deliveries // number)
    names = [f"k{index}" for index in range(number)]
    config = rig.config(
        "many",
        sources={"a": rig.source(["/messages/sms/1"])},
        sinks={name: {
            "type": "webhook", "topics": ["#"], "url": f"{rig.far.url}/hook", "secret": SECRET, "allow_private": True,
        } for name in names},
    )  # fmt: skip
    broker = KombuBroker(rig.rabbitmq.url, exchange="bridge.events", clock=Clock())
    async with rig.store() as store:
        try:
            for name in names:
                await broker.declare(f"bridge.sink.{name}", ["#"])
            for start in range(0, len(queued), 500):
                batch = queued[start : start + 500]
                first = await store.commit(None, Commit("a", events=batch)) - len(batch) + 1
                await broker.publish(
                    [JournalEntry(Position("a", first + index), count) for index, count in enumerate(batch)]
                )
        finally:
            await broker.close()

        async def settled() -> int:
            all_counts = [await store.counts(name) for name in names]
            return sum(count.delivered for counts in all_counts for count in counts.values())

        total = len(queued) * number

        async def begun() -> bool:
            return await settled() > total // 20

        async def done() -> bool:
            return await settled() >= total

        with rig.bridge(config, "sink") as process:
            await until(begun, "the first deliveries", poll_seconds=0.02)
            before, started = await settled(), time.perf_counter()
            await until(done, f"{total} deliveries", poll_seconds=0.02)
            rate = (total - before) / (time.perf_counter() - started)
            return Spread(number, rate, resident(process.pid)["VmRSS"])


def measure(rig: Rig) -> tuple[Sequence[Spread], Sequence[Spread]]:
    """Spread the work over 1, 50 and 500 sources, and over 1 and 50 sinks."""
    recipients, deliveries = rig.scale.of(25_000, 2_500), rig.scale.of(10_000, 1_000)
    of_sources = [asyncio.run(sources(rig, number, recipients)) for number in (1, 50, rig.scale.of(500, 50))]
    return of_sources, [asyncio.run(sinks(rig, number, deliveries)) for number in (1, rig.scale.of(50, 10))]
