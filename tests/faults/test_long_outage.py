"""A receiver that is down for a whole day, on a clock that jumps: what waits arrives, in order, and disturbs nobody."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from harness import until

from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.runtime.service import Service
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.fake_endpoint import FakeEndpoint, reply, silence

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

STEP = 1800.0
STEPS = 48
"""Half hours: a day."""
EVENTS = 40
"""New ones in each half hour."""
PEOPLE = 8
"""They are about so many messages: each has five more events in each half hour."""
FASTER = 20.0
GROWTH = 32 * 2**20


@dataclass
class Ahead:
    """A clock that runs at the pace of time, sleeps twenty times faster, and is set ahead by hand."""

    seconds: float = 0.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(
            now=lambda: datetime.now(UTC) + timedelta(seconds=self.seconds),
            monotonic=lambda: time.monotonic() + self.seconds,
            sleep=lambda seconds: asyncio.sleep(seconds / FASTER),
        )


class Taker(FakeEndpoint):
    """Remembers what it has answered with 200, in order."""

    def __init__(self) -> None:
        super().__init__(default=self._take)
        self.received: list[dict[str, Any]] = []

    async def _take(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.clear()
        event = json.loads(await request.read())
        if event["data"]["channel"] != "bridge":
            self.received.append(event)
        return web.Response()

    def takes(self) -> None:
        """Take again what comes."""
        self.default = self._take


def webhook(receiver: FakeEndpoint, **settings: Any) -> dict[str, Any]:
    return {"type": "webhook", "topics": ["#"], "url": receiver.url, "allow_private": True, **settings}


@asynccontextmanager
async def running(
    folder: Path, simulator: Simulator, ahead: Ahead, **config: Any
) -> AsyncIterator[tuple[Service, Any]]:
    """Run the service in this process, on real servers and on the clock that jumps."""
    polled = {
        "journeys": sources(simulator.urls, simulator.settings)["journeys"] | {"interval": "1s", "rate": "1000/s"}
    }
    path = folder / "bridge.yaml"
    path.write_text(yaml.safe_dump({"sources": polled, "http": {"listen": None}, **config}))
    parts = build(Assembly(load(path), ahead.clock))
    service, stop = Service(parts, ahead.clock), asyncio.Event()
    task = asyncio.ensure_future(service.run(stop))
    try:
        yield service, parts.store
    finally:
        stop.set()
        await task


def resident() -> int:
    """Return the memory of this process that is in use, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_receiver_after_a_days_outage_gets_everything_in_order(tmp_path, redis_url, rabbitmq_url, capfd):
    ahead, made = Ahead(), 0
    async with Simulator(SimulatorSettings.still()) as simulator, Taker() as down, Taker() as well:
        keys = [simulator.world.add_send_event().message_key for _ in range(PEOPLE)]
        made += PEOPLE
        sinks = {"crm": webhook(down, ordered=True, send_timeout="300ms"), "ops": webhook(well)}
        async with running(tmp_path, simulator, ahead, store=redis_url, broker=rabbitmq_url, sinks=sinks) as (
            service,
            store,
        ):
            await until(lambda: len(down.received) == len(well.received) == PEOPLE, "both are told while both are well")
            crm, most_in_flight, memory = service.sinks.workers["crm"], 0, []
            port = down.port
            for step in range(STEPS):
                await _be_down(down, step, port)
                ahead.seconds += STEP
                for number in range(EVENTS):
                    simulator.world.add_send_event(message_key=keys[number % PEOPLE])
                made += EVENTS
                tried = service.process.metrics.deliveries.labels("crm", "waits")._value.get()
                started = time.monotonic()
                await until(partial(_all_received, well, made), "the one that is well has all of it", within=120)
                assert time.monotonic() - started < 5, "it does not wait for the other"
                # A request that the clock overtakes would be made once more: nothing is under way when the clock is set.
                await until(partial(_settled, store, "ops", made), "the store knows that it has all of it", within=120)
                await until(partial(_waits, store, made), "the rest waits in the store", within=120)
                await until(
                    lambda tried=tried: service.process.metrics.deliveries.labels("crm", "waits")._value.get() > tried,
                    "somebody asks whether it is back",
                    within=120,
                )
                most_in_flight = max(most_in_flight, crm.in_flight)
                memory.append(resident())
            tries = int(service.process.metrics.deliveries.labels("crm", "waits")._value.get())
            spent = [len(delivery.attempts) for delivery in await store.deliveries("crm", limit=10_000)]
            assert len(down.received) == PEOPLE, "it really was down"
            assert crm.paused
            begun = ahead.seconds, time.monotonic()
            down.takes()
            while len(down.received) < made:
                had = len(down.received)
                try:
                    await until(lambda had=had: len(down.received) > had, "more of it arrives", within=1)
                except TimeoutError:
                    # A minute at a time: what the far side was asked last may wait for its schedule.
                    assert ahead.seconds - begun[0] < 3600
                    ahead.seconds += 60
            took = ahead.seconds - begun[0] + time.monotonic() - begun[1]
            await until(partial(_settled, store, "crm", made), "the books are complete")
    with capfd.disabled():
        print(
            f"\na day down: {made - PEOPLE:,} events waited, after {tries} tries of which {sum(spent)} were counted; all there "
            f"{took / 60:.0f} minutes after it was back; at most {most_in_flight} in flight; "
            f"memory {memory[8] / 2**20:.0f} MiB after four hours, {memory[-1] / 2**20:.0f} MiB at the end"
        )
    # A few were tried before it was clear that the far side is away; no event has spent its schedule on that.
    assert max(spent) <= 2
    assert Counter(event["id"] for event in down.received) == Counter(event["id"] for event in well.received)
    assert max(Counter(event["id"] for event in down.received).values()) == 1
    assert _by_subject(down.received) == {key: sorted(events) for key, events in _by_subject(well.received).items()}
    assert len(_by_subject(down.received)) == PEOPLE
    assert memory[-1] - memory[8] < GROWTH


async def _be_down(receiver: Taker, step: int, port: int) -> None:
    """Refuse connections for eight hours, answer 503 for the next eight, and nothing at all for the last."""
    if step == 0:
        await receiver.stop()
    elif step == STEPS // 3:
        receiver.default = reply(503)
        await receiver.start(port)
    elif step == 2 * STEPS // 3:
        receiver.default = silence()


async def _all_received(receiver: Taker, made: int) -> bool:
    return len(receiver.received) == made


async def _waits(store: Any, made: int) -> bool:
    counts = (await store.counts("crm"))["journeys"]
    return counts.waiting == made - PEOPLE and counts.delivered == PEOPLE


async def _settled(store: Any, sink: str, made: int) -> bool:
    counts = (await store.counts(sink))["journeys"]
    return (counts.delivered, counts.waiting) == (made, 0)


def _by_subject(events: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Return the provider's ids of the occurrences, in the order in which they came, for each message."""
    by_subject: dict[str, list[int]] = defaultdict(list)
    for event in events:
        by_subject[event["subject"]].append(int(event["data"]["event_id"]))
    return dict(by_subject)
