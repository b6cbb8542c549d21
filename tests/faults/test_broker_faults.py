"""Brokers that die, hang, refuse or forget, and clients that are killed: nothing that was confirmed is lost."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import Position
from bridge.protocols.broker import Inbox, PartlyPublished
from bridge.testing.broker_suite import QUEUE, collect, entry, ids, nothing_more
from bridge.testing.servers import RabbitMQServer, RedisServer
from bridge.testing.tcp_proxy import TcpProxy

pytestmark = pytest.mark.faults

EXCHANGE = "bridge.events"
MAX_WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQServer]:
    """Give a node that the tests of this module may harm."""
    with RabbitMQServer() as server:
        yield server


@pytest.fixture
def rabbit_url(rabbit: RabbitMQServer) -> Iterator[str]:
    yield rabbit.url
    rabbit.wipe()


@pytest.fixture
def redis_keeps() -> Iterator[RedisServer]:
    """Give a Redis whose data survives being killed."""
    with RedisServer(appendonly=True) as server:
        yield server


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., KombuBroker]]:
    brokers = []
    before = set(threading.enumerate())  # of other tests: they are theirs to end

    def build(url: str, **options: Any) -> KombuBroker:
        broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock(), **options)
        brokers.append(broker)
        return broker

    yield build
    for broker in brokers:
        await broker.close()
    left = set(threading.enumerate()) - before
    assert [thread.name for thread in left if thread.name.startswith("bridge-")] == []


def through(relay: TcpProxy, url: str) -> str:
    """Return `url` with the relay in between."""
    front, _, rest = url.rpartition(":")
    return f"{front}:{relay.port}/{rest.partition('/')[2]}"


async def until_it_works(call: Callable[[], Any]) -> Any:
    """Repeat a call, as the relay does, until the broker is back."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while True:
            try:
                return await call()
            except Unavailable:
                await asyncio.sleep(0.05)


async def everything(inbox: Inbox) -> list[str]:
    """Take all that a queue holds."""
    seen: list[str] = []
    while got := await inbox.get(500, 1.0):
        seen += ids(got)
        await inbox.ack(got)
    return seen


def timed() -> Callable[[], float]:
    loop = asyncio.get_running_loop()
    started = loop.time()
    return lambda: loop.time() - started


