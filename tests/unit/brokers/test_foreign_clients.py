"""The brokers as others see them: foreign clients and foreign messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aio_pika
import amqp
import kombu
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters import message
from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.event import Position
from bridge.testing.broker_suite import QUEUE, collect, entry, ids, nothing_more

EXCHANGE = "bridge.events"


# --- other clients read what we publish -------------------------------------------------------------------------------


async def test_another_amqp_client_reads_our_messages(rabbitmq_url: str, make: Callable[..., KombuBroker]) -> None:
    await make(rabbitmq_url).declare(QUEUE, ["#"])
    sent = entry(5, "voice.recipient.failed.no_answer")
    await make(rabbitmq_url).publish([sent])
    async with await aio_pika.connect(rabbitmq_url) as connection:
        queue = await (await connection.channel()).get_queue(QUEUE)
        got = await queue.get(timeout=60)
        await got.ack()
    assert got.body == sent.event.body
    assert got.exchange == EXCHANGE
    assert got.routing_key == "voice.recipient.failed.no_answer"
    assert got.message_id == "event-5"
    assert got.type == "bridge.voice.recipient.failed"
    assert got.timestamp is not None
    assert int(got.timestamp.timestamp()) == sent.event.time
    assert got.content_type == "application/cloudevents+json"
    assert got.content_encoding == "utf-8"
    assert got.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
    assert got.headers["bridge-position"] == "city:5"


async def test_a_plain_kombu_consumer_on_redis_reads_our_messages(
    redis_url: str, make: Callable[..., KombuBroker]
) -> None:
    """Queues of its own, bound in its own way: `a.#` has `a` too, and acknowledging one copy leaves the other's alone."""
    got: dict[str, list[kombu.Message]] = {"theirs": [], "more": []}
    exchange = kombu.Exchange(EXCHANGE, "topic", durable=True)
    publisher = make(redis_url)
    with kombu.Connection(redis_url) as connection:
        channel = connection.channel()
        queues = [kombu.Queue(name, exchange, routing_key="voice.recipient.#") for name in got]
        for queue in queues:
            queue.bind(channel).declare()
        sent = [entry(1, "voice.recipient"), entry(2, "voice.recipient.sent.human"), entry(3, "sms.recipient.sent")]
        assert await publisher.publish(sent) == 1
        consumers = [
            kombu.Consumer(channel, [queue], on_message=got[queue.name].append, accept=["application/cloudevents+json"])
            for queue in queues
        ]
        for consumer in consumers:
            consumer.consume()
        while min(map(len, got.values())) < 2:
            await asyncio.to_thread(connection.drain_events, timeout=60)
        for delivered in got["theirs"]:
            delivered.ack()
        with redis.Redis.from_url(redis_url) as client:
            assert client.hlen("unacked") == 2
    for delivered in got.values():
        assert [delivery.properties["message_id"] for delivery in delivered] == ["event-1", "event-2"]
        first = delivered[0]
        body = first.body.encode() if isinstance(first.body, str) else first.body
        assert body == sent[0].event.body
        assert first.delivery_info == {"exchange": EXCHANGE, "routing_key": "voice.recipient"}
        assert first.content_type == "application/cloudevents+json"
        assert first.content_encoding == "utf-8"
        assert first.headers == {"bridge-position": "city:1"}
        assert first.properties["type"] == "bridge.voice.recipient"
        assert first.properties["timestamp"] == sent[0].event.time
        assert first.properties["delivery_mode"] == 2


@pytest.mark.parametrize("binding", ["a.#.z", "#.z", "*.#", "a.*.z"])
async def test_foreign_redis_binding_means_the_same_as_on_rabbitmq(
    rabbitmq_url: str, redis_url: str, make: Callable[..., KombuBroker], binding: str
) -> None:
    topics = ["a", "z", "a.z", "a.b.z", "a.b.c.z", "a.b", "z.a"]
    routed = []
    for url in (rabbitmq_url, redis_url):
        broker = make(url)
        await broker.declare(QUEUE, ["nothing"])
        with kombu.Connection(url) as connection:
            channel = connection.channel()
            kombu.Queue("theirs", kombu.Exchange(EXCHANGE, "topic"), routing_key=binding).bind(channel).declare()
            routed.append([topic for topic in topics if await broker.publish([entry(1, topic)]) == 0])
    assert routed[0] == routed[1]
    assert routed[0]


# --- we read what others publish --------------------------------------------------------------------------------------


