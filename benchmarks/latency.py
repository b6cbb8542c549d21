"""From commit to the sink's socket: at several loads, beside what RabbitMQ itself takes at the same load."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any

import kombu

from benchmarks.ingest import bodies
from benchmarks.rig import EXCHANGE, SECRET, Rig, until
from bridge.cli.commands.run import tune_gc
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.protocols.source import Observation, Page
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import ConfiguredSource, build
from bridge.runtime.service import Service
from bridge.sources.govdelivery.lifecycles import kinds

PAGE = 20


@dataclass(frozen=True, slots=True)
class Latency:
    """What one load came to, in milliseconds."""

    rate: float
    """Events a second."""
    ours: tuple[float, float]
    """p50 and p99 from the event's `recordedtime`, which is taken before the commit, to the receiver."""
    broker: tuple[float, float]
    """p50 and p99 from publishing to consuming, by kombu alone."""


class SteadyLoad:
    """A source whose resources change at an even pace, a page at a time; at no pace, as fast as they are taken."""

    retention = 86400.0
    behind = False

    def __init__(self, count: int, rate: float | None) -> None:
        self.problems: list[str] = []
        self._count = count
        self._rate = rate
        self._done = False
        _, self._kind = kinds("sms", {})

    async def pages(self, cursor: Mapping[str, str], watched: Sequence[str]) -> AsyncIterator[Page]:
        """Yield all pages, once."""
        del cursor, watched
        if self._done:
            return
        self._done = True
        clock, path = Clock(), "/messages/sms/1"
        started = time.perf_counter()
        for first in range(0, self._count, PAGE):
            if self._rate is not None:
                await asyncio.sleep(max(0.0, started + first / self._rate - time.perf_counter()))
            items: list[dict[str, Any]] = [
                {"formatted_phone": f"+1651{number:07d}", "status": "sent"} for number in range(first, first + PAGE)
            ]
            shown = [
                Observation(self._kind, path, str(first + index), "sent", item) for index, item in enumerate(items)
            ]
            yield Page(shown, clock.now())

    async def complete(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        """Return them as they are."""
        return observations

    async def close(self) -> None:
        """There is nothing to close."""


async def chain(rig: Rig, count: int, rate: float | None) -> tuple[float, list[float]]:
    """Run poll, relay and sink in this process; return events a second and the delays."""
    rig.reset()
    config = rig.config(
        "latency",
        sources={"a": rig.source(["/messages/sms/1"], interval="1s")},
        sinks={"crm": {
            "type": "webhook", "topics": ["#"], "url": f"{rig.far.url}/hook", "secret": SECRET, "allow_private": True,
            "concurrency": 32,
        }},
    )  # fmt: skip
    assembly = Assembly(load(config), Clock())
    parts = build(assembly)
    part = parts.sources["a"]
    source: Any = SteadyLoad(count, rate)
    service = Service(replace(parts, sources={"a": ConfiguredSource(part.kind, part.settings, source)}), assembly.clock)
    before, stop = rig.far.posts(), asyncio.Event()
    rig.far.time(on=True)
    running = asyncio.ensure_future(service.run(stop))

    async def done() -> bool:
        return await asyncio.to_thread(rig.far.posts) - before >= count

    async def begun() -> bool:
        return await asyncio.to_thread(rig.far.posts) > before

    try:
        await until(begun, "the first event at the receiver", poll_seconds=0.02)
        started, first = time.perf_counter(), rig.far.posts() - before
        await until(done, "all events at the receiver", poll_seconds=0.1)
        seconds = time.perf_counter() - started
    finally:
        stop.set()
        await running
        await part.source.close()
    return (count - first) / seconds, rig.far.time(on=False)


def through_the_broker(rig: Rig, count: int, rate: float) -> list[float]:
    """Publish ready bytes by kombu at this rate and consume them beside; return the delays."""
    rig.queue("latency")
    sent: list[float] = []
    delays: list[float] = []
    events = bodies(PAGE)

    def consume() -> None:
        with kombu.Connection(rig.rabbitmq.url) as connection:
            channel = connection.default_channel
            channel.basic_qos(0, 500, False)

            def take(message: Any) -> None:
                delays.append(time.perf_counter() - sent[int(message.properties["message_id"])])
                channel.basic_ack(message.delivery_tag)

            channel.basic_consume("latency", callback=take)
            while len(delays) < count:
                connection.drain_events(timeout=10)

    consumer = threading.Thread(target=consume)
    consumer.start()
    with kombu.Connection(rig.rabbitmq.url) as connection:
        channel = connection.default_channel
        channel.confirm_select()
        producer = kombu.Producer(channel, exchange=kombu.Exchange(EXCHANGE, type="topic"), auto_declare=False)
        started = time.perf_counter()
        for first in range(0, count, PAGE):
            time.sleep(max(0.0, started + first / rate - time.perf_counter()))
            for index, body in enumerate(events):
                sent.append(time.perf_counter())
                producer.publish(body, routing_key="sms.recipient.sent", delivery_mode=2, message_id=str(first + index))
    consumer.join(30)
    rig.drop("latency")
    return delays


def _shown(delays: Sequence[float]) -> tuple[float, float]:
    cuts = quantiles(delays, n=100)
    return cuts[49] * 1000, cuts[98] * 1000


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Collect garbage as `bridgectl run` does, which this process stands in for."""
    thresholds = gc.get_threshold()
    tune_gc()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def measure(rig: Rig) -> list[Latency]:
    """Find the full load, then take a quarter, half and three quarters of it."""
    latencies = []
    with _quiet_collector():
        full, _ = asyncio.run(chain(rig, rig.scale.of(15_000, 2_000), None))
        for share in (0.25, 0.5, 0.75):
            rate = full * share
            count = int(rate * rig.scale.of(12, 2)) // PAGE * PAGE
            _, delays = asyncio.run(chain(rig, count, rate))
            latencies.append(Latency(rate, _shown(delays), _shown(through_the_broker(rig, count, rate))))
    return latencies
