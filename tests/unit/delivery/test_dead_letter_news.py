"""Deliveries have news: dead letters and failing endpoints are published once, and never to the sink in question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rigs.delivery import World as DeliveryWorld
from rigs.delivery import event as made

from bridge.adapters.sqlite.store import SqliteStore
from bridge.delivery.dead_letter_news import MAX_LETTERS, DeadLetterNews
from bridge.delivery.failure_alarm import FailureAlarm
from bridge.domain.catalogue import SinkData, SinkFailing, SinkRecovered, internal_event
from bridge.domain.errors import Permanent, Transient
from bridge.domain.event import Position, WireEvent
from bridge.domain.own_news import DEAD_TOPIC, is_about
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit
from bridge.testing.fakes import ManualTime

JOURNAL = "_bridge"
AT = datetime(2026, 3, 2, 10, tzinfo=UTC)
SECRET = "+15550001234"


@dataclass
class World:
    """A store in which deliveries die."""

    store: SqliteStore
    time: ManualTime

    def news(self) -> DeadLetterNews:
        return DeadLetterNews(self.store, self.time.clock, JOURNAL)

    async def commit(self, *events: WireEvent, journal: str = "city") -> list[Position]:
        last = await self.store.commit(None, Commit(journal, events=list(events)))
        return [Position(journal, last - len(events) + 1 + index) for index in range(len(events))]

    async def die(self, *positions: Position, sink: str = "crm", reason: str = "permanent") -> None:
        await self.store.enqueue(sink, [NewDelivery(position) for position in positions], self.time.clock.epoch())
        await asyncio.gather(*(self.store.dead_letter(sink, position, reason, None) for position in positions))

    async def published(self) -> list[dict]:
        return [json.loads(entry.event.body) for entry in await self.store.read(JOURNAL, 0, 1000)]


@pytest.fixture
async def dead(tmp_path: Path) -> AsyncIterator[World]:
    time = ManualTime(AT)
    store = SqliteStore(tmp_path / "bridge.db", clock=time.clock)
    await store.open()
    yield World(store, time)
    await store.close()


def letter(number: int) -> WireEvent:
    body = json.dumps({"id": f"e{number}", "subject": f"/r/{number}", "data": {"phone": SECRET}}).encode()
    return WireEvent(f"e{number}", "sms.recipient.failed", 1_700_000_000, body)


async def test_dead_letters_are_published_together_without_their_data(dead: World) -> None:
    news = dead.news()
    positions = await dead.commit(letter(1), letter(2))
    await dead.die(positions[0])
    await dead.die(positions[1], reason="exhausted")
    assert await news.publish("crm")
    assert await dead.published() == []  # not before another process may have written an earlier one
    dead.time.passes(seconds=3)
    assert [await news.publish("crm"), await news.publish("crm")] == [True, False]
    (event,) = await dead.published()
    assert (event["type"], event["subject"], event["data"]["sink"]) == (
        "bridge.bridge.delivery.dead",
        "/sinks/crm",
        "crm",
    )
    assert event["data"]["dead"] == [
        {"position": str(positions[0]), "id": "e1", "topic": "sms.recipient.failed", "reason": "permanent"},
        {"position": str(positions[1]), "id": "e2", "topic": "sms.recipient.failed", "reason": "exhausted"},
    ]
    assert SECRET not in json.dumps(event)


async def test_many_dead_letters_are_several_events(dead: World) -> None:
    news = dead.news()
    positions = await dead.commit(*(letter(number) for number in range(250)))
    await dead.die(*positions)
    dead.time.passes(seconds=3)
    while await news.publish("crm"):
        pass
    events = await dead.published()
    assert [len(event["data"]["dead"]) for event in events] == [MAX_LETTERS, MAX_LETTERS, 50]
    assert sorted(letter["position"] for event in events for letter in event["data"]["dead"]) == sorted(
        map(str, positions)
    )


async def test_processes_publish_each_dead_letter_once(dead: World) -> None:
    processes = [dead.news() for _ in range(3)]
    for _ in range(20):
        await asyncio.gather(*(news.publish("crm") for news in processes))
        await dead.die(*await dead.commit(*(letter(number) for number in range(5))))
        dead.time.passes(seconds=1)
        processes[0] = dead.news()  # one is started again
    dead.time.passes(seconds=5)
    for news in processes:
        await news.publish("crm")
    letters = [letter["position"] for event in await dead.published() for letter in event["data"]["dead"]]
    assert len(letters) == len(set(letters)) == 100


async def test_what_was_dead_before_is_no_news(dead: World) -> None:
    await dead.die(*await dead.commit(letter(1)))
    dead.time.passes(minutes=5)
    news = dead.news()
    await news.publish("crm")
    dead.time.passes(seconds=5)
    assert not await news.publish("crm")
    assert await dead.published() == []


async def test_dead_letter_of_news_makes_no_news(dead: World) -> None:
    news = dead.news()
    await dead.die(*await dead.commit(letter(1)))
    dead.time.passes(seconds=3)
    await news.publish("crm")
    (entry,) = await dead.store.read(JOURNAL, 0, 9)
    assert entry.event.topic == DEAD_TOPIC
    await dead.die(entry.position, sink="ops")
    dead.time.passes(seconds=3)
    await news.publish("ops")
    assert not await news.publish("ops")
    assert len(await dead.published()) == 1


async def test_clock_that_was_set_back_loses_no_news(dead: World) -> None:
    news = dead.news()
    dead.time.set_by = 3600.0
    await dead.die(*await dead.commit(letter(1)))
    dead.time.passes(seconds=3)
    await news.publish("crm")
    dead.time.set_by = 0.0
    await news.publish("crm")
    await dead.die(*await dead.commit(letter(2)))
    dead.time.passes(seconds=3)
    await news.publish("crm")
    assert {letter["id"] for event in await dead.published() for letter in event["data"]["dead"]} == {"e1", "e2"}


def test_news_is_about_one_sink() -> None:
    made = {}
    for cls in (SinkFailing, SinkRecovered):
        made[cls] = internal_event(
            cls, SinkData, source="/bridge/sinks", subject="/sinks/crm", occurrence="1", now=AT, reason="x"
        ).to_wire()
    assert is_about(made[SinkFailing], "crm")
    assert not is_about(made[SinkFailing], "crm2")
    assert not is_about(made[SinkRecovered], "crm")


async def test_sink_gets_no_news_about_itself(world: DeliveryWorld) -> None:
    news = [
        internal_event(
            SinkFailing, SinkData, source="/bridge/sinks", subject=f"/sinks/{sink}", occurrence="1", now=AT
        ).to_wire()
        for sink in ("crm", "ops")
    ]
    await world.publish(news[0], made(1), news[1])
    async with world.running():
        await world.delivered(2)
    assert {outgoing.wire.id for outgoing in world.sink.delivered} == {"e1", news[1].id}
    books = (await world.store.counts("crm"))["city"]
    assert (books.delivered, books.filtered, books.waiting, books.dead) == (2, 1, 0, 0)


def test_alarm_is_raised_once_and_ends_with_a_success() -> None:
    alarm = FailureAlarm(3)
    assert [alarm.on_failure() for _ in range(5)] == [False, False, True, False, False]
    assert [alarm.on_success(), alarm.on_success()] == [True, False]
    assert [alarm.on_failure() for _ in range(3)] == [False, False, True]
    never = FailureAlarm(0)
    assert not any(never.on_failure() for _ in range(100))


@pytest.mark.parametrize("after", [0, 3])
async def test_failing_sink_is_published_and_answers_again(world: DeliveryWorld, after: int) -> None:
    failures = 0

    def answer(_: object) -> None:
        nonlocal failures
        failures += 1
        if failures <= 4:
            raise Transient("HTTP 500")

    world.sink.answer = answer
    world.set(retry=["10ms"] * 9, alarm_after=after)
    await world.publish(made(1))
    async with world.running():
        await world.delivered(1)
        await world.until(lambda: len(world.reported) == (2 if after else 0))
    assert world.reported == (["failing", "answering"] if after else [])


async def test_refusing_endpoint_is_not_failing(world: DeliveryWorld) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Permanent("HTTP 400"))
    world.set(alarm_after=1)
    await world.publish(*map(made, range(5)))
    async with world.running():
        await world.until(lambda: world.outcomes.count("dead") == 5)
    assert world.reported == []
