"""From a provider's answer to a consumer that is not ours: exactly one event for each transition a poll could see."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from harness import (
    bridge,
    consuming_kombu,
    consuming_rabbitmq,
    consuming_tail,
    differences,
    expected,
    missing,
    until,
    write_config,
)

from bridge.simulator import Simulator, SimulatorSettings

LIVELY = SimulatorSettings(
    seed=11,
    speed=60.0,
    messages_per_minute=2.0,
    recipients_per_message=20.0,
    drops_per_minute=10.0,
    texts_per_minute=0.0,
    emails_per_minute=0.0,
    sends_per_minute=7.0,
    email_sends_per_minute=0.0,
    late_share=0.05,
    failed_share=0.2,
    inconclusive_share=0.1,
)


@asynccontextmanager
async def setting(kind: str, folder: Path, simulator: Simulator, request: pytest.FixtureRequest, **values):
    """Give a configuration on one pair of servers, and a consumer of another client that listens already."""
    if kind == "redis store, rabbitmq broker":
        store, broker = request.getfixturevalue("redis_url"), request.getfixturevalue("rabbitmq_url")
        config = write_config(folder, simulator, store=store, broker=broker, **values)
        async with consuming_rabbitmq(broker) as consumer:
            yield config, consumer
    elif kind == "redis store, redis broker":
        url = request.getfixturevalue("redis_url")
        config = write_config(folder, simulator, store=url, broker=url.replace("/0", "/1"), **values)
        async with consuming_kombu(url.replace("/0", "/1")) as consumer:
            yield config, consumer
    else:
        config = write_config(folder, simulator, **values)
        async with consuming_tail(folder, config) as consumer:
            yield config, consumer


KINDS = ["redis store, rabbitmq broker", "redis store, redis broker", "embedded"]


async def complete(simulator: Simulator, consumer, compare=differences) -> None:
    """Stop the world's time, and wait until everything was seen and heard."""
    simulator.time.freeze()
    await until(lambda: not simulator.unseen(), "the bridge has looked at every resource")
    with suppress(TimeoutError):
        await until(lambda: not compare(simulator, consumer), "the consumer has heard all that was shown")
    assert compare(simulator, consumer) == {}


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", KINDS)
async def test_every_visible_transition_is_exactly_one_event(kind, tmp_path, request, record_property):
    async with (
        Simulator(LIVELY) as simulator,
        setting(kind, tmp_path, simulator, request) as (config, consumer),
    ):
        with bridge(tmp_path, "run", "-c", str(config)) as running:
            await until(lambda: len(consumer.events) > 400, "400 events")
            await complete(simulator, consumer)
            assert await asyncio.to_thread(running.stop) == 0
        shown = sum(map(len, expected(simulator).values()))
        record_property("transitions", shown)
        assert len(consumer.events) == len(set(consumer.ids)) == shown
        assert len(expected(simulator)) > 100
        types = Counter(event["type"] for event in consumer.events)
        assert {"bridge.voice.recipient.failed", "bridge.voicemail.drop.delivered", "bridge.sms.message.not_sent"} <= {
            *types
        }
        for event, topic in zip(consumer.events, consumer.topics, strict=True):
            detail = event["data"]["detail"]
            assert topic == event["type"].removeprefix("bridge.") + (f".{detail}" if detail else "")
        if "rabbitmq" in kind:
            for event, message in zip(consumer.events, consumer.properties, strict=True):
                assert message.message_id == event["id"]
                assert message.type == event["type"]
                assert message.content_type == "application/cloudevents+json"
                assert message.delivery_mode == 2
                assert message.timestamp is not None


@pytest.mark.acceptance
@pytest.mark.parametrize("kind", KINDS)
async def test_restart_after_kill_loses_nothing_and_keeps_ids(kind, tmp_path, request):
    async with (
        Simulator(LIVELY) as simulator,
        setting(kind, tmp_path, simulator, request, lease="2s") as (config, consumer),
    ):
        for count in (100, 250, 400):
            with bridge(tmp_path, "run", "-c", str(config)) as running:
                await until(lambda count=count: len(consumer.events) > count, f"{count} events")
                await asyncio.to_thread(running.kill)
        with bridge(tmp_path, "run", "-c", str(config)) as running:
            await complete(simulator, consumer, missing)
            assert await asyncio.to_thread(running.stop) == 0
        # What was published and not yet marked comes again, with the same id; nothing else does.
        occurrences = {(event["subject"], event["data"]["status"], event["id"]) for event in consumer.events}
        assert len({event_id for *_, event_id in occurrences}) == len(occurrences)
        assert len(occurrences) == sum(map(len, consumer.histories.values()))


@pytest.mark.acceptance
async def test_second_replica_publishes_nothing_twice_and_takes_over(tmp_path, request):
    kind = "redis store, rabbitmq broker"
    async with (
        Simulator(LIVELY) as simulator,
        setting(kind, tmp_path, simulator, request, lease="2s") as (config, consumer),
    ):
        with (
            bridge(tmp_path, "run", "-c", str(config), name="first") as first,
            bridge(tmp_path, "run", "-c", str(config), name="second") as second,
        ):
            await until(lambda: len(consumer.events) > 200, "200 events")
            await asyncio.to_thread(first.kill)
            arrived = len(consumer.events)
            await until(lambda: len(consumer.events) > arrived + 100, "the second goes on", within=15)
            await complete(simulator, consumer, missing)
            assert await asyncio.to_thread(second.stop) == 0
        occurrences = {(event["subject"], event["data"]["status"], event["id"]) for event in consumer.events}
        assert len(occurrences) == len(set(consumer.ids)) == sum(map(len, consumer.histories.values()))


@pytest.mark.acceptance
async def test_two_replicas_that_live_publish_each_event_once(tmp_path, request):
    kind = "redis store, rabbitmq broker"
    async with Simulator(LIVELY) as simulator, setting(kind, tmp_path, simulator, request) as (config, consumer):
        with (
            bridge(tmp_path, "run", "-c", str(config), name="first") as first,
            bridge(tmp_path, "run", "-c", str(config), name="second") as second,
        ):
            await until(lambda: len(consumer.events) > 300, "300 events")
            await complete(simulator, consumer)
            assert (first.stop(), second.stop()) == (0, 0)
        assert len(consumer.events) == len(set(consumer.ids)) == sum(map(len, expected(simulator).values()))
