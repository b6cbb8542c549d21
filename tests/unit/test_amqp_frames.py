"""The frames that we write ourselves are those that py-amqp would have written."""

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
from bridge.adapters.amqp_frames import Frames
from bridge.adapters.kombu_broker import KombuBroker
from bridge.clock import Clock
from bridge.event import Entry, Position, WireEvent

FRAME_MAX = 4096
words = st.text(st.characters(codec="ascii", categories=("Ll", "Nd"), include_characters="_"), min_size=1, max_size=20)
entries = st.builds(
    Entry,
    st.builds(Position, words, st.integers(1, 2**60)),
    st.builds(
        WireEvent,
        id=st.text(min_size=1, max_size=60),
        topic=st.lists(words, min_size=3, max_size=4).map(".".join),
        time=st.integers(-(2**40), 2**40),
        body=st.binary(max_size=3 * FRAME_MAX),
    ),
)


def by_the_library(entry: Entry, channel: int, exchange: str) -> bytes:
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


@given(st.lists(entries, max_size=5), st.integers(1, 2047), words)
def test_every_event_is_framed_as_the_library_frames_it(some: list[Entry], channel: int, exchange: str) -> None:
    frames = Frames(channel, exchange, FRAME_MAX)
    assert [frames.of(one) for one in some] == [by_the_library(one, channel, exchange) for one in some]


def test_a_journal_with_a_time_before_1970_does_not_hold_up_the_relay() -> None:
    old = Entry(Position("a", 1), WireEvent("i", "sms.recipient.sent", -62_135_596_800, b"{}"))
    new = Entry(Position("a", 1), WireEvent("i", "sms.recipient.sent", 0, b"{}"))
    assert Frames(1, "x", FRAME_MAX).of(old) == Frames(1, "x", FRAME_MAX).of(new) == by_the_library(old, 1, "x")


def test_topics_without_end_do_not_fill_the_memory() -> None:
    frames = Frames(1, "bridge.events", FRAME_MAX)
    for number in range(10_000):
        one = Entry(Position("a", number + 1), WireEvent("i", f"sms.recipient.s{number}", 0, b"{}"))
        assert f"s{number}".encode() in frames.of(one)
    assert len(frames._topics) <= 4096


async def test_a_batch_of_large_and_small_bodies_arrives_whole_and_in_order(rabbitmq_url: str) -> None:
    sizes = [0, 1, 200_000, 131_064, 131_065, 5, 400_000, *range(100)]
    batch = [
        Entry(Position("a", number), WireEvent(f"{number}", "sms.recipient.sent", 1_000_000_000, b"x" * size))
        for number, size in enumerate(sizes, 1)
    ]
    broker = KombuBroker(rabbitmq_url, exchange="bridge.events", clock=Clock())
    connection = await aio_pika.connect(rabbitmq_url)
    try:
        await broker.declare("whole", ["#"])
        assert await broker.publish(batch) == 0
        channel = await connection.channel()
        queue = await channel.get_queue("whole")
        async with asyncio.timeout(20):
            arrived = [await queue.get(no_ack=True) for _ in batch]
    finally:
        await connection.close()
        await broker.close()
    assert [(one.message_id, len(one.body)) for one in arrived] == [
        (entry.event.id, len(entry.event.body)) for entry in batch
    ]
    assert {(one.type, one.content_type, one.delivery_mode) for one in arrived} == {
        ("bridge.sms.recipient.sent", "application/cloudevents+json", 2)
    }


@pytest.mark.parametrize("event", [WireEvent("i" * 256, "a.b.c", 0, b""), WireEvent("i", "a" * 256, 0, b"")])
def test_what_amqp_cannot_carry_is_refused_before_anything_is_written(event: WireEvent) -> None:
    with pytest.raises(ValueError, match="bytes must be in range"):
        Frames(1, "bridge.events", FRAME_MAX).of(Entry(Position("a", 1), event))
