"""The audit sends again what a queue lost, and leaves alone what is on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rigs.delivery import World, event

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.delivery.audit import Audit
from bridge.delivery.claims import CLAIM
from bridge.protocols.deliveries import NewDelivery


async def test_a_lost_queue_loses_nothing_the_audit_offers_it_again(world: World, tmp_path: Path) -> None:
    await world.publish(*map(event, range(20)))
    lost = SqliteBroker(tmp_path / "other.db", clock=world.clock)
    await lost.open()
    await lost.declare("bridge.sink.crm", ["#"])
    world.broker = lost
    audit = Audit(world.store, world.store, lost, world.clock)
    async with world.running() as delivery:
        await audit.run("crm", world.settings)
        report = await audit.run("crm", world.settings)
        assert (report.missing, report.offered) == (20, 20)
        delivery.wake()
        await world.delivered(20)
        assert (await audit.run("crm", world.settings)).missing == 0
    assert await world.store.low_watermark("crm", "city") == (await world.store.journal("city")).committed
    await lost.close()


async def test_the_audit_leaves_alone_what_still_stands_in_the_queue(world: World) -> None:
    await world.publish(*map(event, range(5)))
    audit = Audit(world.store, world.store, world.broker, world.clock)
    await audit.run("crm", world.settings)
    report = await audit.run("crm", world.settings)
    assert (report.missing, report.offered) == (5, 0)


async def test_audit_spares_events_in_a_slow_sinks_inbox(world: World) -> None:
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
        report = await audit.run("crm", world.settings)
        assert (report.missing, report.offered) == (0, 0)
        assert delivery.busy
        assert await world.broker.depth("bridge.sink.crm") == 0
        world.sink.gate.set()
        await world.delivered(600)
    assert world.sink.tries == 600


async def test_audit_spares_overtaken_events_until_its_next_run(world: World) -> None:
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
