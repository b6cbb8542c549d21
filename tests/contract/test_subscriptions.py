"""A subscription of `bridge.client` keeps its promises on every broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.adapters.kombu.broker import KombuBroker
from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.client import Event, RecipientData, RecipientFailed, Subscription, Transition, subscribe
from bridge.domain.clock import Clock
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.domain.times import datetime
from bridge.protocols.broker import Broker

NOW = datetime.fromisoformat("2026-11-28T20:24:27.958+00:00")
WITHIN = 60.0
Make = Callable[..., Subscription]


def entry(seq: int, *, channel: str = "voice", detail: str | None = "busy") -> JournalEntry:
    event = RecipientFailed.of(
        id=f"event-{seq}",
        source="/govdelivery/city",
        subject=f"/messages/voice/1/recipients/{seq}",
        time=NOW,
        recordedtime=NOW,
        data=RecipientData(
            channel=channel, status="failed", detail=detail, transition=Transition.FIRST, message="/messages/voice/1"
        ),
    )
    return JournalEntry(Position("city", seq), event.to_wire())


async def first_ids(subscription: Subscription, count: int) -> list[str]:
    """Handle `count` events, and stop."""
    handled: list[str] = []
    async with asyncio.timeout(WITHIN), subscription as events:
        async for event in events:
            handled.append(event.id)
            if len(handled) == count:
                events.stop()
    return handled


async def rest(broker: Broker, queue: str) -> list[str]:
    """Return the ids of what is in a queue, once its consumers have left."""
    async with broker.inbox(queue) as inbox:
        messages = [*await inbox.get(100, 2.0)]
        while more := await inbox.get(100, 0.2):
            messages += more
        return [message.event.id for message in messages]


class SubscriptionSuite:
    """Subclass it, and give `url` and `broker`, which publishes."""

    @pytest.fixture
    def make(self, url: str) -> Make:
        def build(topics: tuple[str, ...] = ("#",), **options: Any) -> Subscription:
            return subscribe(url, topics, **{"queue": "billing", **options})

        return build

    @pytest.fixture
    async def bound(self, broker: Broker) -> None:
        await broker.declare("billing", ["#"])

    async def test_events_arrive_typed_and_in_order(self, make, broker, bound):
        await broker.publish([entry(seq) for seq in range(1, 251)])
        seen: list[Event] = []
        async with asyncio.timeout(WITHIN):
            async for event in make():
                seen.append(event)
                if len(seen) == 250:
                    break
        assert [event.id for event in seen] == [f"event-{seq}" for seq in range(1, 251)]
        assert isinstance(seen[0], RecipientFailed)
        assert seen[0].data.message == "/messages/voice/1"

    async def test_a_finished_event_is_acknowledged(self, make, broker, bound):
        await broker.publish([entry(1), entry(2), entry(3)])
        assert await first_ids(make(), 2) == ["event-1", "event-2"]
        assert await rest(broker, "billing") == ["event-3"]

    @pytest.mark.parametrize("way", ["exception", "break", "cancellation"])
    async def test_an_unfinished_event_comes_again(self, make, broker, bound, way):
        await broker.publish([entry(1), entry(2), entry(3)])
        handled, blocked = [], asyncio.Event()

        async def work() -> None:
            async with make() as events:
                async for event in events:
                    handled.append(event.id)
                    if event.id == "event-2" and way == "break":
                        break
                    if event.id == "event-2" and way == "exception":
                        raise LookupError
                    if event.id == "event-2":
                        blocked.set()
                        await asyncio.sleep(WITHIN)

        task = asyncio.create_task(work())
        if way == "cancellation":
            await asyncio.wait_for(blocked.wait(), WITHIN)
            task.cancel()
        with contextlib.suppress(LookupError, asyncio.CancelledError):
            await asyncio.wait_for(task, WITHIN)
        assert handled == ["event-1", "event-2"]
        assert await first_ids(make(), 2) == ["event-2", "event-3"]

    async def test_a_bare_loop_left_by_break_releases_its_event(self, make, broker, bound):
        await broker.publish([entry(1), entry(2)])
        async for event in make():
            assert event.id == "event-1"
            break
        assert await first_ids(make(), 2) == ["event-1", "event-2"]

    async def test_a_second_loop_begins_with_the_unfinished_event(self, make, broker, bound):
        await broker.publish([entry(1), entry(2)])
        handled = []
        async with asyncio.timeout(WITHIN), make() as events:
            for _ in range(2):
                async for event in events:
                    handled.append((event.id, events.tries))
                    break
        assert handled == [("event-1", 1), ("event-1", 2)]

    async def test_an_event_that_always_fails_becomes_a_dead_letter(self, make, broker, bound, tmp_path, caplog):
        await broker.publish([entry(1), entry(2)])
        seen = f"sqlite:///{tmp_path / 'seen.db'}"
        tries = []
        for _ in range(3):
            with contextlib.suppress(LookupError):
                async with asyncio.timeout(WITHIN), make(seen=seen, max_tries=3) as events:
                    async for event in events:
                        tries.append((event.id, events.tries))
                        raise LookupError
        assert tries == [("event-1", 1), ("event-1", 2), ("event-1", 3)]
        assert await first_ids(make(seen=seen), 1) == ["event-2"]
        assert "event event-1 is a dead letter in billing.dead: LookupError" in caplog.text
        assert await first_ids(make((), queue="billing.dead"), 1) == ["event-1"]

    async def test_an_event_that_kills_the_process_becomes_a_dead_letter(self, make, broker, bound, tmp_path):
        await broker.publish([entry(1), entry(2)])
        seen = f"sqlite:///{tmp_path / 'seen.db'}"
        for _ in range(2):
            async for _event in make(seen=seen, max_tries=2):
                break  # nobody says why the loop was left, as after a crash
        assert await first_ids(make(seen=seen, max_tries=2), 1) == ["event-2"]
        assert await rest(broker, "billing.dead") == ["event-1"]

    async def test_what_is_no_event_becomes_a_dead_letter(self, make, broker, bound, caplog):
        garbage = WireEvent(id="x", topic="voice.recipient.failed", time=0, body=b"[1, 2")
        await broker.publish([JournalEntry(Position("city", 1), garbage), entry(2)])
        assert await first_ids(make(), 1) == ["event-2"]
        assert "its body is no event" in caplog.text
        assert await broker.depth("billing.dead") == 1

    async def test_an_event_published_twice_is_handled_once(self, make, broker, bound):
        await broker.publish([entry(1), entry(2), entry(1)])
        await broker.publish([entry(2), entry(3)])
        assert await first_ids(make(), 3) == ["event-1", "event-2", "event-3"]
        assert await broker.depth("billing") == 0

    async def test_topics_mean_the_same_everywhere(self, make, broker):
        entries = [
            entry(1), entry(2, channel="sms", detail=None), entry(3, detail=None), entry(4, channel="sms", detail="busy"),
        ]  # fmt: skip
        # What is bound before it is published; `stop` ends the loop as soon as it waits.
        subscriptions = {
            "stem": ["voice.recipient.failed.#"],
            "word": ["*.recipient.failed"],
            "several": ["sms.recipient.failed", "voice.*.failed.busy"],
        }
        for queue, topics in subscriptions.items():
            await broker.declare(queue, topics)
        await broker.publish(entries)
        arrived = {
            queue: await first_ids(make(tuple(topics), queue=queue), 2) for queue, topics in subscriptions.items()
        }
        assert arrived == {
            "stem": ["event-1", "event-3"], "word": ["event-2", "event-3"], "several": ["event-1", "event-2"],
        }  # fmt: skip

    async def test_a_subscription_binds_its_own_queue(self, make, broker):
        loop = asyncio.create_task(first_ids(make(("sms.#",)), 1))
        async with asyncio.timeout(WITHIN):
            while await broker.publish([entry(1), entry(2, channel="sms", detail=None)]) > 1:
                await asyncio.sleep(0.05)
        assert await loop == ["event-2"]

    async def test_a_subscription_is_used_once(self, make, broker, bound):
        await broker.publish([entry(1)])
        subscription = make()
        assert await first_ids(subscription, 1) == ["event-1"]
        with pytest.raises(RuntimeError, match="call subscribe"):
            await first_ids(subscription, 1)

    async def test_a_cancelled_try_does_not_count(self, make, broker, bound, tmp_path):
        await broker.publish([entry(1)])
        tries = []
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.timeout(WITHIN), make(seen=f"sqlite:///{tmp_path / 'seen.db'}") as events:
                    async for _event in events:
                        tries.append(events.tries)
                        raise asyncio.CancelledError
        assert tries == [1, 1]

    async def test_stop_ends_a_loop_that_waits(self, make, broker, bound):
        async with asyncio.timeout(WITHIN), make() as events:
            asyncio.get_running_loop().call_later(0.3, events.stop)
            async for event in events:
                raise AssertionError(event.id)

    async def test_no_more_than_the_prefetch_is_with_one_process(self, make, broker, bound):
        await broker.publish([entry(seq) for seq in range(1, 11)])
        async with asyncio.timeout(WITHIN), make(prefetch=3) as events:
            async for event in events:
                assert event.id == "event-1"
                assert await broker.depth("billing") == 7
                break


class ServerSuite(SubscriptionSuite):
    @pytest.fixture
    async def broker(self, url: str) -> AsyncIterator[Broker]:
        broker = KombuBroker(url, exchange="bridge.events", clock=Clock())
        await broker.open()
        yield broker
        await broker.close()


class TestRabbitMQ(ServerSuite):
    @pytest.fixture
    def url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url


class TestRedis(ServerSuite):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url


class TestEmbedded(SubscriptionSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'broker.db'}"

    @pytest.fixture
    async def broker(self, tmp_path: Path) -> AsyncIterator[Broker]:
        broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
        await broker.open()
        yield broker
        await broker.close()

    async def test_a_missing_file_is_not_made(self, tmp_path, caplog):
        caplog.set_level(logging.WARNING, "bridge.client")
        subscription = subscribe(f"sqlite:///{tmp_path / 'no' / 'broker.db'}", queue="billing")
        async with asyncio.timeout(WITHIN), subscription as events:
            asyncio.get_running_loop().call_later(0.2, events.stop)
            async for event in events:
                raise AssertionError(event.id)
        assert "there is no such file" in caplog.text
        assert not (tmp_path / "no").exists()
