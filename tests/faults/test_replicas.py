"""Several bridges on one store: one polls each source, and whoever was stopped, killed or replaced makes no second event."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults.witness import Witness, broken
from harness import Consumer, Process, bridge, consuming_rabbitmq, differences, expected, until, write_config

from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.domain.event import Position
from bridge.simulator import Simulator, SimulatorSettings
from bridge.testing.servers import RedisServer

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

LIVELY = SimulatorSettings(
    seed=21,
    speed=60.0,
    messages_per_minute=3.0,
    recipients_per_message=10.0,
    drops_per_minute=15.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=15.0,
    email_sends_per_minute=0.0,
    failed_share=0.2,
    late_share=0.05,
)
LEASE = 2.0
MARGIN = 3.0
"""What a takeover may take beyond the lease: looking for it, asking nothing for a moment, and a busy machine."""


@dataclass
class Scene:
    """Two consumers watching the same replicas: one on the broker, and the far side of a sink."""

    simulator: Simulator
    consumer: Consumer
    witness: Witness
    store: str
    config: Path
    folder: Path

    def replica(self, name: str) -> Any:
        return bridge(self.folder, "run", "-c", str(self.config), name=name)

    async def goes_on(self, more: int = 50, within: float = 120) -> None:
        arrived = len(self.consumer.events)
        await until(lambda: len(self.consumer.events) >= arrived + more, f"{more} more events are published", within)

    async def complete(self, *, died: bool = False) -> None:
        """Stop the world and wait until all is told; a process that `died` may have been shown what it did not write."""
        self.simulator.time.freeze()
        await until(lambda: not self.simulator.unseen(), "every resource was looked at", within=120)
        if died:
            await until(
                lambda: not broken(self.consumer.events, self.simulator), "the consumer has heard all", within=120
            )
            await until(lambda: not self.witness.broken(self.simulator), "the endpoint has received all", within=120)
        else:
            await until(
                lambda: not differences(self.simulator, self.consumer), "the consumer has heard all", within=120
            )
            await until(lambda: not self.witness.missing(self.simulator), "the endpoint has received all", within=120)
            assert len(set(self.consumer.ids)) == self.shown()

    async def holders(self) -> dict[str, str | None]:
        """Return who polls which source now."""
        store = RedisStore(self.store, clock=Clock())
        try:
            return {name: await store.holder(f"source/{name}") for name in ("city", "drops", "journeys")}
        finally:
            await store.close()

    async def holds_all(self, process: Process) -> bool:
        return await self.held_by(process) == len(await self.holders())

    async def holds_some(self, process: Process) -> bool:
        return await self.held_by(process) > 0

    async def held_by(self, process: Process) -> int:
        mark = f":{process.process.pid}:"
        return sum(bool(holder) and mark in holder for holder in (await self.holders()).values())

    def repeats(self) -> list[str]:
        """Return the ids that the consumer on the broker saw more than once."""
        return [event_id for event_id in set(self.consumer.ids) if self.consumer.ids.count(event_id) > 1]

    def shown(self) -> int:
        return sum(map(len, expected(self.simulator).values()))


@pytest.fixture
def keeps() -> Iterator[RedisServer]:
    with RedisServer(appendonly=True) as server:
        yield server


@asynccontextmanager
async def scene(folder: Path, store: RedisServer, broker: str, **values: Any) -> AsyncIterator[Scene]:
    async with Simulator(LIVELY) as simulator, Witness() as witness, consuming_rabbitmq(broker) as consumer:
        config = write_config(
            folder,
            simulator,
            store=store.url,
            broker=broker,
            sinks={"crm": witness.sink()},
            **{"lease": f"{LEASE:g}s", "claim": "2s", "audit": "1s", **values},
        )
        yield Scene(simulator, consumer, witness, store.url, config, folder)


def lost(process: Process) -> int:
    """Return how often a process has found a lease of its own to be lost, or its share to be others'."""
    return sum(line["event"] == "lease.lost" or bool(line.get("handed_over")) for line in process.log)


