"""Deliveries: taken, waiting or dead, and never in a worker alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.adapters.sqlite.store import SqliteStore
from bridge.delivery.audit import Audit
from bridge.delivery.claims import CLAIM
from bridge.delivery.sending import Outcome
from bridge.delivery.worker import DeliveryBackends, DeliveryWorker
from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unavailable
from bridge.domain.event import Event, JournalEntry, Position, WireEvent
from bridge.domain.event_view import EventView
from bridge.protocols.deliveries import Delivery as Waiting
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit
from bridge.protocols.sink import Outgoing, SinkSettings
from bridge.relay.relay import Relay
from bridge.testing.fakes import KeepingSink


def event(number: int, *, lane: str = "/r/1", topic: str = "sms.recipient.failed") -> WireEvent:
    body = json.dumps({"id": f"e{number}", "partitionkey": lane, "n": number}).encode()
    return WireEvent(f"e{number}", topic, 1_700_000_000, body)


class Store(SqliteStore):
    """A store that can be away for those who claim, and for those who settle."""

    away = False
    settles = True

    async def settle(self, sink: str, positions: Sequence[Position]) -> int:
        if not self.settles:
            raise Unavailable("the store is away")
        return await super().settle(sink, positions)

    async def next_due(self, sink: str) -> float | None:
        if self.away:
            raise Unavailable("the store is away")
        return await super().next_due(sink)

    async def claim(self, sink: str, now: float, until: float, limit: int) -> Sequence[Waiting]:
        if self.away:
            raise Unavailable("the store is away")
        return await super().claim(sink, now, until, limit)


class World:
    """A store, a broker and one sink, driven by a test."""

    def __init__(self, store: Store, broker: SqliteBroker) -> None:
        self.store = store
        self.broker = broker
        self.sink = KeepingSink()
        self.settings = SinkSettings(type="keeping", topics=["#"], retry=["5s", "5s"])
        self.outcomes: list[str] = []
        self.disabled: list[str] = []
        self.told: list[str] = []
        self.moments: list[datetime] = []
        self.untold = 0
        self.offset = 0.0
        self.slept = 0.0
        self.clock = Clock(
            now=lambda: datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.offset, UTC),
            monotonic=lambda: time.monotonic() + self.slept,
        )

    def set(self, **changes) -> None:
        self.settings = SinkSettings.model_validate(
            {"type": "keeping", "topics": ["#"], "retry": ["5s", "5s"]} | changes
        )

    def delivery(self) -> DeliveryWorker:
        async def send(claimed) -> None:
            await self.sink.send(
                Outgoing(claimed.event, claimed.attempts + 1, lambda body: Event.model_construct(id=body))
            )

        async def changed(state: str, reason: str, at: datetime) -> None:
            self.moments.append(at)
            if self.untold:
                self.untold -= 1
                raise Unavailable("the store is away")
            self.disabled.append(reason)
            self.told.append(state)

        def outcome(one: Outcome) -> None:
            self.outcomes.append(one.result)

        stores = DeliveryBackends(self.store, self.store, self.broker)
        return DeliveryWorker("crm", self.settings, stores, self.clock, send=send, outcome=outcome, changed=changed)

    @asynccontextmanager
    async def running(self, grace: float = 5.0) -> AsyncIterator[DeliveryWorker]:
        delivery, stop = self.delivery(), asyncio.Event()
        task = asyncio.ensure_future(delivery.run(stop, grace=grace))
        try:
            yield delivery
        finally:
            stop.set()
            await task

    async def publish(self, *events: WireEvent) -> None:
        await self.broker.declare("bridge.sink.crm", self.settings.topics)
        await self.store.commit(None, Commit("city", events=events))
        lease = await self.store.acquire("relay/city", "me", 60)
        await Relay(self.store, self.broker, self.clock).drain(lease, "city")

    async def positions(self) -> list[Position]:
        return [entry.position for entry in await self.store.read("city", 0, 1000)]

    async def until(self, condition: Callable[[], object], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return
                await asyncio.sleep(0.01)

    async def taken(self, count: int) -> None:
        async def settled() -> bool:
            return sum(one.taken for one in (await self.store.counts("crm")).values()) == count

        await self.until(settled)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock()
    store, broker = Store(tmp_path / "bridge.db", clock=clock), SqliteBroker(tmp_path / "broker.db", clock=clock)
    await store.open()
    await broker.open()
    yield World(store, broker)
    await broker.close()
    await store.close()


async def test_a_far_side_that_asks_for_patience_is_left_alone_and_what_was_not_sent_spends_no_try(
    world: World,
) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("HTTP 429", retry_after=20.0))
    world.set(concurrency=4)
    await world.publish(*map(event, range(40)))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries >= 4 and not delivery.busy)
        assert world.sink.tries == 4
        assert delivery.paused
        tries = [len(one.attempts) for one in await world.store.deliveries("crm")]
        assert sorted(tries) == [0] * 36 + [1] * 4
        world.sink.answer = lambda _: None
        world.slept = 20.0
        delivery.wake()
        await world.taken(36)


async def test_nothing_is_begun_while_as_many_wait_for_their_settlement_as_are_sent_at_once(world: World) -> None:
    world.set(concurrency=3)
    world.store.settles = False
    async with world.running() as delivery:
        await world.publish(*(event(number, lane=f"/r/{number}") for number in range(20)))
        await world.until(lambda: len(delivery._sender.unsettled) >= 3)
        for _ in range(200):  # whoever was being sent ends; whoever wanted to begin had every turn to do so
            await asyncio.sleep(0)
        assert 3 <= len(world.sink.taken) < 2 * 3
        world.store.settles = True
        await world.taken(20)
    assert sorted(one.wire.id for one in world.sink.taken) == sorted(f"e{number}" for number in range(20))


async def test_whoever_waits_for_a_settlement_does_not_hold_up_the_end(world: World) -> None:
    world.set(concurrency=3)
    world.store.settles = False
    async with asyncio.timeout(60), world.running(grace=60.0) as delivery:
        await world.publish(*(event(number, lane=f"/r/{number}") for number in range(20)))
        await world.until(lambda: len(delivery._sender.unsettled) >= 3)
    assert len(world.sink.taken) < 2 * 3


async def test_what_is_published_is_sent_and_settled_and_the_queue_forgets_it(world: World) -> None:
    await world.publish(*map(event, range(50)))
    async with world.running():
        await world.taken(50)
        assert await world.broker.depth("bridge.sink.crm") == 0
    assert sorted(one.wire.id for one in world.sink.taken) == sorted(f"e{n}" for n in range(50))
    assert world.sink.taken[0].wire.body == event(int(world.sink.taken[0].wire.id[1:])).body


async def test_no_more_are_sent_at_once_than_the_sink_allows(world: World) -> None:
    world.set(concurrency=3)
    await world.publish(*map(event, range(40)))
    async with world.running():
        await world.taken(40)
    assert world.sink.most_at_once == 3


async def test_what_fails_waits_in_the_store_and_is_tried_again_when_due(world: World) -> None:
    def fail_first(outgoing: Outgoing) -> None:
        if outgoing.attempt == 1:
            raise Transient("busy")

    world.sink.answer = fail_first
    await world.publish(event(1))
    async with world.running() as delivery:
        await world.until(lambda: world.outcomes == ["waits"])
        (waiting,) = await world.store.deliveries("crm")
        assert [one.error for one in waiting.attempts] == ["busy"]
        world.offset = 6.0
        delivery.wake()
        await world.taken(1)
    assert [one.attempt for one in world.sink.taken] == [2]


async def test_a_restart_keeps_what_waits(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("busy"))
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["waits"])
    world.sink.answer = lambda _: None
    world.offset = 10.0
    async with world.running():
        await world.taken(1)
    assert world.sink.taken[0].attempt == 2


async def test_spent_tries_make_a_dead_letter_with_its_whole_history(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("busy"))
    world.set(retry=[])
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["dead"])
    (dead,) = await world.store.deliveries("crm", states=["dead"])
    assert (dead.reason, [one.error for one in dead.attempts]) == ("exhausted", ["busy"])


async def test_a_permanent_error_is_a_dead_letter_at_once_and_holds_up_nothing(world: World) -> None:
    def refuse(outgoing: Outgoing) -> None:
        if outgoing.wire.id == "e1":
            raise Permanent("HTTP 400")

    world.sink.answer = refuse
    await world.publish(event(1), event(2))
    async with world.running():
        await world.taken(1)
    (dead,) = await world.store.deliveries("crm", states=["dead"])
    assert dead.reason == "permanent"


async def test_an_error_that_a_plugin_did_not_name_is_tried_again_and_its_text_is_not_kept(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(RuntimeError("+15551234567"))
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["waits"])
    (waiting,) = await world.store.deliveries("crm")
    assert "1234567" not in waiting.attempts[0].error
    assert "RuntimeError" in waiting.attempts[0].error


async def test_a_sink_that_does_not_answer_is_given_up_after_its_time(world: World) -> None:
    world.set(send_timeout="50ms")
    world.sink.gate = asyncio.Event()
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["waits"])
    (waiting,) = await world.store.deliveries("crm")
    assert "no answer" in waiting.attempts[0].error


async def test_an_endpoint_that_is_gone_gets_nothing_more_and_no_try_is_spent(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    world.set(concurrency=1)
    await world.publish(*map(event, range(5)))
    async with world.running() as delivery:
        await world.until(lambda: delivery.disabled and not delivery.busy)
        assert world.disabled == ["HTTP 410"]
        waiting = await world.store.deliveries("crm")
        assert [len(one.attempts) for one in waiting] == [0] * 5
        assert world.sink.tries == 1
        world.sink.answer = lambda _: None
        delivery.enable()
        await world.taken(5)


async def test_of_many_events_that_find_the_endpoint_gone_one_tells(world: World) -> None:
    world.sink.gate = asyncio.Event()
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    world.set(concurrency=16)
    await world.publish(*map(event, range(40)))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries == 16)
        world.sink.gate.set()
        await world.until(lambda: delivery.noted and not delivery.busy)
        assert world.told == ["gone"]
        assert world.outcomes == ["disabled"] * 16


async def test_what_became_of_a_sink_is_told_until_the_store_has_it_and_always_as_the_same_moment(
    world: World,
) -> None:
    world.untold = 2
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    await world.publish(event(1))
    async with world.running() as delivery:
        await world.until(lambda: delivery.disabled)
        assert not delivery.noted
        await world.until(lambda: delivery.noted)
    assert world.told == ["gone"]
    assert len(world.moments) == 3
    assert len(set(world.moments)) == 1


async def test_what_arrives_while_the_endpoint_is_gone_waits_in_the_store(world: World) -> None:
    async with world.running() as delivery:
        delivery.disable()
        await world.publish(event(1))

        async def waits() -> bool:
            return len(await world.store.deliveries("crm")) == 1

        await world.until(waits)
        assert world.sink.tries == 0


def faster(times: float) -> Clock:
    """Return a clock that runs faster than time."""
    began, real = time.time(), time.time
    return Clock(
        now=lambda: datetime.fromtimestamp(began + (real() - began) * times, UTC),
        monotonic=lambda: time.monotonic() * times,
        sleep=lambda seconds: asyncio.sleep(seconds / times),
    )


async def test_a_far_side_that_is_down_is_probed_and_no_event_spends_its_tries_meanwhile(world: World) -> None:
    down, asked = True, []

    def answer(outgoing: Outgoing) -> None:
        asked.append(outgoing.wire.id)
        if down:
            raise Transient("connection refused")

    async def spent() -> dict[Position, int]:
        return {one.position: len(one.attempts) for one in await world.store.deliveries("crm", limit=100)}

    world.sink.answer = answer
    world.set(retry=["1s"] * 50, concurrency=4)
    world.clock = faster(20)
    await world.publish(*map(event, range(40)))
    async with world.running() as delivery:
        await world.until(lambda: "disabled" in world.told)
        await world.until(lambda: not delivery.busy)
        tries, before = len(asked), await spent()
        await world.until(lambda: len(asked) >= tries + 4)
        await world.until(lambda: not delivery.busy)
        assert await spent() == before
        assert len(before) == 40
        assert len(set(asked[tries:])) > 1, "one event after the other is the probe"
        down = False
        await world.taken(40)
    assert world.told == ["disabled", "recovered"]


async def test_a_sink_that_keeps_its_own_pace_spends_no_try_and_is_not_taken_for_away(world: World) -> None:
    turns = 0

    def answer(_: Outgoing) -> None:
        nonlocal turns
        turns += 1
        if turns <= 60:
            raise Transient("more are waiting", retry_after=1.0 if turns % 2 else None, counts_as_attempt=False)

    world.sink.answer = answer
    world.set(retry=[])
    world.clock = faster(20)
    await world.publish(*map(event, range(10)))
    async with world.running():
        await world.taken(10)
    assert world.outcomes.count("dead") == 0
    assert {one.attempt for one in world.sink.taken} == {1}
    assert world.told == []


async def test_a_probe_that_waits_its_turn_leaves_the_probing_to_the_next_one(world: World) -> None:
    probes: list[str] = []

    def answer(outgoing: Outgoing) -> None:
        if "disabled" not in world.told:
            raise Transient("connection refused")
        probes.append(outgoing.wire.id)
        if len(probes) <= 3:
            raise Transient("more are waiting", retry_after=60.0, counts_as_attempt=False)

    world.sink.answer = answer
    world.set(retry=["1s"] * 50, concurrency=4)
    world.clock = faster(20)
    await world.publish(*map(event, range(20)))
    async with world.running():
        await world.taken(20)
    assert len(set(probes[:4])) == 4
    assert world.told == ["disabled", "recovered"]


async def test_events_that_nobody_takes_are_given_up_by_their_schedule_though_they_fail_in_a_row(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("HTTP 500"))
    world.set(retry=["10ms"] * 3)
    await world.publish(*map(event, range(30)))
    async with world.running():
        await world.until(lambda: world.outcomes.count("dead") == 30)
    assert world.told == []
    assert {len(one.attempts) for one in await world.store.deliveries("crm", states=["dead"])} == {4}


async def test_a_far_side_that_refuses_events_one_by_one_is_not_taken_for_dead(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Permanent("HTTP 400"))
    await world.publish(*map(event, range(30)))
    async with world.running():
        await world.until(lambda: world.outcomes == ["dead"] * 30)
    assert world.told == []


async def test_an_event_that_the_queue_brings_twice_is_sent_once(world: World) -> None:
    await world.publish(event(1))
    async with world.running():
        await world.taken(1)
        entries = await world.store.read("city", 0, 10)
        await world.broker.publish(entries)
        await world.broker.publish([JournalEntry(Position("city", 99), event(2))])
        await world.until(lambda: world.sink.tries == 2)
    assert [one.wire.id for one in world.sink.taken] == ["e1", "e2"]


async def test_what_is_no_event_is_kept_as_a_dead_letter_and_the_queue_goes_on(world: World) -> None:
    await world.broker.declare("bridge.sink.crm", ["#"])
    await world.broker.publish([JournalEntry(Position("city", 1), WireEvent("", "x.y", 0, b"\xff not json"))])
    await world.broker.publish([JournalEntry(Position("city", 2), event(2))])
    async with world.running():
        await world.until(lambda: world.sink.tries == 1)

        async def buried() -> bool:
            return len(await world.store.deliveries("crm", states=["dead"])) == 1

        await world.until(buried)
    (dead,) = await world.store.deliveries("crm", states=["dead"])
    assert dead.reason == "malformed"
    (entry,) = await world.store.entries([dead.position])
    assert entry is not None
    assert entry.event.body == b"\xff not json"


async def test_topics_that_the_sink_no_longer_wants_are_let_go(world: World) -> None:
    await world.publish(event(1, topic="voice.recipient.sent"), event(2))
    world.set(topics=["sms.#"])
    async with world.running():
        await world.taken(1)
    assert [one.wire.id for one in world.sink.taken] == ["e2"]


async def test_an_ordered_sink_gets_each_partition_one_at_a_time_and_in_order(world: World) -> None:
    world.set(ordered=True, concurrency=8)
    await world.publish(*(event(number, lane=f"/r/{number % 3}") for number in range(30)))
    async with world.running():
        await world.taken(30)
    for lane in range(3):
        order = [int(one.wire.id[1:]) for one in world.sink.taken if int(one.wire.id[1:]) % 3 == lane]
        assert order == sorted(order)


async def test_in_an_ordered_sink_a_failing_event_holds_back_its_own_partition_only(world: World) -> None:
    def fail_first(outgoing: Outgoing) -> None:
        if outgoing.wire.id == "e0" and outgoing.attempt == 1:
            raise Transient("busy")

    world.sink.answer = fail_first
    world.set(ordered=True)
    await world.publish(event(0, lane="a"), event(1, lane="a"), event(2, lane="b"))
    async with world.running() as delivery:
        await world.taken(1)
        assert [one.wire.id for one in world.sink.taken] == ["e2"]
        world.offset = 6.0
        delivery.wake()
        await world.taken(3)
    assert [one.wire.id for one in world.sink.taken] == ["e2", "e0", "e1"]


async def test_when_told_to_stop_what_is_being_sent_is_finished_and_the_rest_handed_back(world: World) -> None:
    async def acknowledged() -> bool:
        return await world.broker.depth("bridge.sink.crm") == 0

    world.set(concurrency=2)
    world.sink.gate = asyncio.Event()
    await world.publish(*map(event, range(10)))
    async with world.running():
        await world.until(lambda: world.sink.tries == 2)
        # Before it is acknowledged, what is in our hands is in the queue as well.
        await world.until(acknowledged)
        asyncio.get_running_loop().call_later(0.05, world.sink.gate.set)
    assert len(world.sink.taken) == 2
    waiting = await world.store.deliveries("crm")
    assert len(waiting) == 8
    assert all(not one.attempts and one.due <= world.clock.epoch() for one in waiting)


async def test_what_hangs_when_told_to_stop_is_cancelled_and_due_at_once(world: World) -> None:
    world.sink.gate = asyncio.Event()
    await world.publish(event(1))
    async with world.running(grace=0.05):
        await world.until(lambda: world.sink.tries == 1)
    (waiting,) = await world.store.deliveries("crm")
    assert waiting.due <= world.clock.epoch()
    assert waiting.attempts == ()


async def test_a_process_that_slept_longer_than_its_claims_sends_nothing_of_what_it_had_in_hand(world: World) -> None:
    world.set(concurrency=1, ordered=True)
    world.sink.gate = asyncio.Event()
    await world.publish(*(event(number, lane=f"/r/{number}") for number in range(10)))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries == 1)
        world.slept = 16.0
        world.sink.gate.set()
        await world.taken(1)
        await world.until(lambda: not delivery.busy)
        assert world.sink.tries == 1
        world.offset = 16.0
        delivery.wake()
        await world.taken(10)
    assert sorted(one.wire.id for one in world.sink.taken) == sorted(f"e{number}" for number in range(10))


async def test_a_process_that_slept_hands_back_nothing_that_another_one_may_have(world: World) -> None:
    world.set(concurrency=1)
    world.sink.gate = asyncio.Event()
    await world.publish(*map(event, range(5)))
    async with world.running(grace=0.01):
        await world.until(lambda: world.sink.tries == 1)
        world.slept = 16.0
    assert all(one.due > world.clock.epoch() for one in await world.store.deliveries("crm"))


@pytest.mark.parametrize(("away", "waits"), [(18.0, True), (0.5, False)], ids=["a long one", "a short one"])
async def test_after_a_long_outage_of_the_store_whoever_holds_a_claim_may_first_write_down_what_it_sent(
    world: World, away: float, waits: bool
) -> None:
    world.clock = faster(5)
    await world.store.commit(None, Commit("city", events=[event(1)]))
    async with world.running() as delivery:
        world.store.away = True
        await world.store.enqueue("crm", [NewDelivery((await world.positions())[0])], world.clock.epoch())
        delivery.wake()
        await world.clock.sleep(away)
        world.store.away = False
        back = world.clock.monotonic()
        await world.taken(1)
        assert (world.clock.monotonic() - back > CLAIM) == waits


async def test_a_lost_queue_loses_nothing_the_audit_offers_it_again(world: World, tmp_path: Path) -> None:
    await world.publish(*map(event, range(20)))
    lost = SqliteBroker(tmp_path / "other.db", clock=world.clock)
    await lost.open()
    await lost.declare("bridge.sink.crm", ["#"])
    world.broker = lost
    audit = Audit(world.store, world.store, lost, world.clock)
    async with world.running() as delivery:
        await audit.run("crm", world.settings)
        found = await audit.run("crm", world.settings)
        assert (found.missing, found.offered) == (20, 20)
        delivery.wake()
        await world.taken(20)
        assert (await audit.run("crm", world.settings)).missing == 0
    assert await world.store.low_watermark("crm", "city") == (await world.store.journal("city")).committed
    await lost.close()


async def test_the_audit_leaves_alone_what_still_stands_in_the_queue(world: World) -> None:
    await world.publish(*map(event, range(5)))
    audit = Audit(world.store, world.store, world.broker, world.clock)
    await audit.run("crm", world.settings)
    found = await audit.run("crm", world.settings)
    assert (found.missing, found.offered) == (5, 0)


async def test_the_audit_takes_nothing_for_lost_that_a_slow_sinks_process_has_in_its_inbox(world: World) -> None:
    world.set(concurrency=2)
    world.sink.gate = asyncio.Event()
    audit = Audit(world.store, world.store, world.broker, world.clock)
    await world.publish(*map(event, range(600)))
    async with world.running(grace=0.01) as delivery:
        await world.until(lambda: world.sink.tries == 2)
        await audit.run("crm", world.settings)
        await audit.run("crm", world.settings)

        async def all_known() -> bool:
            return (await world.store.counts("crm"))["city"].waiting == 600

        await world.until(all_known)
        found = await audit.run("crm", world.settings)
        assert (found.missing, found.offered) == (0, 0)
        assert delivery.busy
        assert await world.broker.depth("bridge.sink.crm") == 0
        world.sink.gate.set()
        await world.taken(600)
    assert world.sink.tries == 600


async def test_the_audit_gives_what_was_overtaken_the_time_until_its_next_look(world: World) -> None:
    await world.publish(*map(event, range(5)))
    audit = Audit(world.store, world.store, world.broker, world.clock)
    await audit.run("crm", world.settings)
    await world.store.accept("crm", [NewDelivery((await world.positions())[3])], world.clock.epoch() + CLAIM)
    first, second = [await audit.run("crm", world.settings) for _ in range(2)]
    assert (first.missing, first.offered) == (4, 0)
    assert (second.missing, second.offered) == (4, 3)


async def test_a_sink_that_is_new_owes_nothing_of_the_past(world: World) -> None:
    await world.publish(*map(event, range(5)))
    audit = Audit(world.store, world.store, world.broker, world.clock)
    await audit.register_sink("late")
    await audit.run("late", world.settings)
    assert (await audit.run("late", world.settings)).missing == 0


def test_the_lane_of_an_event_is_its_partition_key() -> None:
    assert EventView(Position("city", 1), event(1, lane="/r/7")).partition == "/r/7"
    assert EventView(Position("city", 1), WireEvent("e1", "a", 0, b"{}")).partition == "e1"