# --- the broker dies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_broker_that_died_between_two_batches_loses_nothing(
    request: pytest.FixtureRequest, make: Callable[..., KombuBroker], kind: str, how: str
) -> None:
    server = request.getfixturevalue("rabbit" if kind == "rabbitmq" else "redis_keeps")
    broker = make(server.url, lease=1.0)
    await broker.declare(QUEUE, ["#"])
    async with broker.inbox(QUEUE) as inbox:
        await broker.publish([entry(seq) for seq in range(1, 11)])
        unacknowledged = await collect(inbox, 10)
        await inbox.ack(unacknowledged[:4])
        if kind == "rabbitmq":  # the list of its quorum queues is synced every few seconds only
            await asyncio.to_thread(server.ctl, "eval", "[dets:sync(Table) || Table <- dets:all()].")
        await asyncio.to_thread(getattr(server, how))
        elapsed = timed()
        with pytest.raises(Unavailable):
            await broker.publish([entry(11)])
        with pytest.raises(Unavailable):
            await inbox.get(1, 10)
        with pytest.raises(Unavailable):
            await inbox.get(1, 10)
        await inbox.ack(unacknowledged[4:])  # moot, and silently so
        assert elapsed() < 5
        await asyncio.to_thread(server.start)
        await until_it_works(lambda: broker.publish([entry(11)]))
        await until_it_works(lambda: inbox.get(0, 0))
        again = await collect(inbox, 7)
        await inbox.ack(again)
        assert ids(again) == [f"event-{seq}" for seq in range(5, 12)]
        assert await nothing_more(inbox)
    if kind == "rabbitmq":
        server.wipe()


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
@pytest.mark.parametrize("share", [0.3, 0.97, 1.0])
async def test_a_connection_cut_while_publishing_loses_nothing(
    request: pytest.FixtureRequest, make: Callable[..., KombuBroker], kind: str, share: float
) -> None:
    """In the middle of a batch, near its end, and after its last byte, before the confirm."""
    url = request.getfixturevalue("rabbitmq_url" if kind == "rabbitmq" else "redis_url")
    async with TcpProxy(int(url.rpartition(":")[2].partition("/")[0])) as relay:
        broker = make(through(relay, url))
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(1)])
        batch = [entry(seq) for seq in range(1000, 1200)]
        before = relay.upstream
        await broker.publish(batch)
        size = relay.upstream - before
        relay.cut_after(int(size * share))
        doomed = [entry(seq) for seq in range(2000, 2200)]
        with pytest.raises(Unavailable):
            await broker.publish(doomed)
        assert relay.cuts == 1
        await until_it_works(lambda: broker.publish(doomed))
        async with make(url).inbox(QUEUE) as inbox:
            seen = await everything(inbox)
    assert set(seen) == {published.event.id for published in [entry(1), *batch, *doomed]}
    if kind == "redis":  # a transaction is there as a whole or not at all
        assert seen.count("event-2000") == seen.count("event-2199")


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
async def test_cut_inbox_connection_is_reported_once_and_recovers(
    request: pytest.FixtureRequest, make: Callable[..., KombuBroker], kind: str
) -> None:
    url = request.getfixturevalue("rabbitmq_url" if kind == "rabbitmq" else "redis_url")
    async with TcpProxy(int(url.rpartition(":")[2].partition("/")[0])) as relay:
        publisher = make(url)
        await publisher.declare(QUEUE, ["#"])
        async with make(through(relay, url), lease=1.0).inbox(QUEUE) as inbox:
            await publisher.publish([entry(1), entry(2)])
            old = await collect(inbox, 2)
            assert await nothing_more(inbox)  # on Redis, it waits inside the server by now
            waiting = asyncio.create_task(inbox.get(1, MAX_WAIT_SECONDS))
            await asyncio.sleep(0)
            relay.cut()
            with pytest.raises(Unavailable):
                await waiting
            assert relay.cuts == 1
            again = await collect(inbox, 2)
            assert ids(again) == ids(old)
            await inbox.ack(old)  # of the dead connection: nothing happens
            await inbox.ack(again)
            await publisher.publish([entry(3)])
            assert ids(await collect(inbox, 1)) == ["event-3"]


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
async def test_hanging_broker_is_unavailable_and_closes_in_time(
    request: pytest.FixtureRequest, make: Callable[..., KombuBroker], kind: str
) -> None:
    url = request.getfixturevalue("rabbitmq_url" if kind == "rabbitmq" else "redis_url")
    async with TcpProxy(int(url.rpartition(":")[2].partition("/")[0])) as relay:
        broker = make(through(relay, url), confirm_timeout=1.0, answer_timeout=1.0)
        await broker.declare(QUEUE, ["#"])
        leaving = make(through(relay, url), answer_timeout=1.0)
        async with leaving.inbox(QUEUE):
            relay.stall()
            elapsed = timed()
            with pytest.raises(Unavailable, match=r"no answer in time|not confirmed within 1 s"):
                await broker.publish([entry(1)])
            assert elapsed() < 4
            with pytest.raises(Unavailable):
                await broker.depth(QUEUE)
            elapsed = timed()
        await leaving.close()
        assert elapsed() < 12
        relay.resume()
        assert await until_it_works(lambda: broker.publish([entry(2)])) == 0


async def test_a_silent_connection_to_rabbitmq_is_kept_alive(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    """RabbitMQ ends a connection that misses two heartbeats; ours lives on, while nobody calls."""
    async with TcpProxy(int(rabbitmq_url.rpartition(":")[2].partition("/")[0])) as relay:
        broker = make(through(relay, rabbitmq_url) + "?heartbeat=1")
        await broker.declare(QUEUE, ["#"])
        async with broker.inbox(QUEUE) as inbox:
            made = relay.connections
            assert await inbox.get(1, 4.0) == []
            await broker.publish([entry(1)])
            assert len(await collect(inbox, 1)) == 1
            assert relay.connections == made == 2


async def test_dead_rabbitmq_connection_is_noticed(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    async with TcpProxy(int(rabbitmq_url.rpartition(":")[2].partition("/")[0])) as relay:
        await make(rabbitmq_url).declare(QUEUE, ["#"])
        async with make(through(relay, rabbitmq_url) + "?heartbeat=1").inbox(QUEUE) as inbox:
            relay.stall()
            with pytest.raises(Unavailable, match="heartbeat"):
                await inbox.get(1, MAX_WAIT_SECONDS)
            relay.resume()


async def test_dead_redis_connection_is_noticed(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    async with TcpProxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as relay:
        await make(redis_url).declare(QUEUE, ["#"])
        async with make(through(relay, redis_url), lease=1.0, answer_timeout=0.5).inbox(QUEUE) as inbox:
            assert await inbox.get(1, 0.2) == []  # it waits inside Redis by now
            relay.stall()
            with pytest.raises(Unavailable, match="no answer in time"):
                await inbox.get(1, MAX_WAIT_SECONDS)
            relay.resume()


async def test_reopened_redis_inbox_gets_unacked_messages_first_in_order(
    redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    async with TcpProxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as relay:
        broker = make(through(relay, redis_url), lease=60.0)
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(seq) for seq in range(1, 4)])
        with pytest.raises(Unavailable):  # noqa: PT012 - the inbox is left by the error
            async with broker.inbox(QUEUE) as inbox:
                assert len(await collect(inbox, 3)) == 3
                assert await nothing_more(inbox)
                relay.cut()
                await inbox.get(1, MAX_WAIT_SECONDS)
        await until_it_works(lambda: broker.publish([entry(4)]))
        async with broker.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 4)) == ["event-1", "event-2", "event-3", "event-4"]


