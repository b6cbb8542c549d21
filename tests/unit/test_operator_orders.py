"""What an operator orders while the service runs: parts rest, work again, and poll now; every process says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from harness import until
from rigs.embedded_service import EmbeddedService, with_frequent_gauges
from structlog.testing import capture_logs

from bridge.coordination.gates import Gate, Gates
from bridge.domain.errors import Transient
from bridge.protocols.roster import Orders, Pause

PAUSE = Pause(1_700_000_000.0, "ann@desk", "the provider asked for it")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EmbeddedService]:
    async with with_frequent_gauges(tmp_path) as world:
        yield world


async def test_paused_source_asks_nothing_until_resumed(world: EmbeddedService) -> None:
    async with world.running() as service:
        await until(lambda: world.source.cursors, "the source is polled")
        with capture_logs() as logs:
            await world.store.pause("source/city", PAUSE)
            await until(lambda: service.sources.states["city"] == "paused", "the source rests")
        asked = len(world.source.cursors)
        await until(lambda: _reported(world, "paused"), "the pause is noted")
        assert len(world.source.cursors) == asked
        assert [log["by"] for log in logs if log["event"] == "part.paused"] == ["ann@desk"]
        await world.store.resume("source/city")
        await until(lambda: len(world.source.cursors) > asked, "the source is polled again")


async def _reported(world: EmbeddedService, state: str) -> bool:
    return (await world.store.statuses("source/"))["source/city"]["state"] == state


async def test_pause_survives_a_restart_before_the_first_poll(world: EmbeddedService) -> None:
    await world.store.pause("source/city", PAUSE)
    for _ in range(2):
        async with world.running() as service:
            await until(lambda: service.sources.states.get("city") == "paused", "the source rests")  # noqa: B023 - of this turn
    report = await world.service().once()
    assert report.paused == {"city": str(PAUSE)}
    assert world.source.cursors == []


async def test_paused_sink_keeps_its_events_waiting(world: EmbeddedService) -> None:
    world.says("new", "sending", "failed")
    await world.store.pause("sink/crm", PAUSE)
    async with world.running():
        await until(lambda: _waiting(world, 3), "the events wait in the books")
        assert world.sink.tries == 0
        await world.store.resume("sink/crm")
        await until(lambda: len(world.sink.delivered) == 3, "what waited is delivered")


async def _waiting(world: EmbeddedService, number: int) -> bool:
    return sum(count.waiting for count in (await world.store.counts("crm")).values()) == number


async def test_one_round_leaves_a_paused_sink_alone(world: EmbeddedService) -> None:
    world.says("new")
    await world.store.pause("sink/crm", PAUSE)
    report = await world.service().once()
    assert report.deliveries == {"crm": {"taken": 0, "waiting": 1, "dead": 0}}


async def test_requested_poll_ends_the_wait(world: EmbeddedService) -> None:
    world.settings = world.settings.model_copy(update={"interval": 3600.0})
    async with world.running() as service:
        await until(lambda: len(world.source.cursors) == 1, "the first poll")
        world.says("new")
        await world.store.request_poll("city", "abc")
        await until(lambda: len(world.source.cursors) == 2, "the requested poll")
        await until(lambda: _started(world, "abc"), "the store says who has begun it")
        assert (await world.store.orders()).started["city"].owner == service.process.owner
        await until(lambda: world.sink.delivered, "its event is delivered")
    assert len(world.source.cursors) == 2


async def _started(world: EmbeddedService, request: str) -> bool:
    orders = await world.store.orders()
    return "city" in orders.started and orders.started["city"].request == request and not orders.polls


async def test_paused_source_does_not_begin_a_requested_poll(world: EmbeddedService) -> None:
    await world.store.pause("source/city", PAUSE)
    async with world.running() as service:
        await until(lambda: service.sources.states.get("city") == "paused", "the source rests")
        await world.store.request_poll("city", "abc")
        gate = service.process.gates.of("source/city")
        await until(lambda: gate._request == "abc" and not gate.changed.is_set(), "the request has come")
        assert not await _started(world, "abc")
    assert world.source.cursors == []


async def test_readiness_and_metric_show_a_pause(world: EmbeddedService) -> None:
    await world.store.pause("sink/crm", PAUSE)
    async with world.running(listen=("127.0.0.1", 0)) as service, aiohttp.ClientSession() as client:
        await until(lambda: service.health.server.port and service.process.gates.pauses, "the pages are there")
        base = f"http://127.0.0.1:{service.health.server.port}"
        async with client.get(f"{base}/readyz") as answer:
            assert answer.status == 200
            assert await answer.json() == {"status": "ready", "paused": {"sink/crm": str(PAUSE)}}
        async with client.get(f"{base}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        assert 'bridge_paused{kind="sink",name="crm"} 1.0' in lines
        assert 'bridge_paused{kind="source",name="city"} 0.0' in lines


async def test_process_is_listed_while_it_runs(world: EmbeddedService) -> None:
    async with world.running() as service:
        await until(lambda: _listed(world), "the process is listed")
        (presence,) = await world.store.presences()
        assert presence.member.owner == service.process.owner
        assert presence.member.roles == ("poll", "relay", "sink")
        assert presence.member.generation == "0badcafe"
    assert list(await world.store.presences()) == []


async def _listed(world: EmbeddedService) -> bool:
    return len(await world.store.presences()) == 1


async def test_last_delivery_and_last_error_are_noted(world: EmbeddedService) -> None:
    def refuse_twice(_: object) -> None:
        if world.sink.tries <= 2:
            raise Transient("busy", retry_after=0.01)

    world.sink.answer = refuse_twice
    world.sink_settings = world.sink_settings.model_copy(update={"retry": [0.01, 0.01, 0.01]})
    world.says("new")
    async with world.running():
        await until(lambda: world.sink.delivered, "it is delivered in the end")
    note = (await world.store.statuses("sink/"))["sink/crm"]
    assert note["last_error"] == "busy"
    assert note["last_error_at"] <= note["last_delivered"]


async def test_work_is_cancelled_by_a_pause() -> None:
    gate = Gate()
    begun = asyncio.Event()
    ended: list[str] = []

    async def work() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return "done"

    working = asyncio.ensure_future(gate.run_until_paused(work()))
    await begun.wait()
    gate.set_pause(PAUSE)
    assert await working is None
    assert ended == ["cancelled"]


async def test_work_that_fails_raises_through_the_gate() -> None:
    async def work() -> str:
        raise Transient("HTTP 500")

    with pytest.raises(Transient, match="HTTP 500"):
        await Gate().run_until_paused(work())


def test_orders_for_other_parts_change_nothing() -> None:
    reports: list[tuple[str, Pause | None]] = []
    gates = Gates("one", lambda: 5.0, lambda part, pause: reports.append((part, pause)))
    city = gates.of("source/city")
    gates.apply(Orders({"sink/city": PAUSE}, {"town": "x"}))
    assert (city.pause, reports, city.changed.is_set()) == (None, [], False)
    gates.apply(Orders({"source/city": PAUSE}))
    gates.apply(Orders({"source/city": PAUSE}))
    gates.apply(Orders())
    assert reports == [("source/city", PAUSE), ("source/city", None)]
