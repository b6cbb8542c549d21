"""Deliveries: settled, waiting or dead, and never in a worker alone."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from rigs.delivery import World, event

from bridge.delivery.claims import CLAIM
from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.domain.event_view import EventView
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit
from bridge.protocols.sink import Outgoing


async def test_retry_after_pauses_the_endpoint_without_costing_attempts(
    world: World,
) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("HTTP 429", retry_after=20.0))
    world.set(concurrency=4)
    await world.publish(*map(event, range(40)))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries >= 4 and not delivery.busy)
        assert world.sink.tries == 4
        assert delivery.paused
        tries = [len(delivery.attempts) for delivery in await world.store.deliveries("crm")]
        assert sorted(tries) == [0] * 36 + [1] * 4
        world.sink.answer = lambda _: None
        world.slept = 20.0
        delivery.wake()
        await world.delivered(36)


async def test_sends_awaiting_settlement_count_as_in_flight(world: World) -> None:
    world.set(concurrency=3)
    world.store.settles = False
    async with world.running() as delivery:
        await world.publish(*(event(number, partition=f"/r/{number}") for number in range(20)))
        await world.until(lambda: len(delivery._sender.unsettled) >= 3)
        for _ in range(200):  # whoever was being sent ends; whoever wanted to begin had every turn to do so
            await asyncio.sleep(0)
        assert 3 <= len(world.sink.delivered) < 2 * 3
        world.store.settles = True
        await world.delivered(20)
    assert sorted(outgoing.wire.id for outgoing in world.sink.delivered) == sorted(f"e{number}" for number in range(20))


async def test_pending_settlement_does_not_delay_the_stop(world: World) -> None:
    world.set(concurrency=3)
    world.store.settles = False
    async with asyncio.timeout(60), world.running(grace=60.0) as delivery:
        await world.publish(*(event(number, partition=f"/r/{number}") for number in range(20)))
        await world.until(lambda: len(delivery._sender.unsettled) >= 3)
    assert len(world.sink.delivered) < 2 * 3


async def test_published_event_is_sent_settled_and_acknowledged(world: World) -> None:
    await world.publish(*map(event, range(50)))
    async with world.running():
        await world.delivered(50)
        assert await world.broker.depth("bridge.sink.crm") == 0
    assert sorted(outgoing.wire.id for outgoing in world.sink.delivered) == sorted(f"e{n}" for n in range(50))
    assert world.sink.delivered[0].wire.body == event(int(world.sink.delivered[0].wire.id[1:])).body


async def test_no_more_are_sent_at_once_than_the_sink_allows(world: World) -> None:
    world.set(concurrency=3)
    await world.publish(*map(event, range(40)))
    async with world.running():
        await world.delivered(40)
    assert world.sink.most_at_once == 3


async def test_failed_delivery_waits_in_store_until_due(world: World) -> None:
    def fail_first(outgoing: Outgoing) -> None:
        if outgoing.attempt == 1:
            raise Transient("busy")

    world.sink.answer = fail_first
    await world.publish(event(1))
    async with world.running() as delivery:
        await world.until(lambda: world.outcomes == ["waits"])
        (waiting,) = await world.store.deliveries("crm")
        assert [attempt.error for attempt in waiting.attempts] == ["busy"]
        world.offset = 6.0
        delivery.wake()
        await world.delivered(1)
    assert [outgoing.attempt for outgoing in world.sink.delivered] == [2]


async def test_a_restart_keeps_what_waits(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("busy"))
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["waits"])
    world.sink.answer = lambda _: None
    world.offset = 10.0
    async with world.running():
        await world.delivered(1)
    assert world.sink.delivered[0].attempt == 2


async def test_spent_tries_make_a_dead_letter_with_its_whole_history(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("busy"))
    world.set(retry=[])
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["dead"])
    (dead,) = await world.store.deliveries("crm", states=["dead"])
    assert (dead.reason, [attempt.error for attempt in dead.attempts]) == ("exhausted", ["busy"])


async def test_permanent_error_is_dead_letter_and_delays_nothing(world: World) -> None:
    def refuse(outgoing: Outgoing) -> None:
        if outgoing.wire.id == "e1":
            raise Permanent("HTTP 400")

    world.sink.answer = refuse
    await world.publish(event(1), event(2))
    async with world.running():
        await world.delivered(1)
    (dead,) = await world.store.deliveries("crm", states=["dead"])
    assert dead.reason == "permanent"


async def test_unnamed_plugin_error_is_retried_without_keeping_its_text(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(RuntimeError("+15551234567"))
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["waits"])
    (waiting,) = await world.store.deliveries("crm")
    assert "1234567" not in waiting.attempts[0].error
    assert "RuntimeError" in waiting.attempts[0].error


async def test_unresponsive_sink_is_abandoned_after_its_timeout(world: World) -> None:
    world.set(send_timeout="50ms")
    world.sink.gate = asyncio.Event()
    await world.publish(event(1))
    async with world.running():
        await world.until(lambda: world.outcomes == ["waits"])
    (waiting,) = await world.store.deliveries("crm")
    assert "no answer" in waiting.attempts[0].error


async def test_gone_endpoint_gets_nothing_and_costs_no_attempt(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    world.set(concurrency=1)
    await world.publish(*map(event, range(5)))
    async with world.running() as delivery:
        await world.until(lambda: delivery.disabled and not delivery.busy)
        assert world.disabled == ["HTTP 410"]
        waiting = await world.store.deliveries("crm")
        assert [len(delivery.attempts) for delivery in waiting] == [0] * 5
        assert world.sink.tries == 1
        world.sink.answer = lambda _: None
        delivery.enable()
        await world.delivered(5)


async def test_of_many_events_that_find_the_endpoint_gone_one_tells(world: World) -> None:
    world.sink.gate = asyncio.Event()
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    world.set(concurrency=16)
    await world.publish(*map(event, range(40)))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries == 16)
        world.sink.gate.set()
        await world.until(lambda: delivery.noted and not delivery.busy)
        assert world.reported == ["gone"]
        assert world.outcomes == ["disabled"] * 16


async def test_sink_state_is_published_until_stored_with_one_time(
    world: World,
) -> None:
    world.unreported = 2
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    await world.publish(event(1))
    async with world.running() as delivery:
        await world.until(lambda: delivery.disabled)
        assert not delivery.noted
        await world.until(lambda: delivery.noted)
    assert world.reported == ["gone"]
    assert len(world.moments) == 3
    assert len(set(world.moments)) == 1


async def test_events_for_a_gone_endpoint_wait_in_the_store(world: World) -> None:
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


async def test_down_endpoint_is_probed_without_costing_attempts(world: World) -> None:
    down, asked = True, []

    def answer(outgoing: Outgoing) -> None:
        asked.append(outgoing.wire.id)
        if down:
            raise Transient("connection refused")

    async def spent() -> dict[Position, int]:
        return {
            delivery.position: len(delivery.attempts) for delivery in await world.store.deliveries("crm", limit=100)
        }

    world.sink.answer = answer
    world.set(retry=["1s"] * 50, concurrency=4)
    world.clock = faster(20)
    await world.publish(*map(event, range(40)))
    async with world.running() as delivery:
        await world.until(lambda: "disabled" in world.reported)
        await world.until(lambda: not delivery.busy)
        tries, before = len(asked), await spent()
        await world.until(lambda: len(asked) >= tries + 4)
        await world.until(lambda: not delivery.busy)
        assert await spent() == before
        assert len(before) == 40
        assert len(set(asked[tries:])) > 1, "one event after the other is the probe"
        down = False
        await world.delivered(40)
    assert world.reported == ["failing", "disabled", "recovered"]


async def test_self_throttling_sink_costs_no_attempt_and_stays_up(world: World) -> None:
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
        await world.delivered(10)
    assert world.outcomes.count("dead") == 0
    assert {outgoing.attempt for outgoing in world.sink.delivered} == {1}
    assert world.reported == []


async def test_delayed_probe_leaves_probing_to_the_next(world: World) -> None:
    probes: list[str] = []

    def answer(outgoing: Outgoing) -> None:
        if "disabled" not in world.reported:
            raise Transient("connection refused")
        probes.append(outgoing.wire.id)
        if len(probes) <= 3:
            raise Transient("more are waiting", retry_after=60.0, counts_as_attempt=False)

    world.sink.answer = answer
    world.set(retry=["1s"] * 50, concurrency=4)
    world.clock = faster(20)
    await world.publish(*map(event, range(20)))
    async with world.running():
        await world.delivered(20)
    assert len(set(probes[:4])) == 4
    assert world.reported == ["failing", "disabled", "recovered"]


async def test_refused_events_end_by_schedule_despite_consecutive_failures(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("HTTP 500"))
    world.set(retry=["10ms"] * 3)
    await world.publish(*map(event, range(30)))
    async with world.running():
        await world.until(lambda: world.outcomes.count("dead") == 30)
    assert world.reported == ["failing"]
    assert {len(delivery.attempts) for delivery in await world.store.deliveries("crm", states=["dead"])} == {4}


async def test_endpoint_refusing_single_events_stays_up(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Permanent("HTTP 400"))
    await world.publish(*map(event, range(30)))
    async with world.running():
        await world.until(lambda: world.outcomes == ["dead"] * 30)
    assert world.reported == []


async def test_an_event_that_the_queue_brings_twice_is_sent_once(world: World) -> None:
    await world.publish(event(1))
    async with world.running():
        await world.delivered(1)
        entries = await world.store.read("city", 0, 10)
        await world.broker.publish(entries)
        await world.broker.publish([JournalEntry(Position("city", 99), event(2))])
        await world.until(lambda: world.sink.tries == 2)
    assert [outgoing.wire.id for outgoing in world.sink.delivered] == ["e1", "e2"]


async def test_message_that_is_no_event_becomes_a_dead_letter(world: World) -> None:
    await world.broker.declare("bridge.sink.crm", ["#"])
    await world.broker.publish([JournalEntry(Position("city", 1), WireEvent("", "x.y", 0, b"\xff not json"))])
    await world.broker.publish([JournalEntry(Position("city", 2), event(2))])
    async with world.running():
        await world.until(lambda: world.sink.tries == 1)

        async def dead_lettered() -> bool:
            return len(await world.store.deliveries("crm", states=["dead"])) == 1

        await world.until(dead_lettered)
    (dead,) = await world.store.deliveries("crm", states=["dead"])
    assert dead.reason == "malformed"
    (entry,) = await world.store.entries([dead.position])
    assert entry is not None
    assert entry.event.body == b"\xff not json"


async def test_topics_that_the_sink_no_longer_wants_are_let_go(world: World) -> None:
    await world.publish(event(1, topic="voice.recipient.sent"), event(2))
    world.set(topics=["sms.#"])
    async with world.running():
        await world.delivered(1)
    assert [outgoing.wire.id for outgoing in world.sink.delivered] == ["e2"]


async def test_ordered_sink_gets_each_partition_in_order(world: World) -> None:
    world.set(ordered=True, concurrency=8)
    await world.publish(*(event(number, partition=f"/r/{number % 3}") for number in range(30)))
    async with world.running():
        await world.delivered(30)
    for partition in range(3):
        order = [
            int(outgoing.wire.id[1:]) for outgoing in world.sink.delivered if int(outgoing.wire.id[1:]) % 3 == partition
        ]
        assert order == sorted(order)


async def test_failing_event_delays_only_its_partition(world: World) -> None:
    def fail_first(outgoing: Outgoing) -> None:
        if outgoing.wire.id == "e0" and outgoing.attempt == 1:
            raise Transient("busy")

    world.sink.answer = fail_first
    world.set(ordered=True)
    await world.publish(event(0, partition="a"), event(1, partition="a"), event(2, partition="b"))
    async with world.running() as delivery:
        await world.delivered(1)
        assert [outgoing.wire.id for outgoing in world.sink.delivered] == ["e2"]
        world.offset = 6.0
        delivery.wake()
        await world.delivered(3)
    assert [outgoing.wire.id for outgoing in world.sink.delivered] == ["e2", "e0", "e1"]


async def test_stop_finishes_current_sends_and_releases_the_rest(world: World) -> None:
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
    assert len(world.sink.delivered) == 2
    waiting = await world.store.deliveries("crm")
    assert len(waiting) == 8
    assert all(not delivery.attempts and delivery.due <= world.clock.epoch() for delivery in waiting)


async def test_hanging_send_is_cancelled_at_stop_and_due_again(world: World) -> None:
    world.sink.gate = asyncio.Event()
    await world.publish(event(1))
    async with world.running(grace=0.05):
        await world.until(lambda: world.sink.tries == 1)
    (waiting,) = await world.store.deliveries("crm")
    assert waiting.due <= world.clock.epoch()
    assert waiting.attempts == ()


async def test_process_asleep_past_its_claims_sends_nothing(world: World) -> None:
    world.set(concurrency=1, ordered=True)
    world.sink.gate = asyncio.Event()
    await world.publish(*(event(number, partition=f"/r/{number}") for number in range(10)))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries == 1)
        world.slept = 16.0
        world.sink.gate.set()
        await world.delivered(1)
        await world.until(lambda: not delivery.busy)
        assert world.sink.tries == 1
        world.offset = 16.0
        delivery.wake()
        await world.delivered(10)
    assert sorted(outgoing.wire.id for outgoing in world.sink.delivered) == sorted(f"e{number}" for number in range(10))


async def test_claim_that_expired_before_the_stores_answer_is_sent_once(world: World) -> None:
    world.set(concurrency=1)
    world.sink.gate = asyncio.Event()
    await world.publish(event(0, partition="/r/0"))
    async with world.running() as delivery:
        await world.until(lambda: world.sink.tries == 1)
        world.store.late = asyncio.Event()
        await world.publish(event(1, partition="/r/1"))
        await world.until(lambda: world.store.accepted == 2)
        world.slept = world.offset = 16.0
        delivery.wake()
        await world.until(lambda: delivery.in_flight == 2)
        world.store.late.set()
        await world.until(world.is_acknowledged)
        world.sink.gate.set()
        await world.delivered(2)
        await world.until(lambda: not delivery.busy)
    assert sorted(outgoing.wire.id for outgoing in world.sink.delivered) == ["e0", "e1"]


async def test_process_asleep_releases_nothing_claimed_by_another(world: World) -> None:
    world.set(concurrency=1)
    world.sink.gate = asyncio.Event()
    await world.publish(*map(event, range(5)))
    async with world.running(grace=0.01):
        await world.until(lambda: world.sink.tries == 1)
        world.slept = 16.0
    assert all(delivery.due > world.clock.epoch() for delivery in await world.store.deliveries("crm"))


@pytest.mark.parametrize(("away", "waits"), [(18.0, True), (0.5, False)], ids=["a long one", "a short one"])
async def test_claim_holder_stores_its_result_first_after_outage(world: World, away: float, waits: bool) -> None:
    world.clock = faster(5)
    await world.store.commit(None, Commit("city", events=[event(1)]))
    async with world.running() as delivery:
        world.store.away = True
        await world.store.enqueue("crm", [NewDelivery((await world.positions())[0])], world.clock.epoch())
        delivery.wake()
        await world.clock.sleep(away)
        world.store.away = False
        back = world.clock.monotonic()
        await world.delivered(1)
        assert (world.clock.monotonic() - back > CLAIM) == waits


def test_partition_of_event_is_its_partition_key() -> None:
    assert EventView(Position("city", 1), event(1, partition="/r/7")).partition == "/r/7"
    assert EventView(Position("city", 1), WireEvent("e1", "a", 0, b"{}")).partition == "e1"
