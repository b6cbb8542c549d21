"""Two replicas whose clocks jump and whose networks are cut: never two events for one transition, and none missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.witness import Witness
from harness import consuming_rabbitmq, differences, until

from bridge.adapters.redis.store import RedisStore
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.runtime.assembly import Assembly
from bridge.runtime.parts import build
from bridge.runtime.service import Service
from bridge.simulator import Simulator, SimulatorSettings
from bridge.simulator.config_snippet import sources
from bridge.testing.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

RECIPIENTS = 30
LEASE = 2.0
JUMPS = [7200, -7200, 86_400, -86_400, 40, -40, -10_800, 10_800]
"""Seconds; each replica's wall clock is set so, one after the other."""


@dataclass
class Set:
    """A wall clock that is set by hand; what counts seconds goes on as ever."""

    seconds: float = 0.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(now=lambda: datetime.now(UTC) + timedelta(seconds=self.seconds))


@dataclass
class Replica:
    """A service in this process, with a clock and a way to the store of its own."""

    service: Service
    wall: Set
    relay: TcpProxy

    def polls(self) -> bool:
        """Whether this one polls every source."""
        return bool(self.service.sources.states) and set(self.service.sources.states.values()) == {"ok"}


@asynccontextmanager
async def replica(folder: Path, name: str, store: str, **config: Any) -> AsyncIterator[Replica]:
    wall = Set()
    async with TcpProxy(int(store.rpartition(":")[2].partition("/")[0])) as relay:
        path = folder / f"{name}.yaml"
        own = {"store": f"redis://127.0.0.1:{relay.port}/0", "http": {"listen": None}}
        path.write_text(yaml.safe_dump({**own, **config}))
        service, stop = Service(build(Assembly(load(path), wall.clock)), wall.clock), asyncio.Event()
        task = asyncio.ensure_future(service.run(stop))
        try:
            yield Replica(service, wall, relay)
        finally:
            relay.refuse(refuse=False)
            relay.resume()
            stop.set()
            await task


class Play:
    """What happens at the provider, and what has to be heard of it before anything else happens."""

    def __init__(self, simulator: Simulator, consumer: Any, witness: Witness) -> None:
        self._simulator, self._consumer, self._witness = simulator, consumer, witness
        world = simulator.world
        self._message = world.add_message("sms", RECIPIENTS, status="sending", recipient_status="sending")
        self._statuses = ("sent", "failed", "sending")
        self._step = 0

    async def goes_on(self) -> None:
        """Let every recipient move, a record and an event come, and wait until all of it was told."""
        world, status = self._simulator.world, self._statuses[self._step % 3]
        self._step += 1
        for index in range(RECIPIENTS):
            world.move(self._message.recipient(index), status)
        world.add_send_event()
        await until(lambda: not self._simulator.unseen(), "all was looked at", within=120)
        await until(lambda: not differences(self._simulator, self._consumer), "all is on the broker", within=120)
        await until(lambda: not self._witness.missing(self._simulator), "all was delivered", within=120)


async def test_replicas_with_jumping_clocks_publish_each_transition_once(tmp_path, redis_url, rabbitmq_url, capfd):
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(SimulatorSettings.still()))
        consumer = await stack.enter_async_context(consuming_rabbitmq(rabbitmq_url))
        witness = await stack.enter_async_context(Witness())
        polled = sources(simulator.urls, simulator.settings, interval="200ms")
        del polled["drops"]  # its window goes by the wall clock: hours from now there is nothing to see
        for source in polled.values():
            source["rate"] = "200/s"
        config = {
            "broker": rabbitmq_url, "lease": f"{LEASE:g}s", "claim": "3s", "audit": "1s",
            "sources": polled, "sinks": {"crm": witness.sink()},
        }  # fmt: skip
        pair = [await stack.enter_async_context(replica(tmp_path, name, redis_url, **config)) for name in ("a", "b")]
        play = Play(simulator, consumer, witness)
        await play.goes_on()
        for number, jump in enumerate(JUMPS):
            pair[number % 2].wall.seconds += jump
            await play.goes_on()
        takeovers = 0
        holder, other = reversed(pair) if pair[1].polls() else pair
        for number in range(6):
            await until(lambda: not other.polls(), "it knows that it polls no longer")  # noqa: B023 - awaited here
            if number % 2:
                holder.relay.stall()
            else:
                holder.relay.refuse()
                holder.relay.cut()
            await until(other.polls, "the other one takes over", within=120)
            takeovers += 1
            await play.goes_on()
            holder.relay.resume()
            holder.relay.refuse(refuse=False)
            await play.goes_on()
            holder, other = other, holder
        await until(lambda: _balanced(redis_url), "the books balance")
        unique_ids = len(set(consumer.ids))
    with capfd.disabled():
        print(
            f"\n{unique_ids} events under {len(JUMPS)} jumps of a clock and {takeovers} cuts of a network; "
            f"{len(consumer.ids) - unique_ids} of them twice on the broker, {sum(witness.repeated.values()) - len(witness.repeated)} "
            f"at the sink; {time.monotonic() - began:.0f} s"
        )
    transitions = {
        (event["subject"], event["data"]["status"], event["data"]["previous"], event["id"]) for event in consumer.events
    }
    assert len(transitions) == unique_ids
    assert {event["id"] for event in witness.events} >= {
        event["id"] for event in consumer.events if event["data"]["channel"] != "bridge"
    }
    assert not witness.changed
    for event in consumer.events:
        observed = event["data"]["observed"]
        by = datetime.fromisoformat(observed["by"])
        assert observed["after"] is None or datetime.fromisoformat(observed["after"]) <= by


async def _balanced(url: str) -> bool:
    store = RedisStore(url, clock=Clock())
    try:
        books = await store.counts("crm")
        journals = {name: (await store.journal(name)).events for name in await store.sources()}
    finally:
        await store.close()
    return {name: (counts.delivered, counts.waiting, counts.dead) for name, counts in books.items()} == {
        name: (events, 0, 0) for name, events in journals.items() if events
    }
