"""What is too old, muted, or in a quiet time is not sent: it ends in a count of its own, or waits, and nothing is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from rigs.delivery import World

from bridge.delivery.send_times import TOTALS_TOPIC
from bridge.domain.errors import Transient, Unavailable
from bridge.domain.event import WireEvent
from bridge.domain.times import rfc3339
from bridge.protocols.deliveries import DeliveryCounts, NewDelivery
from bridge.protocols.roster import Mute

HOUR_SECONDS = 3600.0


def recorded(world: World, number: int, *, partition: str = "/r/1", topic: str = "sms.recipient.failed") -> WireEvent:
    """Return an event that is recorded now."""
    now = rfc3339(world.clock.now())
    body = {"id": f"e{number}", "partitionkey": partition, "n": number, "time": now, "recordedtime": now}
    return WireEvent(f"e{number}", topic, 1_700_000_000, json.dumps(body).encode())


async def books(world: World) -> DeliveryCounts:
    return (await world.store.counts("crm")).get("city", DeliveryCounts())


def numbers(world: World) -> list[int]:
    return [json.loads(outgoing.wire.body)["n"] for outgoing in world.sink.delivered]


def ahead(world: World, seconds: float) -> None:
    """Let time go by, on both clocks."""
    world.offset += seconds
    world.slept += seconds


def quiet_for(world: World, **settings) -> str:
    """Make it a quiet time for the hour around now; return when it ends."""
    now = world.clock.now()
    begin, end = now - timedelta(hours=1), now + timedelta(hours=1)
    world.set(quiet=f"{begin:%H:%M}-{end:%H:%M} UTC", **settings)
    return f"{end:%H:%M}"


def fail(_: object) -> None:
    raise Transient("HTTP 503")


def accept(_: object) -> None:
    """Accept what comes."""


# --- max_age ------------------------------------------------------------------------------------------------------


async def test_what_is_too_old_expires_at_the_moment_of_sending(world: World) -> None:
    world.set(max_age="6h")
    old = [recorded(world, number) for number in range(3)]
    ahead(world, 6 * HOUR_SECONDS + 1)
    async with world.running() as worker:
        await world.publish(
            *old, recorded(world, 3), WireEvent("e4", "sms.recipient.failed", 0, b'{"id": "e4", "n": 4}')
        )
        await world.until(lambda: world.unsent["expired"] == 3)
        await world.delivered(2)
        await world.until(lambda: worker.in_flight == 0)
    assert sorted(numbers(world)) == [3, 4]  # one that says no time never expires
    assert await books(world) == DeliveryCounts(delivered=2, expired=3)
    unsent = await world.store.unsent("crm", (await world.positions())[0])
    assert unsent is not None
    assert (unsent.kind, unsent.at > 0) == ("expired", True)


async def test_expired_events_of_a_partition_free_those_behind_them(world: World) -> None:
    world.set(max_age="6h", ordered=True)
    old = [recorded(world, number) for number in range(20)]
    ahead(world, 7 * HOUR_SECONDS)
    async with world.running():
        await world.publish(*old, recorded(world, 20))
        await world.delivered(1)
    assert await books(world) == DeliveryCounts(delivered=1, expired=20)


async def test_expired_events_leave_while_the_endpoint_is_down(world: World) -> None:
    """No expired event is the probe: the first one that is young enough is, and the others keep their places."""
    world.set(max_age="6h", retry=["5s"] * 9)
    world.sink.answer = fail
    async with world.running() as worker:
        await world.publish(*(recorded(world, number) for number in range(30)))
        await world.until(lambda: worker.open_circuit is not None or ahead(world, 0.1))
        await world.until(lambda: worker.in_flight == 0)
        ahead(world, 7 * HOUR_SECONDS)
        await world.publish(*(recorded(world, number) for number in range(30, 40)))
        await world.until(lambda: world.unsent["expired"] == 30)
        tries = world.sink.tries
        await world.until(lambda: world.sink.tries > tries or ahead(world, 1))
        await world.until(lambda: worker.in_flight == 0)
        assert await books(world) == DeliveryCounts(waiting=10, expired=30)
        world.sink.answer = accept
        await world.until(lambda: _all_delivered(world, 10))
    assert await books(world) == DeliveryCounts(delivered=10, expired=30)


async def _all_delivered(world: World, number: int) -> bool:
    ahead(world, 1)
    return (await books(world)).delivered == number


async def test_totals_tell_what_has_expired_but_not_of_totals(world: World) -> None:
    world.set(max_age="6h", expired="summary")
    old = [recorded(world, 1), recorded(world, 2), recorded(world, 3, topic=TOTALS_TOPIC)]
    ahead(world, 7 * HOUR_SECONDS)
    async with world.running():
        await world.publish(*old)
        await world.until(lambda: world.unsent["expired"] == 3)
    totals = await world.store.open_totals("crm", "a")
    assert totals is not None
    assert (totals.count, totals.topics) == (2, {"sms.recipient.failed": 2})
    assert totals.oldest == datetime.fromisoformat(json.loads(old[0].body)["recordedtime"]).timestamp()
    assert totals.newest is not None


# --- quiet times --------------------------------------------------------------------------------------------------


async def test_quiet_time_keeps_events_until_its_end_in_order(world: World) -> None:
    said = quiet_for(world, concurrency=1)
    async with world.running() as worker:
        for first in (0, 12):
            await world.publish(*(recorded(world, number) for number in range(first, first + 12)))
            await world.until(lambda first=first: _waits(world, first + 12))
            await world.until(lambda: worker.in_flight == 0)
        waiting = await world.store.deliveries("crm")
        assert {f"{datetime.fromtimestamp(item.due, UTC):%H:%M}" for item in waiting} == {said}
        assert not any(item.attempts for item in waiting)
        assert world.sink.tries == 0
    ahead(world, 1)
    async with world.running() as worker:  # a restart does not send them either
        await world.publish(recorded(world, 24))
        await world.until(lambda: _waits(world, 25))
        await world.until(lambda: worker.in_flight == 0)
        assert world.sink.tries == 0
        ahead(world, 2 * HOUR_SECONDS)
        worker.wake()
        await world.delivered(25)
    assert numbers(world) == list(range(25))


async def _waits(world: World, number: int) -> bool:
    return (await books(world)).waiting == number


async def test_exceptions_are_sent_in_a_quiet_time(world: World) -> None:
    quiet_for(world, quiet_except={"in": {"n": [2, 5]}})
    async with world.running() as worker:
        await world.publish(*(recorded(world, number) for number in range(6)))
        await world.delivered(2)
        await world.until(lambda: worker.in_flight == 0)
        assert await books(world) == DeliveryCounts(delivered=2, waiting=4)
    assert sorted(numbers(world)) == [2, 5]


async def test_tries_that_become_due_in_a_quiet_time_wait(world: World) -> None:
    world.set(retry=["5s"])
    world.sink.answer = fail
    async with world.running() as worker:
        await world.publish(recorded(world, 1))
        await world.until(lambda: world.outcomes == ["waits"])
        await world.until(lambda: worker.in_flight == 0)
    quiet_for(world, retry=["5s"])
    world.sink.answer = accept
    async with world.running() as worker:
        ahead(world, 10)
        worker.wake()
        await world.until(lambda: _is_due_after(world, HOUR_SECONDS / 2))
        (waiting,) = await world.store.deliveries("crm")
        assert len(waiting.attempts) == 1
        ahead(world, 2 * HOUR_SECONDS)
        worker.wake()
        await world.delivered(1)


async def _is_due_after(world: World, seconds: float) -> bool:
    due = await world.store.next_due("crm")
    return due is not None and due > world.clock.epoch() + seconds


async def test_too_old_after_a_quiet_time_expires(world: World) -> None:
    quiet_for(world, max_age="1h")
    async with world.running() as worker:
        await world.publish(recorded(world, 1))
        await world.until(lambda: _is_due_after(world, HOUR_SECONDS / 2))
        ahead(world, 2 * HOUR_SECONDS)
        worker.wake()
        await world.until(lambda: world.unsent["expired"] == 1)
    assert await books(world) == DeliveryCounts(expired=1)


# --- mutes --------------------------------------------------------------------------------------------------------


def mute(world: World, id_: str, seconds: float, where: object = None) -> Mute:
    now = world.clock.epoch()
    return Mute(id_, "crm", now, now + seconds, "ann@desk", where=where)


async def test_muted_events_end_as_filtered_until_the_mute_ends(world: World) -> None:
    order = mute(world, "m1", HOUR_SECONDS, {"in": {"n": [1, 3]}})
    world.gate.mutes.apply([order], world.clock.epoch())
    async with world.running():
        await world.publish(*(recorded(world, number) for number in range(5)))
        await world.delivered(3)
        await world.until(lambda: world.unsent["muted"] == 2)
        ahead(world, 2 * HOUR_SECONDS)
        await world.publish(recorded(world, 1))
        await world.delivered(4)
    assert sorted(numbers(world)) == [0, 1, 2, 4]
    assert await books(world) == DeliveryCounts(delivered=4, filtered=2)
    unsent = await world.store.unsent("crm", (await world.positions())[1])
    assert unsent is not None
    assert (unsent.kind, unsent.mute) == ("muted", "m1")


async def test_a_mute_comes_before_age_and_quiet_times(world: World) -> None:
    quiet_for(world, max_age="1h")
    world.gate.mutes.apply([mute(world, "m1", 60), mute(world, "m2", HOUR_SECONDS)], world.clock.epoch())
    async with world.running():
        await world.publish(recorded(world, 1))
        await world.until(lambda: world.unsent["muted"] == 1)
    unsent = await world.store.unsent("crm", (await world.positions())[0])
    assert unsent is not None
    assert unsent.mute == "m2"  # the one that ends last


def test_a_mute_that_cannot_be_read_mutes_nothing(world: World) -> None:
    mutes, now = world.gate.mutes, world.clock.epoch()
    mutes.apply([mute(world, "m1", 60, {"sounds_like": {"data.status": "faild"}})], now)
    assert not mutes
    mutes.apply([mute(world, "m2", -1)], now)
    assert not mutes


# --- crashes and replicas ------------------------------------------------------------------------------------------


async def test_a_lost_answer_of_the_store_changes_no_count(world: World) -> None:
    world.set(max_age="6h", expired="summary")
    old = [recorded(world, number) for number in range(5)]
    ahead(world, 7 * HOUR_SECONDS)
    end_unsent, calls = world.store.end_unsent, []

    async def lose_the_answer(*arguments, **options):
        number = await end_unsent(*arguments, **options)
        calls.append(number)
        if len(calls) == 1:
            raise Unavailable("the store is away")
        return number

    world.store.end_unsent = lose_the_answer
    async with world.running() as worker:
        await world.publish(*old)
        await world.until(lambda: len(calls) > 1 and worker.in_flight == 0)
    assert await books(world) == DeliveryCounts(expired=5)
    totals = await world.store.open_totals("crm", "a")
    assert totals is not None
    assert totals.count == 5


async def test_two_processes_count_and_hold_each_event_once(world: World) -> None:
    old = [recorded(world, number) for number in range(6)]
    world.offset += 7 * HOUR_SECONDS
    quiet_for(world, max_age="6h", quiet_except={"exact": {"n": 11}})
    async with world.running() as first, world.running() as second:
        await world.publish(*old, *(recorded(world, number) for number in range(6, 12)))
        await world.delivered(1)
        await world.until(lambda: _is(world, DeliveryCounts(delivered=1, waiting=5, expired=6)))
        await world.until(lambda: first.in_flight == second.in_flight == 0)
    assert world.unsent["expired"] == 6
    assert numbers(world) == [11]


async def _is(world: World, wanted: DeliveryCounts) -> bool:
    return await books(world) == wanted


async def test_a_process_that_dies_leaves_what_it_set_aside(world: World) -> None:
    """A killed process leaves claims; the next one decides anew."""
    quiet_for(world)
    await world.publish(*(recorded(world, number) for number in range(3)))
    places = await world.positions()
    until = world.clock.epoch() + 15
    await world.store.accept("crm", [NewDelivery(position) for position in places], until)
    ahead(world, 20)
    async with world.running() as worker:
        await world.until(lambda: _is_due_after(world, HOUR_SECONDS / 2))
        await world.until(lambda: worker.in_flight == 0)
    assert await books(world) == DeliveryCounts(waiting=3)
    assert world.sink.tries == 0


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expired": "summary"}, "expired: needs max_age"),
        ({"quiet_except": {"exact": {"n": 1}}}, "quiet_except: needs quiet"),
        ({"max_age": 6}, "6 is not a duration; write a number and a unit"),
        ({"quiet": {"from": "22:00"}}, "takes a text or a list of texts"),
    ],
)
def test_settings_that_need_each_other_say_so(world: World, changes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        world.set(**changes)