async def test_replica_stopped_past_its_lease_writes_nothing_stale(tmp_path, keeps, rabbitmq_url):
    async with scene(tmp_path, keeps, rabbitmq_url) as play:
        with play.replica("first") as first:
            await play.goes_on()
            with play.replica("second") as second:
                for _ in range(2):
                    before = lost(first), lost(second)
                    await until(lambda: play.holds_some(first), "the first polls its share", within=120)
                    await play.goes_on(20)
                    first.process.send_signal(signal.SIGSTOP)
                    await until(lambda: play.holds_all(second), "the second has taken over", within=120)
                    await play.goes_on()
                    first.process.send_signal(signal.SIGCONT)
                    await until(lambda before=before: lost(first) > before[0], "the first finds out", within=120)
                    await play.goes_on()
                    # And back, so that the first is stopped in other moments of its work too.
                    await until(lambda: play.holds_some(second), "the second polls its share", within=120)
                    second.process.send_signal(signal.SIGSTOP)
                    await until(lambda: play.holds_all(first), "the first has taken over", within=120)
                    second.process.send_signal(signal.SIGCONT)
                    await until(lambda before=before: lost(second) > before[1], "the second finds out", within=120)
                await play.complete(died=True)
                assert await asyncio.to_thread(first.stop) == 0
                assert await asyncio.to_thread(second.stop) == 0
        # One transition is one id. A relay stopped between publishing and marking repeats that batch, under the same ids.
        moves = Counter((event["subject"], event["data"]["status"], event["id"]) for event in play.consumer.events)
        assert len(moves) == len(set(play.consumer.ids)) == len({event["id"] for event in play.witness.events})
        # A replica stopped with deliveries in hand lets its claims run out: only those may come twice, unchanged.
        assert play.witness.changed == []
        assert all(count <= 2 for count in play.witness.times.values())


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_replica_takes_over_within_lease_or_at_clean_end(end, tmp_path, keeps, rabbitmq_url, record_property):
    # Whoever ends well gives its leases back: nobody waits for a long one to end.
    lease = LEASE if end == "kill" else 60.0
    async with scene(tmp_path, keeps, rabbitmq_url, lease=f"{lease:g}s") as play:
        with play.replica("first") as first:
            await play.goes_on()
            with play.replica("second") as second:
                await until(lambda: "bridge.starts" in second.err.read_text(), "the second is there")
                asked = time.monotonic()
                await asyncio.to_thread(first.kill if end == "kill" else first.stop)
                gone = time.monotonic()
                assert gone - asked < 10, "it ends as soon as its work in hand is done"
                arrived = len(play.consumer.events)
                await until(lambda: play.holds_all(second), "the second has taken over", within=120)
                takeover_seconds = time.monotonic() - gone
                await until(lambda: len(play.consumer.events) > arrived, "events go on", within=120)
                going = time.monotonic() - gone
                record_property("seconds to take over", round(takeover_seconds, 2))
                record_property("seconds to the next event", round(going, 2))
                assert takeover_seconds < (LEASE + MARGIN if end == "kill" else lease / 2)
                await play.complete(died=end == "kill")
                assert await asyncio.to_thread(second.stop) == 0
        if end == "stop":
            assert play.repeats() == []
            assert play.witness.repeated == {}


async def test_a_rolling_restart_leaves_no_gap_and_makes_nothing_twice(tmp_path, keeps, rabbitmq_url):
    async with scene(tmp_path, keeps, rabbitmq_url) as play:
        replicas = [Process(tmp_path, "run", "-c", str(play.config), name=f"old{number}") for number in range(2)]
        new_replicas: list[Process] = []
        try:
            await play.goes_on()
            for number, old in enumerate(replicas):
                new = Process(tmp_path, "run", "-c", str(play.config), name=f"new{number}")
                new_replicas.append(new)
                await until(lambda new=new: "bridge.starts" in new.err.read_text(), "the new one is there")
                assert await asyncio.to_thread(old.stop) == 0
                await play.goes_on(30, within=15)
            await play.complete()
            for new in new_replicas:
                assert await asyncio.to_thread(new.stop) == 0
        finally:
            for process in (*replicas, *new_replicas):
                process.kill()
        assert len(play.consumer.events) == len(set(play.consumer.ids)) == play.shown()
        assert play.witness.repeated == {}


async def test_separate_role_processes_do_the_work_of_one(tmp_path, keeps, rabbitmq_url):
    async with scene(tmp_path, keeps, rabbitmq_url) as play:
        roles = ("poll", "relay", "sink", "sink")
        processes = [
            Process(tmp_path, "run", "-c", str(play.config), "--role", role, name=f"{role}{number}")
            for number, role in enumerate(roles)
        ]
        try:
            await play.goes_on(100)
            await play.complete()
            for process in processes:
                assert await asyncio.to_thread(process.stop) == 0
        finally:
            for process in processes:
                process.kill()
        assert len(play.consumer.events) == len(set(play.consumer.ids)) == play.shown()
        assert play.witness.repeated == {}


async def test_cancelled_redis_call_ends_at_once(keeps):
    store = RedisStore(keeps.url, clock=Clock())
    await store.open()

    async def work() -> None:
        while True:
            await store.settle("crm", [Position("city", 1)])

    rng = random.Random(1)
    for _ in range(200):
        task = asyncio.ensure_future(work())
        await asyncio.wait([task], timeout=rng.random() * 0.005)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=60)
        assert done, "a cancellation was swallowed"
        assert task.cancelled()
    await store.close()