# --- the broker refuses -----------------------------------------------------------------------------------------------


async def test_a_memory_alarm_makes_rabbitmq_unavailable_until_it_is_over(
    rabbit: RabbitMQServer, rabbit_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbit_url, confirm_timeout=1.0)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(1)])
    await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "0.00001")
    try:
        assert "memory" in await asyncio.to_thread(rabbit.ctl, "eval", "rabbit_alarm:get_alarms().")
        for _ in range(3):  # while the alarm comes through, while blocked, and on a new connection
            elapsed = timed()
            with pytest.raises(Unavailable, match="alarm"):
                await broker.publish([entry(2)])
            assert elapsed() < 5
    finally:
        await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")
    await until_it_works(lambda: broker.publish([entry(3)]))
    async with broker.inbox(QUEUE) as inbox:
        seen = await everything(inbox)
    assert set(seen) <= {"event-1", "event-2", "event-3"}
    assert {"event-1", "event-3"} <= set(seen)


async def test_blocked_publisher_continues_after_the_alarm(
    rabbit: RabbitMQServer, rabbit_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbit_url, confirm_timeout=MAX_WAIT_SECONDS)
    await broker.declare(QUEUE, ["#"])
    await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "0.00001")
    publishing = asyncio.create_task(broker.publish([entry(1)]))
    done, _ = await asyncio.wait([publishing], timeout=1.0)
    await asyncio.to_thread(rabbit.ctl, "set_vm_memory_high_watermark", "absolute", "2GB")
    assert not done
    assert await publishing == 0
    assert await broker.depth(QUEUE) == 1


async def test_a_full_queue_that_rejects_makes_publish_fail(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, auto_delete=False, arguments=arguments)
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(1), entry(2), entry(3)])
    with pytest.raises(Unavailable, match="refused 2 of 2 events"):
        await broker.publish([entry(4), entry(5)])
    async with broker.inbox(QUEUE) as inbox:
        await inbox.ack(await collect(inbox, 3))
    assert await until_it_works(lambda: broker.publish([entry(4), entry(5)])) == 0
    assert await broker.depth(QUEUE) == 2


async def test_a_refused_batch_says_what_rabbitmq_holds(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    arguments = {"x-max-length": 3, "x-overflow": "reject-publish"}
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, auto_delete=False, arguments=arguments)
    async with TcpProxy(int(rabbitmq_url.rpartition(":")[2].partition("/")[0])) as relay:
        broker = make(through(relay, rabbitmq_url))
        await broker.declare(QUEUE, ["sms.#"])
        made = relay.connections
        with pytest.raises(PartlyPublished, match="refused 2 of 6 events") as caught:
            await broker.publish([entry(seq, topic="sms.x" if seq != 3 else "other") for seq in range(1, 7)])
        assert caught.value.confirmed == {Position("city", seq) for seq in (1, 2, 3, 4)}
        assert caught.value.unroutable == 1
        with pytest.raises(Unavailable, match="refused 1 of 1 events"):
            await broker.publish([entry(5, topic="sms.x")])
        assert relay.connections == made + 1  # a refusal ends the connection: a new one may be accepted


