"""A broker that becomes another installation's while the process runs: nothing goes there, and `/readyz` says why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import redis
from harness import until, write_config

from bridge.adapters.kombu.broker import KombuBroker
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.installation import Mark
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.runtime.service import Service
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.fake_endpoint import FakeEndpoint

pytestmark = pytest.mark.faults

SAID_WITHIN_SECONDS = 15


async def test_a_mark_that_appears_at_a_reconnect_stops_publishing(tmp_path: Path, redis_url: str) -> None:
    clock = Clock()
    broker = KombuBroker(redis_url, exchange="bridge.events", clock=clock)
    async with Simulator(SimulatorSettings.still()) as simulator, FakeEndpoint() as receiver:
        webhook = {"type": "webhook", "topics": ["voicemail.#"], "url": receiver.url, "allow_private": True}
        config = write_config(tmp_path, simulator, broker=redis_url, sinks={"crm": webhook})
        service, stop = Service(build(Assembly(load(config), clock)), clock), asyncio.Event()
        running = asyncio.ensure_future(service.run(stop))
        try:
            first = simulator.world.add_drop()
            await until(lambda: arrived(receiver) == {first.path}, "work goes on")
            ours = await broker.mark()
            assert ours is not None
            await broker.take_over(Mark.new(Assembly(load(config)).config.names))
            with redis.Redis.from_url(redis_url) as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            second = simulator.world.add_drop()

            def is_said() -> bool:
                reasons = service.process.health.problems.values()
                return any("belongs to another installation" in reason for reason in reasons)

            await until(is_said, "the other mark is said", within=SAID_WITHIN_SECONDS)
            assert arrived(receiver) == {first.path}
            await broker.take_over(ours)
            await until(lambda: second.path in arrived(receiver), "work goes on")
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)
            await broker.close()


def arrived(receiver: FakeEndpoint) -> set[str]:
    return {json.loads(request.body)["subject"] for request in receiver.requests}
