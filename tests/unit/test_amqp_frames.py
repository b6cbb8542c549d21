"""The frames that we write and read ourselves are those that py-amqp would have written and read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aio_pika
import amqp
import pytest
from amqp import spec
from amqp.method_framing import frame_writer
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters import message
from bridge.adapters.kombu.amqp_codec import DeliverDecoder, PublishEncoder
from bridge.adapters.kombu.broker import KombuBroker
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position, WireEvent

FRAME_MAX = 4096
words = st.text(st.characters(codec="ascii", categories=("Ll", "Nd"), include_characters="_"), min_size=1, max_size=20)
entries = st.builds(
    JournalEntry,
    st.builds(Position, words, st.integers(1, 2**60)),
    st.builds(
        WireEvent,
        id=st.text(min_size=1, max_size=60),
        topic=st.lists(words, min_size=3, max_size=4).map(".".join),
        time=st.integers(-(2**40), 2**40),
        body=st.binary(max_size=3 * FRAME_MAX),
    ),
)


def by_the_library(entry: JournalEntry, channel: int, exchange: str) -> bytes:
    written: list[bytes] = []
    transport = SimpleNamespace(write=lambda data: written.append(bytes(data)))
    connection = SimpleNamespace(frame_max=FRAME_MAX, bytes_sent=0)
    event = entry.event
    content = amqp.Message(
        event.body,
        content_type=message.CONTENT_TYPE,
        content_encoding=message.ENCODING,
        application_headers=message.headers(entry),
        **message.properties(event),
    )
    arguments = dumps("Bssbb", (0, exchange, event.topic, True, False))
    frame_writer(connection, transport)(1, channel, spec.Basic.Publish, arguments, content)
    return b"".join(written)


def brought(entry: JournalEntry, channel: int, consumer: str, tag: int, **differing: object) -> bytes:
    """Return what RabbitMQ sends to a consumer, as the library writes it."""
    written: list[bytes] = []
    transport = SimpleNamespace(write=lambda data: written.append(bytes(data)))
    event = entry.event
    properties = {
        "content_type": message.CONTENT_TYPE, "content_encoding": message.ENCODING,
        "application_headers": message.headers(entry), **message.properties(event), **differing,
    }  # fmt: skip
    content = amqp.Message(event.body, **properties)
    arguments = dumps("sLbss", (consumer, tag, False, "bridge.events", event.topic))
    frame_writer(SimpleNamespace(frame_max=2**20, bytes_sent=0), transport)(
        1, channel, spec.Basic.Deliver, arguments, content
    )
    return b"".join(written)


def whole(entries: list[JournalEntry], sizes: list[int], upto: int) -> int:
    """Return how many messages at the front lie before a place, none of them empty."""
    count = end = 0
    for entry, size in zip(entries, sizes, strict=True):
        end += size
        if end > upto or not entry.event.body:
            break
        count += 1
    return count


@given(st.lists(entries, max_size=5), st.integers(1, 2047), words, st.data())
def test_what_frames_wrote_is_read_wherever_it_is_cut_off(
    entries: list[JournalEntry], channel: int, consumer: str, data: st.DataObject
) -> None:
    pieces = [brought(entry, channel, consumer, tag) for tag, entry in enumerate(entries, 7)]
    stream = b"".join(pieces)
    cut = data.draw(st.integers(0, len(stream)))
    decoded, end = DeliverDecoder(channel, consumer, 3).decode(stream[:cut], 500)
    count = whole(entries, [*map(len, pieces)], cut)
    assert end == sum(map(len, pieces[:count]))
    assert decoded == [
        message.received(
            entry.event.topic, entry.event.body,
            {"message_id": entry.event.id, "timestamp": message.amqp_timestamp(entry.event)},
            message.headers(entry), (3, tag),
        )
        for tag, entry in enumerate(entries[:count], 7)
    ]  # fmt: skip


SOME = JournalEntry(Position("a", 1), WireEvent("i", "sms.recipient.sent", 1_000_000_000, b"{}"))
OTHERS = {
    "another consumer": brought(SOME, 1, "else", 1),
    "another channel": brought(SOME, 2, "us", 1),
    "no position": brought(SOME, 1, "us", 1, application_headers={}),
    "one header more": brought(
        SOME, 1, "us", 1, application_headers={**message.headers(SOME), "x-delivery-count": 1}
    ),
    "a position that is a number": brought(SOME, 1, "us", 1, application_headers={message.POSITION_HEADER: 7}),
    "another content type": brought(SOME, 1, "us", 1, content_type="text/plain"),
    "one property more": brought(SOME, 1, "us", 1, priority=1),
    "an id that is not UTF-8": brought(SOME, 1, "us", 1).replace(b"\x01i\0", b"\x01\xff\0"),
    "a frame without its end": brought(SOME, 1, "us", 1)[:-1] + b"\0",
    "a heartbeat": b"\x08\0\0\0\0\0\0\xce",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_frames_are_left_to_the_library(name: str) -> None:
    deliveries, ours = DeliverDecoder(1, "us", 3), brought(SOME, 1, "us", 1)
    assert deliveries.decode(OTHERS[name], 500) == ([], 0)
    assert deliveries.decode(OTHERS[name] + ours, 500)[1] == (0 if OTHERS[name] else len(ours))
    decoded, end = deliveries.decode(ours + ours + OTHERS[name], 500)
    assert (len(decoded), end) == (2, 2 * len(ours))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_make_reading_fail(noise: bytes, at: int) -> None:
    ours = brought(SOME, 1, "us", 1)
    DeliverDecoder(1, "us", 3).decode(noise, 500)
    decoded, end = DeliverDecoder(1, "us", 3).decode(ours[:at] + noise + ours[at:], 500)
    assert end <= len(ours) + len(noise)
    assert (end == 0) == (not decoded)


def test_no_more_messages_are_read_than_requested() -> None:
    ours = brought(SOME, 1, "us", 1)
    decoded, end = DeliverDecoder(1, "us", 3).decode(ours * 5, 3)
    assert (len(decoded), end) == (3, 3 * len(ours))


@given(st.lists(entries, max_size=5), st.integers(1, 2047), words)
def test_every_event_is_framed_as_the_library_frames_it(
    entries: list[JournalEntry], channel: int, exchange: str
) -> None:
    frames = PublishEncoder(channel, exchange, FRAME_MAX)
    assert [frames.encode(entry) for entry in entries] == [
        by_the_library(entry, channel, exchange) for entry in entries
    ]


def test_time_before_1970_does_not_stop_the_relay() -> None:
    old = JournalEntry(Position("a", 1), WireEvent("i", "sms.recipient.sent", -62_135_596_800, b"{}"))
    new = JournalEntry(Position("a", 1), WireEvent("i", "sms.recipient.sent", 0, b"{}"))
    assert (
        PublishEncoder(1, "x", FRAME_MAX).encode(old)
        == PublishEncoder(1, "x", FRAME_MAX).encode(new)
        == by_the_library(old, 1, "x")
    )


def test_topics_without_end_do_not_fill_the_memory() -> None:
    frames = PublishEncoder(1, "bridge.events", FRAME_MAX)
    for number in range(10_000):
        entry = JournalEntry(Position("a", number + 1), WireEvent("i", f"sms.recipient.s{number}", 0, b"{}"))
        assert f"s{number}".encode() in frames.encode(entry)
    assert len(frames._topics) <= 4096


async def test_batch_of_mixed_body_sizes_arrives_whole_in_order(rabbitmq_url: str) -> None:
    sizes = [0, 1, 200_000, 131_064, 131_065, 5, 400_000, *range(100)]
    batch = [
        JournalEntry(Position("a", number), WireEvent(f"{number}", "sms.recipient.sent", 1_000_000_000, b"x" * size))
        for number, size in enumerate(sizes, 1)
    ]
    broker = KombuBroker(rabbitmq_url, exchange="bridge.events", clock=Clock())
    connection = await aio_pika.connect(rabbitmq_url)
    try:
        await broker.declare("whole", ["#"])
        assert await broker.publish(batch) == 0
        channel = await connection.channel()
        queue = await channel.get_queue("whole")
        async with asyncio.timeout(60):
            arrived = [await queue.get(no_ack=True) for _ in batch]
    finally:
        await connection.close()
        await broker.close()
    assert [(arrived_message.message_id, len(arrived_message.body)) for arrived_message in arrived] == [
        (entry.event.id, len(entry.event.body)) for entry in batch
    ]
    assert {
        (arrived_message.type, arrived_message.content_type, arrived_message.delivery_mode)
        for arrived_message in arrived
    } == {("bridge.sms.recipient.sent", "application/cloudevents+json", 2)}


async def test_own_foreign_and_large_messages_keep_published_order(
    rabbitmq_url: str,
) -> None:
    broker = KombuBroker(rabbitmq_url, exchange="bridge.events", clock=Clock())
    connection = await aio_pika.connect(rabbitmq_url)
    expected: list[str] = []
    try:
        await broker.declare("mixed", ["#"])
        channel = await connection.channel()
        exchange = await channel.get_exchange("bridge.events")
        for number in range(120):
            body = b'{"fill":"%s"}' % (b"x" * (400_000 if number % 40 == 7 else 900))
            batch = [
                JournalEntry(Position("a", number * 9 + n), WireEvent(f"{number}.{n}", "sms.recipient.sent", 1, body))
                for n in range(1, 1 + number % 9)
            ]
            await broker.publish(batch)
            foreign = aio_pika.Message(b'{"id":"f"}', message_id=f"{number}.f", priority=number % 3 or None)
            await exchange.publish(foreign, routing_key="another.publisher.here")
            expected += [*(entry.event.id for entry in batch), f"{number}.f"]
        arrived: list[tuple[str, int]] = []
        async with asyncio.timeout(60), broker.inbox("mixed", prefetch=64) as inbox:
            while len(arrived) < len(expected):
                got = await inbox.get(50, 5)
                arrived += [(message.event.id, len(message.event.body)) for message in got]
                assert all((message.position is None) == message.event.id.endswith("f") for message in got)
                assert all(message.problem is None for message in got)
                await inbox.ack(got)
        assert await broker.depth("mixed") == 0
    finally:
        await connection.close()
        await broker.close()
    assert [name for name, _ in arrived] == expected
    assert sum(length > 400_000 for _, length in arrived) == sum(number % 9 for number in range(7, 120, 40))


@pytest.mark.parametrize("event", [WireEvent("i" * 256, "a.b.c", 0, b""), WireEvent("i", "a" * 256, 0, b"")])
def test_what_amqp_cannot_carry_is_refused_before_anything_is_written(event: WireEvent) -> None:
    with pytest.raises(ValueError, match="bytes must be in range"):
        PublishEncoder(1, "bridge.events", FRAME_MAX).encode(JournalEntry(Position("a", 1), event))