async def test_foreign_amqp_messages_are_read_where_possible(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    with kombu.Connection(rabbitmq_url) as connection:
        channel = connection.channel()
        odd = {"bridge-position": 17, "x": [1, {"y": None}], "z": b"\xff"}
        for foreign in (
            amqp.Message(b'{"id": "theirs", "time": "2013-03-15T21:11:02Z"}'),
            amqp.Message(b'{"no": "id"}'),
            amqp.Message(b"not json", message_id="m-3", application_headers={"bridge-position": "nonsense"}),
            amqp.Message(b"{}", message_id="m-4", application_headers=odd),
        ):
            channel.basic_publish(foreign, EXCHANGE, "their.topic")
        channel.close()
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 4)
        await inbox.ack(got)
    assert [message.event.id for message in got][::2] == ["theirs", "m-3"]
    assert got[0].event.time == 1_363_381_862
    assert [message.problem for message in got] == [
        None,
        "the message has no id",
        "the body is not a JSON object",
        None,
    ]
    assert all(message.position is None for message in got)
    assert {message.event.topic for message in got} == {"their.topic"}


async def test_property_that_is_not_text_does_not_stop_the_queue(
    rabbitmq_url: str, make: Callable[..., KombuBroker]
) -> None:
    broker = make(rabbitmq_url)
    await broker.declare(QUEUE, ["#"])
    with kombu.Connection(rabbitmq_url) as connection:
        channel = connection.channel()
        poison = amqp.Message(b'{"id": "inside"}', message_id="m")
        serialized = poison._serialize_properties()
        poison._serialize_properties = lambda: serialized.replace(b"\x01m", b"\x01\xff")
        channel.basic_publish(poison, EXCHANGE, "their.topic")
        channel.basic_publish(amqp.Message(b'{"id": "next"}'), EXCHANGE, "their.topic")
        channel.close()
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 2)
        await inbox.ack(got)
        assert await nothing_more(inbox)
    assert ids(got) == ["inside", "next"]


async def test_foreign_redis_messages_are_read_where_possible(redis_url: str, make: Callable[..., KombuBroker]) -> None:
    """What kombu's own producer sent, with any priority; and what is no envelope at all."""
    broker = make(redis_url)
    await broker.declare(QUEUE, ["their.#"])
    with kombu.Connection(redis_url) as connection:
        producer = connection.Producer(exchange=kombu.Exchange(EXCHANGE, "topic", durable=True))
        producer.publish({"id": "low"}, routing_key="their", serializer="json")
        producer.publish({"id": "high"}, routing_key="their.topic", serializer="json", priority=9)
    with redis.Redis.from_url(redis_url) as client:
        for garbage in (
            b"\xff\x00",
            b"[]",
            b"{}",
            json.dumps({"properties": {}, "body": 3}),
            '{"properties": [], "body": ""}',
        ):
            client.lpush(QUEUE, garbage)
    async with broker.inbox(QUEUE) as inbox:
        got = await collect(inbox, 7)
        await inbox.ack(got)
        assert await nothing_more(inbox)
    known = {message.event.id: message for message in got if message.problem is None}
    assert {name: value.event.topic for name, value in known.items()} == {"low": "their", "high": "their.topic"}
    assert sum(message.problem is not None for message in got) == 5
    assert await broker.depth(QUEUE) == 0


@given(
    body=st.one_of(st.binary(), st.text(), st.none(), st.integers()),
    properties=st.dictionaries(
        st.sampled_from(["message_id", "timestamp"]), st.one_of(st.text(), st.integers(), st.none(), st.binary())
    ),
    headers=st.one_of(
        st.none(),
        st.text(),
        st.dictionaries(st.just("bridge-position"), st.one_of(st.text(), st.integers(), st.none())),
    ),
)
def test_no_message_is_so_odd_that_reading_it_fails(body: object, properties: dict[str, Any], headers: object) -> None:
    received = message.received("t", body, properties, headers, 1)
    other = message.received("t", body, properties, headers, 2)
    assert received.event == other.event
    assert received.event.id


@given(st.text(min_size=1), st.integers(min_value=1))
def test_a_position_survives_its_header(source: str, seq: int) -> None:
    got = message.received("t", b'{"id": "x"}', {}, {"bridge-position": str(Position(source, seq))}, 1)
    assert got.position == (source, seq)


@pytest.mark.parametrize("text", ["yesterday", 7, None, "9999-12-31T23:59:59-23:59"])
def test_a_time_that_cannot_be_read_is_no_problem(text: object) -> None:
    got = message.received("t", json.dumps({"id": "x", "time": text}).encode(), {}, {}, 1)
    assert (got.event.time, got.problem) == (0, None) or got.event.time > 0