async def test_a_cut_batch_says_what_rabbitmq_holds(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    async with TcpProxy(int(rabbitmq_url.rpartition(":")[2].partition("/")[0])) as relay:
        broker = make(through(relay, rabbitmq_url))
        await broker.declare(QUEUE, ["#"])
        before = relay.upstream
        await broker.publish([entry(seq) for seq in range(1, 1001)])
        relay.cut_after(int((relay.upstream - before) * 0.6))
        with pytest.raises(Unavailable) as caught:
            await broker.publish([entry(seq) for seq in range(2001, 3001)])
        confirmed = caught.value.confirmed if isinstance(caught.value, PartlyPublished) else frozenset()
        left = [entry(seq) for seq in range(2001, 3001) if Position("city", seq) not in confirmed]
        await until_it_works(lambda: broker.publish(left))
        async with make(rabbitmq_url).inbox(QUEUE) as inbox:
            seen = await everything(inbox)
    assert set(seen) == {f"event-{seq}" for seq in (*range(1, 1001), *range(2001, 3001))}


async def test_next_node_is_tried_after_a_failure(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    """The first node accepts connections and never answers, as one that is frozen does."""
    front, _, rest = rabbitmq_url.rpartition(":")
    port, _, vhost = rest.partition("/")
    async with TcpProxy(int(port)) as relay:
        frozen = make(f"{front}:{relay.port},127.0.0.1:{port}/{vhost}", confirm_timeout=1.0, answer_timeout=1.0)
        await frozen.declare(QUEUE, ["#"])
        relay.stall()
        with pytest.raises(Unavailable):
            await frozen.publish([entry(1)])
        elapsed = timed()
        assert await frozen.publish([entry(1)]) == 0
        assert elapsed() < 3


async def test_full_redis_fails_publish_and_recovers(make: Callable[..., KombuBroker]) -> None:
    with RedisServer() as server, redis.Redis(port=server.port) as client:
        broker = make(server.url)
        await broker.declare(QUEUE, ["#"])
        client.config_set("maxmemory", "1")
        with pytest.raises(Unavailable, match="out of memory"):
            await broker.publish([entry(1)])
        client.config_set("maxmemory", "0")
        assert await broker.publish([entry(1)]) == 0
        assert await broker.depth(QUEUE) == 1


# --- the broker forgets -----------------------------------------------------------------------------------------------


async def test_a_queue_deleted_behind_our_back_is_made_again(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    async with broker.inbox(QUEUE) as inbox:
        with kombu.Connection(rabbitmq_url) as connection:
            connection.channel().queue_delete(QUEUE)
        with pytest.raises(Unavailable, match="deleted"):
            await inbox.get(1, MAX_WAIT_SECONDS)
        assert await inbox.get(1, 0.1) == []
        assert await broker.publish([entry(1)]) == 0
        assert ids(await collect(inbox, 1)) == ["event-1"]


async def test_an_exchange_deleted_behind_our_back_is_made_again(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(1)])
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().exchange_delete(EXCHANGE)
    with pytest.raises(Unavailable, match="no exchange"):
        await broker.publish([entry(2)])
    assert await broker.publish([entry(2)]) == 0
    assert await broker.depth(QUEUE) == 2


async def test_full_redis_is_emptied_by_old_and_new_consumers(
    make: Callable[..., KombuBroker],
) -> None:
    with RedisServer() as server:
        broker = make(server.url)
        await broker.declare(QUEUE, ["#"])
        await broker.publish([entry(n) for n in range(50)])
        with redis.Redis(port=server.port) as admin:
            admin.config_set("maxmemory", "1mb")
        with pytest.raises(Unavailable):
            await broker.publish([entry(99)])
        late = make(server.url)
        await late.declare(QUEUE, ["#"])
        async with late.inbox(QUEUE) as inbox:
            assert len(await everything(inbox)) == 50
        assert await broker.depth(QUEUE) == 0


async def test_an_emptied_redis_gets_its_bindings_back(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    """From the publisher that declared them, and from a consumer that did."""
    broker, sinks, sources = make(redis_url), make(redis_url), make(redis_url)
    await broker.declare(QUEUE, ["#"])
    await sinks.declare("bridge.sink.other", ["voice.#"])
    client = redis.Redis.from_url(redis_url)
    async with sinks.inbox("bridge.sink.other") as inbox:
        await broker.publish([entry(1)])
        await inbox.ack(await collect(inbox, 1))
        client.flushall()
        assert client.dbsize() == 0
        assert await broker.publish([entry(2)]) == 0
        assert await broker.depth(QUEUE) == 1
        client.flushall()
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while await sources.publish([entry(3)]) > 0:  # noqa: ASYNC110 - asking is the only way
                await asyncio.sleep(0.05)
        assert ids(await collect(inbox, 1)) == ["event-3"]
    client.close()


# --- clients are killed -----------------------------------------------------------------------------------------------

CONSUMER = """
import asyncio, sys
from pathlib import Path
from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock

async def main(url):
    if "://" in url:
        broker = KombuBroker(url, exchange="bridge.events", clock=Clock(), lease=1.0)
    else:
        broker = SqliteBroker(Path(url), clock=Clock(), lease=1.0)
    async with broker.inbox("bridge.sink.suite") as inbox, broker.tap(["#"]):
        got = []
        while len(got) < 5:
            got += await inbox.get(5, 10)
        await inbox.ack(got[:1])
        print("has them", flush=True)
        await asyncio.sleep(600)

asyncio.run(main(sys.argv[1]))
"""

PUBLISHER = """
import asyncio, sys
from pathlib import Path
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock
from bridge.testing.broker_suite import entry

async def main(path):
    broker = SqliteBroker(Path(path), clock=Clock())
    seq = 1
    while True:
        await broker.publish([entry(n) for n in range(seq, seq + 7)])
        seq += 7
        print(seq - 1, flush=True)

asyncio.run(main(sys.argv[1]))
"""


def start(script: str, argument: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, argument], stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> str:
    """Kill the process as a power cut would, and return what it had still said."""
    process.kill()
    said, _ = process.communicate(timeout=MAX_WAIT_SECONDS)
    assert process.returncode == -signal.SIGKILL
    return said


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "embedded"])
async def test_killed_consumer_returns_messages_and_loses_its_tap(
    request: pytest.FixtureRequest, make: Callable[..., KombuBroker], tmp_path: Path, kind: str
) -> None:
    url = str(tmp_path / "broker.db") if kind == "embedded" else request.getfixturevalue(f"{kind}_url")
    broker = SqliteBroker(Path(url), clock=Clock(), lease=1.0) if kind == "embedded" else make(url, lease=1.0)
    await broker.declare(QUEUE, ["sms.#"])
    await broker.publish([entry(seq, "sms.recipient.sent") for seq in range(1, 6)])
    process = start(CONSUMER, url)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == "has them\n"
    assert await broker.publish([entry(6, "voice.only.for.the.tap")]) == 0
    assert await broker.depth(QUEUE) == 0
    kill(process)
    async with broker.inbox(QUEUE) as inbox:
        assert ids(await collect(inbox, 4)) == [f"event-{seq}" for seq in range(2, 6)]
        assert await nothing_more(inbox)
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while await broker.publish([entry(7, "voice.only.for.the.tap")]) == 0:  # noqa: ASYNC110 - asking is the only way
            await asyncio.sleep(0.05)
    await broker.close()


@pytest.mark.parametrize("after", [1, 5, 20])
async def test_killed_embedded_publisher_loses_no_confirmed_batch(tmp_path: Path, after: int) -> None:
    path = tmp_path / "broker.db"
    broker = SqliteBroker(path, clock=Clock())
    await broker.declare(QUEUE, ["#"])
    process = start(PUBLISHER, str(path))
    assert process.stdout is not None
    said = [await asyncio.to_thread(process.stdout.readline) for _ in range(after)]
    returned = int([*said, *kill(process).split()][-1])
    assert returned >= after * 7
    async with broker.inbox(QUEUE, prefetch=500) as inbox:
        seen = await everything(inbox)
    assert seen[:returned] == [f"event-{seq}" for seq in range(1, returned + 1)]
    assert len(seen) % 7 == 0, "a batch is there as a whole or not at all"
    await broker.close()


async def test_a_locked_file_is_unavailable_in_bounded_time(tmp_path: Path) -> None:
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    await broker.declare(QUEUE, ["#"])
    hog = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    hog.execute("BEGIN IMMEDIATE")
    elapsed = timed()
    with pytest.raises(Unavailable, match=r"broker\.db: database is locked"):
        await broker.publish([entry(1)])
    assert elapsed() < 10
    hog.execute("ROLLBACK")
    hog.close()
    assert await broker.publish([entry(1)]) == 0
    assert await broker.depth(QUEUE) == 1
    await broker.close()
