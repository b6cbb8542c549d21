"""Brokers that are there, that are missing, and that leave."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest
import redis
import structlog
from rigs.threads import bridge_threads

from bridge.adapters import taps
from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock
from bridge.domain.errors import AccessRefused, Unavailable
from bridge.protocols.broker import Broker
from bridge.testing.broker_suite import QUEUE, collect, entry, ids, nothing_more
from bridge.testing.free_port import free_port
from bridge.testing.servers import RabbitMQServer

EXCHANGE = "bridge.events"


def test_construction_has_no_side_effects(tmp_path: Path) -> None:
    before = bridge_threads()
    KombuBroker("amqp://127.0.0.1:1//", exchange=EXCHANGE, clock=Clock())
    SqliteBroker(tmp_path / "deep" / "broker.db", clock=Clock())
    assert bridge_threads() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["rabbitmq", "redis", "memory", "embedded"])
async def test_closed_broker_leaves_no_thread_or_connection(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    broker: KombuBroker | SqliteBroker
    if kind == "embedded":
        broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    else:
        url = "memory://" if kind == "memory" else request.getfixturevalue(f"{kind}_url")
        broker = KombuBroker(url, exchange=EXCHANGE, clock=Clock())
    await broker.open()
    await broker.declare(QUEUE, ["#"])
    inside = asyncio.Event()

    async def consume(left: str) -> None:
        async with broker.inbox(QUEUE) as inbox, broker.tap(["#"]) as tap:
            inside.set()
            if left == "cancelled":
                await asyncio.gather(inbox.get(1, 60), tap.get(1, 60))
            raise RuntimeError(left)

    with pytest.raises(RuntimeError, match="by an error"):
        await consume("by an error")
    inside.clear()
    consuming = asyncio.create_task(consume("cancelled"))
    await inside.wait()
    assert bridge_threads()
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    await broker.close()
    await broker.close()
    assert bridge_threads() == []
    with pytest.raises(Unavailable, match="closed"):
        await broker.ping()


async def test_missing_broker_is_unavailable_and_hides_the_password(
    make: Callable[..., KombuBroker],
) -> None:
    for scheme in ("amqp", "redis"):
        broker = make(f"{scheme}://user:pass-word@127.0.0.1:{free_port()}/0")
        for _ in range(2):
            with pytest.raises(Unavailable, match=rf"{scheme}://127\.0\.0\.1:\d+: .*refused") as error:
                await broker.publish([entry(1)])
            assert "pass-word" not in str(error.value)
        with pytest.raises(Unavailable):
            async with broker.inbox(QUEUE):
                pass


async def test_a_broker_whose_client_library_is_missing_names_the_module(
    make: Callable[..., KombuBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymongo", None)
    with pytest.raises(Unavailable, match=r"the Python module pymongo\S* is not installed; kombu's") as error:
        await make("mongodb://user:pass-word@h").ping()
    assert "pass-word" not in str(error.value)


async def test_a_refused_password_is_said_so(
    rabbitmq_server: RabbitMQServer, redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.acl_setuser("someone", enabled=True, passwords=["+right-word"], commands=["+@all"], keys=["*"])
        for url in (
            f"amqp://guest:wrong-word@127.0.0.1:{rabbitmq_server.port}//",
            redis_url.replace("//", "//someone:wrong-word@"),
        ):
            with pytest.raises(AccessRefused, match=r"credentials were refused|refuses the credentials") as error:
                await make(url).ping()
            assert "wrong-word" not in str(error.value)
        client.acl_deluser("someone")


async def test_the_second_address_stands_in_for_the_first(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    broker = make(f"amqp://guest:guest@127.0.0.1:{free_port()}//;{rabbitmq_url}")
    await broker.declare(QUEUE, ["#"])
    assert await broker.publish([entry(1)]) == 0


async def test_an_unknown_queue_is_unavailable(rabbitmq_url: str, tmp_path: Path, make: Callable[..., Any]) -> None:
    embedded = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    for broker in (make(rabbitmq_url), embedded):
        with pytest.raises(Unavailable, match=r"no (such )?queue"):
            async with broker.inbox("bridge.sink.unknown"):
                pass
    await embedded.close()


async def test_a_queue_of_another_type_is_used_as_it_is(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_declare(QUEUE, durable=True, auto_delete=False)
    broker = make(rabbitmq_url)
    with structlog.testing.capture_logs() as logs:
        await broker.declare(QUEUE, ["#"])
        await broker.declare(QUEUE, ["#"])
    assert [line["event"] for line in logs] == ["broker.queue_differs"]
    await broker.publish([entry(1)])
    async with broker.inbox(QUEUE) as inbox:
        assert ids(await collect(inbox, 1)) == ["event-1"]


async def test_queues_are_quorum_queues(
    rabbitmq_server: RabbitMQServer, rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    await make(rabbitmq_url).declare(QUEUE, ["#"])
    listed = rabbitmq_server.ctl("list_queues", "name", "type", "durable").splitlines()
    assert f"{QUEUE}\tquorum\ttrue" in listed


async def test_any_other_kombu_transport_works_as_well(tmp_path: Path, make: Callable[..., KombuBroker]) -> None:
    folder, control = tmp_path / "data", tmp_path / "control"
    folder.mkdir()
    options = f"data_folder_in={folder}&data_folder_out={folder}&control_folder={control}&processed_folder={folder}"
    broker = make(f"filesystem://?{options}")
    await broker.declare(QUEUE, ["voice.#"])
    assert await broker.publish([entry(1, "voice"), entry(2, "sms.message.new")]) == 1
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 1)
        await inbox.ack(got)
    assert got[0].event == entry(1, "voice").event


# --- Redis: taps and consumers that died ------------------------------------------------------------------------------


async def test_a_dead_tap_on_redis_is_cleared_by_a_publisher(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    queue = f"{taps.PREFIX}dead"
    with redis.Redis.from_url(redis_url) as client:
        client.sadd(f"_kombu.binding.{EXCHANGE}", f"#\x06\x16^.*?$\x06\x16{queue}")
        client.lpush(queue, "x")
        assert await make(redis_url).publish([entry(1)]) == 1
        assert client.keys("*") == []


async def test_a_slow_tap_keeps_the_newest(
    redis_url: str, tmp_path: Path, make: Callable[..., KombuBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taps, "MAX_MESSAGES", 5)
    embedded = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    for broker in (embedded, make(redis_url)):
        async with broker.tap(["#"]) as tap:
            await broker.publish([entry(seq) for seq in range(1, 21)])
            assert ids(await collect(tap, 5)) == [f"event-{seq}" for seq in range(16, 21)]
            assert await nothing_more(tap)
    await embedded.close()


async def test_redis_consumers_messages_return_when_its_lease_ends(
    redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    """Claimed, and moved but not claimed yet: both, in order, before what came later."""
    broker = make(redis_url, lease=0.6)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(seq) for seq in range(1, 14)])
    with redis.Redis.from_url(redis_url) as client:
        for tag in range(1, 12):  # more than nine: tags are compared as numbers
            client.hset(f"bridge.unacked.{QUEUE}.dead", str(tag), client.rpop(QUEUE))
        client.lmove(QUEUE, f"bridge.arriving.{QUEUE}.dead", "RIGHT", "LEFT")
        client.zadd(f"bridge.consumers.{QUEUE}", {"dead": int(time.time() * 1000)})
        async with broker.inbox(QUEUE) as inbox:
            assert ids(await collect(inbox, 13)) == [f"event-{seq}" for seq in range(1, 14)]
            assert client.zrange(f"bridge.consumers.{QUEUE}", 0, -1) != [b"dead"]
        assert not client.keys("bridge.unacked*")
        assert not client.keys("bridge.consumers*")


async def test_live_redis_consumer_keeps_its_lease(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    """However long it takes over a message, and with its prefetch used up."""
    broker, other = make(redis_url, lease=0.6), make(redis_url, lease=0.6)
    await broker.declare(QUEUE, ["#"])
    await broker.publish([entry(1)])
    async with broker.inbox(QUEUE, prefetch=1) as slow:
        got = await collect(slow, 1)
        async with other.inbox(QUEUE) as eager:
            assert await eager.get(1, 1.5) == []
        await slow.ack(got)
    assert await broker.depth(QUEUE) == 0


def test_the_adapters_are_brokers(tmp_path: Path) -> None:
    """For the type checker as much as for the reader."""
    brokers: list[Broker] = [
        KombuBroker("memory://", exchange=EXCHANGE, clock=Clock()),
        SqliteBroker(tmp_path / "broker.db", clock=Clock()),
    ]
    assert len(brokers) == 2
