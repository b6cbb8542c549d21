"""What a sink's filter does not select is settled in the books, costs no delivery, and is never sent."""

from __future__ import annotations

import asyncio
import json

from rigs.delivery import World, event

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.delivery.audit import Audit
from bridge.domain.errors import Unavailable
from bridge.domain.event import WireEvent
from bridge.protocols.deliveries import DeliveryCounts

EVEN = {"in": {"n": [0, 2, 4, 6, 8]}}


async def books(world: World) -> DeliveryCounts:
    return (await world.store.counts("crm")).get("city", DeliveryCounts())


async def test_a_filter_drops_what_it_does_not_select(world: World) -> None:
    world.set(where=EVEN, ordered=True)
    async with world.running() as delivery:
        await world.publish(*map(event, range(10)))
        await world.delivered(5)
        await world.until(lambda: delivery.in_flight == 0)
        assert await books(world) == DeliveryCounts(delivered=5, filtered=5)
        assert list(await world.store.deliveries("crm")) == []
    assert [json.loads(outgoing.wire.body)["n"] for outgoing in world.sink.delivered] == [0, 2, 4, 6, 8]
    assert world.filtered == 5


async def test_events_brought_again_are_filtered_once(world: World) -> None:
    world.set(where=EVEN)
    tried = asyncio.Event()
    accept = world.store.accept

    async def fail_once(*arguments):
        if not tried.is_set():
            tried.set()
            raise Unavailable("the store is away")
        return await accept(*arguments)

    world.store.accept = fail_once
    async with world.running():
        await world.publish(*map(event, range(4)))
        await world.delivered(2)
    assert await books(world) == DeliveryCounts(delivered=2, filtered=2)
    assert world.filtered == 2


async def test_the_audit_filters_what_the_broker_lost(world: World, tmp_path) -> None:
    world.set(where=EVEN)
    await world.publish(*map(event, range(10)))
    lost = SqliteBroker(tmp_path / "other.db", clock=world.clock)
    await lost.open()
    await lost.declare("bridge.sink.crm", ["#"])
    audit = Audit(world.store, world.store, lost, world.clock)
    await audit.run("crm", world.settings)
    report = await audit.run("crm", world.settings)
    assert (report.missing, report.offered, report.filtered) == (10, 5, 5)
    assert await books(world) == DeliveryCounts(waiting=5, filtered=5)
    report = await audit.run("crm", world.settings)
    assert (report.missing, report.filtered) == (0, 0)
    await lost.close()


async def test_a_filter_drops_no_malformed_message(world: World) -> None:
    world.set(where=EVEN)
    async with world.running():
        await world.publish(event(0), WireEvent("e1", "sms.recipient.failed", 1_700_000_000, b"[1]"), event(1))
        await world.delivered(1)
        await world.until(lambda: world.filtered == 1)
    assert await books(world) == DeliveryCounts(delivered=1, filtered=1)
    (dead,) = await world.store.deliveries("crm", states=("dead",))
    assert dead.reason == "malformed"
    assert world.settings.filter_selects(WireEvent("e1", "sms.recipient.failed", 0, b"[1]"))
