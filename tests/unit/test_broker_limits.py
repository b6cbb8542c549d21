"""Events that a broker never accepts: it says which and why, and holds all the others."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.kombu.redis_limits import parts
from bridge.adapters.kombu.virtual import _too_large
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.protocols.broker import Broker, Unpublishable
from bridge.testing.broker_suite import QUEUE, collect, entry, ids, nothing_more
from bridge.testing.servers import RabbitMQServer, RedisServer

RABBITMQ_LIMIT = 65_536


@pytest.fixture(scope="module")
def small_rabbitmq() -> Iterator[RabbitMQServer]:
    """Give a node that accepts messages up to 64 KiB."""
    server = RabbitMQServer()
    server.config.write_text(f"{server.config.read_text()}max_message_size = {RABBITMQ_LIMIT}\n")
    with server:
        yield server


@pytest.fixture
async def rabbitmq(small_rabbitmq: RabbitMQServer) -> AsyncIterator[Broker]:
    broker = KombuBroker(small_rabbitmq.url, exchange="bridge.events", clock=Clock())
    yield broker
    await broker.close()
    small_rabbitmq.wipe()


def sized(seq: int, size: int) -> JournalEntry:
    return entry(seq, body=b'"' + b"x" * (size - 2) + b'"')


async def positions(broker: Broker, count: int) -> list[str]:
    async with broker.inbox(QUEUE) as inbox:
        arrived = await collect(inbox, count)
        assert await nothing_more(inbox)
        await inbox.ack(arrived)
    return ids(arrived)


async def test_rabbitmq_holds_all_events_around_one_too_large(rabbitmq: Broker) -> None:
    await rabbitmq.declare(QUEUE, ["#"])
    batch = [sized(seq, 70_000 if seq in (3, 40) else 200) for seq in range(1, 53)]
    with pytest.raises(Unpublishable) as caught:
        await rabbitmq.publish(batch)
    assert set(caught.value.reasons) == {Position("city", 3), Position("city", 40)}
    assert "70,000 bytes, and RabbitMQ accepts 65,536" in str(caught.value)
    expected = [f"event-{seq}" for seq in range(1, 53) if seq not in (3, 40)]
    arrived = await positions_at_least_once(rabbitmq, len(expected))
    assert sorted(arrived) == sorted(expected)


async def positions_at_least_once(broker: Broker, count: int) -> set[str]:
    """Return the ids that arrive; RabbitMQ may have held an event before it refused the batch."""
    arrived: set[str] = set()
    async with broker.inbox(QUEUE) as inbox:
        while messages := await inbox.get(500, 2.0 if len(arrived) < count else 0.3):
            arrived.update(ids(messages))
            await inbox.ack(messages)
    return arrived


async def test_rabbitmq_publishes_on_after_many_refusals(rabbitmq: Broker) -> None:
    await rabbitmq.declare(QUEUE, ["#"])
    for seq in range(1, 40):
        with pytest.raises(Unpublishable):
            await rabbitmq.publish([sized(seq, RABBITMQ_LIMIT + 1)])
    assert await rabbitmq.publish([sized(50, RABBITMQ_LIMIT), sized(51, 10)]) == 0
    assert await positions(rabbitmq, 2) == ["event-50", "event-51"]


async def test_rabbitmq_finds_a_message_refused_for_another_reason(
    rabbitmq: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.adapters.kombu.amqp_publisher._MAX_MESSAGE", re.compile("never"))
    await rabbitmq.declare(QUEUE, ["#"])
    with pytest.raises(Unpublishable) as caught:
        await rabbitmq.publish([sized(seq, 70_000 if seq == 7 else 200) for seq in range(1, 12)])
    assert set(caught.value.reasons) == {Position("city", 7)}
    assert await positions_at_least_once(rabbitmq, 10) == {f"event-{seq}" for seq in range(1, 12) if seq != 7}


@pytest.mark.parametrize("field", ["id", "topic"])
async def test_words_too_long_for_amqp_are_unpublishable(rabbitmq: Broker, field: str) -> None:
    await rabbitmq.declare(QUEUE, ["#"])
    values = {"id": "event-2", "topic": "voice.recipient.sent", field: "x" * 256}
    long = JournalEntry(Position("city", 2), WireEvent(**values, time=1, body=b"{}"))
    with pytest.raises(Unpublishable) as caught:
        await rabbitmq.publish([entry(1), long, entry(3)])
    assert set(caught.value.reasons) == {long.position}
    assert await positions(rabbitmq, 2) == ["event-1", "event-3"]


@pytest.mark.parametrize("can_ask", [True, False])
async def test_redis_holds_all_events_around_one_too_large(
    can_ask: bool,
    monkeypatch: pytest.MonkeyPatch,  # noqa: FBT001 - a parameter of a test
) -> None:
    with RedisServer() as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("proto-max-bulk-len", 1024 * 1024)
            if not can_ask:
                client.execute_command("ACL", "SETUSER", "default", "-config|get")
                monkeypatch.setattr("bridge.adapters.kombu.redis_limits._DEFAULT_MAX_VALUE_BYTES", 1024 * 1024)
        broker = KombuBroker(server.url, exchange="bridge.events", clock=Clock())
        try:
            await broker.declare(QUEUE, ["#"])
            with pytest.raises(Unpublishable) as caught:
                await broker.publish([entry(1), sized(2, 900_000), sized(3, 700_000), entry(4)])
            assert set(caught.value.reasons) == {Position("city", 2)}
            assert "proto-max-bulk-len" in str(caught.value)
            assert await positions(broker, 3) == ["event-1", "event-3", "event-4"]
        finally:
            await broker.close()


async def test_embedded_broker_holds_all_events_around_one_too_large(tmp_path: Path) -> None:
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    await broker.open()
    try:
        await broker.declare(QUEUE, ["#"])
        await broker.call(lambda file: file.durable.setlimit(0, 100_000))
        with pytest.raises(Unpublishable) as caught:
            await broker.publish([entry(1), sized(2, 99_999), entry(3)])
        assert set(caught.value.reasons) == {Position("city", 2)}
        assert await positions(broker, 2) == ["event-1", "event-3"]
    finally:
        await broker.close()


@pytest.mark.parametrize(
    ("sizes", "split"),
    [([], []), ([1, 1], [2]), ([40, 40, 1], [1, 2]), ([100, 1, 63, 1], [1, 2, 1]), ([65, 65], [1, 1])],
)
def test_batches_are_split_by_their_bytes(sizes: list[int], split: list[int]) -> None:
    mebibytes = {size: b"x" * (size * 1024 * 1024) for size in set(sizes)}
    entries = [entry(seq, body=mebibytes[size]) for seq, size in enumerate(sizes)]
    assert [len(part) for part in parts(entries)] == split


def test_other_transports_words_for_too_large_are_known() -> None:
    class ClientError(Exception):
        response = {"Error": {"Code": "InvalidParameterValue"}}  # noqa: RUF012 - as botocore has it

    class DocumentTooLarge(Exception):  # noqa: N818 - as pymongo has it
        pass

    assert _too_large(ClientError()) == "InvalidParameterValue"
    assert _too_large(DocumentTooLarge()) == "DocumentTooLarge"
    assert _too_large(ConnectionError("reset")) is None
