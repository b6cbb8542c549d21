"""Ingest: a provider's pages, classified, committed in Redis and confirmed by a RabbitMQ quorum queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import kombu

from benchmarks.remote_server import STATUSES
from benchmarks.rig import EXCHANGE, Rig, Sides, until

BATCH = 500
_MESSAGES = 8
_SINK = {"type": "stdout", "topics": ["#"]}


def bodies(count: int) -> list[bytes]:
    """Return ready bytes of the length that our events have."""
    fill = "x" * 700
    return [f'{{"specversion":"1.0","id":"{number:032x}","data":"{fill}"}}'.encode() for number in range(count)]


def publish_confirmed(url: str, events: Sequence[bytes], topic: str) -> float:
    """Publish ready bytes by kombu in batches, waiting once for the confirms of each; return events a second."""
    with kombu.Connection(url) as connection:
        channel = connection.default_channel
        channel.confirm_select()
        open_tags: set[int] = set()

        def confirmed(tag: int, multiple: bool) -> None:  # noqa: FBT001 - py-amqp's signature
            if multiple:
                open_tags.difference_update([open_tag for open_tag in open_tags if open_tag <= tag])
            else:
                open_tags.discard(tag)

        channel.events["basic_ack"].add(confirmed)
        producer = kombu.Producer(channel, exchange=kombu.Exchange(EXCHANGE, type="topic"), auto_declare=False)
        started = time.perf_counter()
        sent = 0
        for start in range(0, len(events), BATCH):
            for body in events[start : start + BATCH]:
                sent += 1
                open_tags.add(sent)
                producer.publish(
                    body, routing_key=topic, content_type="application/cloudevents+json", content_encoding="utf-8",
                    delivery_mode=2, mandatory=True, message_id=f"{sent:032x}", type="bridge.sms.recipient.sent",
                )  # fmt: skip
            while open_tags:
                connection.drain_events(timeout=10)
        return len(events) / (time.perf_counter() - started)


async def ours(rig: Rig, recipients: int, sides: Sides) -> None:
    """Run the bridge through the statuses of all recipients; each status is a round."""
    per_message = recipients // _MESSAGES
    paths = rig.far.make(messages=_MESSAGES, recipients=per_message, phase=STATUSES[0])
    config = rig.config("ingest", sources={"a": rig.source(paths)}, sinks={"out": _SINK})
    total = per_message * _MESSAGES
    async with rig.store() as store:

        async def confirmed(expected: int) -> None:
            async def done() -> bool:
                state = await store.journal("a")
                return state.confirmed - state.base >= expected

            await until(done, f"{expected} events confirmed")

        with rig.bridge(config, "poll", "relay"):
            await confirmed(total + _MESSAGES)
            for number, phase in enumerate(STATUSES[1:], start=2):
                rig.far.make(messages=_MESSAGES, recipients=per_message, phase=phase)
                started = time.perf_counter()
                await confirmed(number * total + _MESSAGES)
                sides.add("ours", total / (time.perf_counter() - started))
    rig.drop("bridge.sink.out")


def measure(rig: Rig) -> Sides:
    """Let both take turns."""
    sides = Sides()
    recipients = rig.scale.of(20_000, 4_000)
    events = bodies(recipients)
    for _ in range(rig.scale.of(3, 1)):
        rig.reset()
        asyncio.run(ours(rig, recipients, sides))
        for _ in range(2):
            rig.queue("bare")
            sides.add("bare", publish_confirmed(rig.rabbitmq.url, events, "sms.recipient.sent"))
            rig.drop("bare")
    return sides
