"""A RabbitMQ cluster of three nodes loses some: publishing goes on where there is a majority, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rigs.rabbitmq_cluster import NODES, RabbitMQCluster

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import WireEvent
from bridge.domain.retry import RECONNECT, Backoff
from bridge.protocols.broker import Inbox
from bridge.protocols.ledger import Commit
from bridge.relay.relay import BATCH, Relay

pytestmark = pytest.mark.faults

SOURCE = "city"
QUEUE = "bridge.sink.cluster"
EVENTS_AT_ONCE = 20
COMMIT_EVERY_SECONDS = 0.05
READ_EVERY_SECONDS = 0.1
MAJORITY_SECONDS = 5.0
FROZEN_SECONDS = 20.0
END_SECONDS = 60.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RabbitMQCluster]:
    with RabbitMQCluster() as cluster:
        yield cluster


class Traffic:
    """Commits events all the time, relays them as the service does, and consumes a quorum queue."""

    def __init__(self, store: SqliteStore, broker: KombuBroker) -> None:
        self._store = store
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.committed = 0
        self.seen: Counter[str] = Counter()
        self.published_at = self._loop.time()
        self.longest_silence = 0.0
        self.failures = 0

    async def commit(self) -> None:
        while not self._stop.is_set():
            numbers = range(self.committed, self.committed + EVENTS_AT_ONCE)
            events = [WireEvent(f"{number}", "sms.recipient.sent", 0, b'{"id": "x"}') for number in numbers]
            await self._store.commit(None, Commit(SOURCE, events=events))
            self.committed += EVENTS_AT_ONCE
            await asyncio.sleep(COMMIT_EVERY_SECONDS)

    async def relay(self) -> None:
        clock = Clock()
        lease = await self._store.acquire(f"relay/{SOURCE}", "me", 3600)
        assert lease is not None
        relay = Relay(self._store, self._broker, clock)
        backoff = Backoff(clock.random, base=0.5, cap=RECONNECT)
        while not self._stop.is_set() or (await self._store.journal(SOURCE)).backlog:
            try:
                published = (await relay.drain(lease, SOURCE)).published
            except Unavailable:
                self.failures += 1
                await asyncio.sleep(backoff.on_failure())
                continue
            backoff.on_success()
            if published:
                now = self._loop.time()
                self.longest_silence = max(self.longest_silence, now - self.published_at)
                self.published_at = now
            await asyncio.sleep(READ_EVERY_SECONDS)

    async def consume(self, inbox: Inbox) -> None:
        while not self._stop.is_set() or len(self.seen) < self.committed:
            try:
                received = await inbox.get(500, 0.5)
                self.seen.update(message.event.id for message in received)
                await inbox.ack(received)
            except Unavailable:
                await asyncio.sleep(0.2)

    async def published_again(self, *, within: float) -> float:
        """Return after how many seconds from now a batch was confirmed."""
        started = self._loop.time()
        async with asyncio.timeout(within + END_SECONDS):
            while self.published_at <= started:
                await asyncio.sleep(0.02)
        return self.published_at - started

    def finish(self) -> None:
        self._stop.set()


@asynccontextmanager
async def traffic_to(cluster: RabbitMQCluster, folder: Path, *order: int) -> AsyncIterator[Traffic]:
    """Give running traffic to the nodes in this order; at the end everything that was committed has arrived."""
    store = SqliteStore(folder / "bridge.db", clock=Clock())
    await store.open()
    broker = KombuBroker(cluster.url_of(*order), exchange="bridge.events", clock=Clock())
    try:
        await broker.declare(QUEUE, ["#"])
        traffic = Traffic(store, broker)
        async with broker.inbox(QUEUE) as inbox, asyncio.timeout(300), asyncio.TaskGroup() as group:
            for work in (traffic.commit(), traffic.relay(), traffic.consume(inbox)):
                group.create_task(work)
            await traffic.published_again(within=END_SECONDS)
            traffic.longest_silence = 0.0
            yield traffic
            traffic.finish()
        assert set(traffic.seen) == {f"{number}" for number in range(traffic.committed)}
        repeated = sum(count - 1 for count in traffic.seen.values())
        print(f"{traffic.committed} events, {repeated} repeated, {traffic.failures} failed publications")
        # A batch whose confirms were under way at each failure, and what the consumer had not acknowledged.
        assert repeated <= (traffic.failures + 1) * 2 * BATCH
    finally:
        await broker.close()
        await store.close()


@pytest.fixture
async def leader(cluster: RabbitMQCluster) -> int:
    """Return the index of the node that leads the queue."""
    broker = KombuBroker(cluster.url, exchange="bridge.events", clock=Clock())
    await broker.declare(QUEUE, ["#"])
    await broker.close()
    return await asyncio.to_thread(cluster.leader_of, QUEUE)


def others(index: int) -> list[int]:
    """Return the other nodes."""
    return [other for other in range(NODES) if other != index]


async def bring_back(cluster: RabbitMQCluster, *indices: int) -> None:
    await asyncio.to_thread(cluster.start, *indices)
    await asyncio.to_thread(cluster.wait_until_whole)


async def test_publishing_goes_on_after_the_leader_was_killed(
    cluster: RabbitMQCluster, leader: int, tmp_path: Path
) -> None:
    """The bridge is connected to another node, whose channel would refuse for as long as the leader is away."""
    async with traffic_to(cluster, tmp_path, *others(leader), leader) as traffic:
        await asyncio.to_thread(cluster.nodes[leader].kill)
        await traffic.published_again(within=MAJORITY_SECONDS)
        await bring_back(cluster, leader)
        assert traffic.longest_silence < MAJORITY_SECONDS


async def test_publishing_goes_on_after_the_connected_node_was_killed(
    cluster: RabbitMQCluster, leader: int, tmp_path: Path
) -> None:
    connected, third = others(leader)
    async with traffic_to(cluster, tmp_path, connected, third, leader) as traffic:
        await asyncio.to_thread(cluster.nodes[connected].kill)
        await traffic.published_again(within=MAJORITY_SECONDS)
        await bring_back(cluster, connected)
        assert traffic.longest_silence < MAJORITY_SECONDS


async def test_a_frozen_leader_costs_seconds(cluster: RabbitMQCluster, leader: int, tmp_path: Path) -> None:
    """The bridge is connected to the frozen node: its connection stays open, and nothing answers."""
    async with traffic_to(cluster, tmp_path, leader, *others(leader)) as traffic:
        cluster.nodes[leader].pause()
        await traffic.published_again(within=FROZEN_SECONDS)
        await asyncio.to_thread(cluster.nodes[leader].kill)
        await bring_back(cluster, leader)
        assert traffic.longest_silence < FROZEN_SECONDS


async def test_a_frozen_node_that_leads_nothing_costs_seconds(
    cluster: RabbitMQCluster, leader: int, tmp_path: Path
) -> None:
    """The bridge is connected to it, and goes on by another node."""
    connected, third = others(leader)
    async with traffic_to(cluster, tmp_path, connected, third, leader) as traffic:
        cluster.nodes[connected].pause()
        await traffic.published_again(within=FROZEN_SECONDS)
        await asyncio.to_thread(cluster.nodes[connected].kill)
        await bring_back(cluster, connected)
        assert traffic.longest_silence < FROZEN_SECONDS


async def test_publishing_goes_on_when_the_majority_returns(
    cluster: RabbitMQCluster, leader: int, tmp_path: Path
) -> None:
    killed = others(leader)
    async with traffic_to(cluster, tmp_path, *range(NODES)) as traffic:
        for index in killed:
            await asyncio.to_thread(cluster.nodes[index].kill)
        await asyncio.to_thread(cluster.start, *killed)
        assert await traffic.published_again(within=MAJORITY_SECONDS) < MAJORITY_SECONDS
        await asyncio.to_thread(cluster.wait_until_whole)


async def test_publishing_goes_on_during_a_partition(cluster: RabbitMQCluster, leader: int, tmp_path: Path) -> None:
    """The node that leads and is connected is cut off from the other two."""
    async with traffic_to(cluster, tmp_path, leader, *others(leader)) as traffic:
        await asyncio.to_thread(cluster.isolate, leader)
        await traffic.published_again(within=MAJORITY_SECONDS)
        await asyncio.to_thread(cluster.rejoin, leader)
        await asyncio.to_thread(cluster.wait_until_whole)
        assert traffic.longest_silence < MAJORITY_SECONDS
