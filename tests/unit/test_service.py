"""The process as a whole, on embedded parts: roles, stalls, drains, one round."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from rigs.embedded_service import LIMITS, EmbeddedService
from structlog.testing import capture_logs

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Transient, Unauthorized, Unavailable
from bridge.protocols.sink import Outgoing, SinkSettings
from bridge.protocols.source import Page
from bridge.runtime.parts import ConfiguredSource
from bridge.runtime.service import Service
from bridge.testing.fakes import ScriptedSource, observe

AT = datetime(2026, 3, 1, tzinfo=UTC)


class World(EmbeddedService):
    """The parts of a service on a folder; several services may share them."""

    @property
    def delivered(self) -> list[str]:
        return [json.loads(outgoing.wire.body)["data"]["status"] for outgoing in self.sink.delivered]


async def until(condition, within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_what_a_poll_sees_reaches_the_sink(world: World) -> None:
    world.says("new", "sending", "failed")
    async with world.running():
        await until(lambda: len(world.sink.delivered) == 3)
    assert sorted(world.delivered) == ["failed", "new", "sending"]


async def test_one_round_polls_relays_delivers_and_returns(world: World) -> None:
    world.says("new")
    report = await world.service().once()
    assert report.events == report.published == 1
    assert report.deliveries == {"crm": {"taken": 1, "waiting": 0, "dead": 0}}
    assert report.failures == {}


async def test_one_round_says_which_source_failed_and_still_delivers(world: World) -> None:
    world.says("new")
    world.source.polls[0].append(Transient("HTTP 500"))
    report = await world.service().once()
    assert report.failures == {"city": "HTTP 500"}
    assert world.delivered == ["new"]


async def test_once_leaves_failed_deliveries_for_the_next_round(world: World) -> None:
    world.sink.answer = lambda _: (_ for _ in ()).throw(Transient("busy"))
    world.says("new")
    report = await world.service().once()
    assert report.deliveries["crm"]["waiting"] == 1


async def test_roles_split_over_processes_do_the_same_work(world: World) -> None:
    world.says("new", "sending")
    async with world.running(roles=("poll",)), world.running(roles=("relay",)), world.running(roles=("sink",)):
        await until(lambda: len(world.sink.delivered) == 2)


class WithAccount(ScriptedSource):
    """A source that knows whose account it asks."""

    account = "https://tms.example.com 5f0c"


def share_an_account(world: World) -> WithAccount:
    """Give the world two sources of one account; return the second one."""
    world.source, town = WithAccount(), WithAccount()
    world.more_sources = {"town": ConfiguredSource("scripted", world.settings, town)}
    return town


async def test_one_process_polls_all_sources_of_an_account(world: World) -> None:
    town = share_an_account(world)
    async with world.running() as first, world.running() as second:
        await until(lambda: len(first.sources.states) == len(second.sources.states) == 2)
        holds, waits = (first, second) if first.sources.states["city"] != "standby" else (second, first)
        assert "standby" not in holds.sources.states.values()
        assert set(waits.sources.states.values()) == {"standby"}
        world.says("new")
        town.polls.append([Page([observe("2", "new")], AT)])
        await until(lambda: len(world.sink.delivered) == 2)


async def test_once_polls_an_account_or_names_the_other_process(world: World) -> None:
    town = share_an_account(world)
    world.says("new")
    town.polls.append([Page([observe("2", "new")], AT)])
    report = await world.service().once()
    assert (report.events, report.failures) == (2, {})

    world.limits = replace(world.limits, lease=0.2)
    store = SqliteStore(world.folder / "bridge.db", clock=Clock())
    await store.open()
    assert await store.acquire("account/city", "another", 60)
    report = await world.service().once()
    await store.close()
    said = "account/city: another process holds the lease; it does this work"
    assert report.failures == {"city": said, "town": said}
    assert report.events == 0


async def test_failing_source_is_reported_stalled_and_recovered(world: World) -> None:
    world.source.polls = [[Unauthorized("the token was refused")] for _ in range(4)]
    world.says("new")
    async with world.running():
        await until(lambda: len(world.sink.delivered) == 3, within=60)
    assert sorted(world.delivered) == ["new", "recovered", "stalled"]


async def test_stalled_source_makes_the_process_not_ready(world: World) -> None:
    world.settings = world.settings.model_copy(update={"stall_after": 0.001})
    world.source.polls = [[Unauthorized("the token was refused")] for _ in range(1000)]
    async with world.running(listen=("127.0.0.1", 0)) as service, aiohttp.ClientSession() as http:
        await until(lambda: "source/city" in service.process.health.problems)
        await until(lambda: service.health.server.port)
        port = service.health.server.port
        async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
            assert answer.status == 503
            assert "the token was refused" in (await answer.json())["problems"]["source/city"]
        async with http.get(f"http://127.0.0.1:{port}/livez") as answer:
            assert answer.status == 200
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
            assert 'bridge_source_state{source="city",state="stalled"} 1.0' in text


async def test_working_process_is_ready_with_consistent_figures(world: World) -> None:
    world.says("new", "sending", "failed")
    async with world.running(listen=("127.0.0.1", 0)) as service, aiohttp.ClientSession() as http:
        await until(lambda: len(world.sink.delivered) == 3)
        await until(lambda: service.health.server.port)
        port = service.health.server.port
        async with http.get(f"http://127.0.0.1:{port}/readyz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ready"})
        await until(lambda: b'bridge_deliveries_total{result="taken",sink="crm"} 3.0' in service.process.metrics.text())
        text = service.process.metrics.text().decode()
        assert 'bridge_events_total{source="city",type="bridge.sms.recipient.failed"} 1.0' in text
        assert 'bridge_confirmed_total{source="city"} 3.0' in text


async def test_second_process_gets_health_pages_when_address_frees(world: World) -> None:
    world.says("new")
    first, stop = world.service(), asyncio.Event()
    running = asyncio.ensure_future(first.run(stop, listen=("127.0.0.1", 0)))
    await until(lambda: first.health.server.port and first.sources.states.get("city") == "ok")
    async with world.running(listen=("127.0.0.1", first.health.server.port)) as second:
        await until(lambda: second.sources.states.get("city") == "standby")
        assert second.health.server.port == 0
        stop.set()
        await running
        await until(lambda: second.health.server.port == first.health.server.port)


async def test_store_outage_at_start_is_waited_for(world: World) -> None:
    world.store_fails = True
    world.says("new")
    async with world.running() as service:
        await until(lambda: service.process.health.problems.get("store") == "the store is away")
        world.store_fails = False
        await until(lambda: len(world.sink.delivered) == 1)


async def test_lease_lost_in_an_outage_makes_source_not_ok(world: World, monkeypatch) -> None:
    away = asyncio.Event()

    def cut(method):
        async def asked(*args, **kwargs):
            if away.is_set():
                raise Unavailable("the store is away")
            return await method(*args, **kwargs)

        return asked

    for name in ("acquire", "renew"):
        monkeypatch.setattr(SqliteStore, name, cut(getattr(SqliteStore, name)))
    world.limits = replace(world.limits, lease=0.3)
    async with world.running() as service:
        await until(lambda: service.sources.states.get("city") == "ok")
        away.set()
        await until(lambda: service.sources.states.get("city") == "standby")
        away.clear()
        await until(lambda: service.sources.states.get("city") == "ok")


async def test_second_process_takes_over_a_released_lease(world: World) -> None:
    first, stop = world.service(), asyncio.Event()
    running = asyncio.ensure_future(first.run(stop))
    world.says("new")
    await until(lambda: len(world.sink.delivered) == 1)
    async with world.running() as second:
        await until(lambda: second.sources.states.get("city") == "standby")
        stop.set()
        await running
        world.says("sending")
        await until(lambda: len(world.sink.delivered) == 2)
        assert second.sources.states["city"] == "ok"
    assert world.delivered == ["new", "sending"]


async def test_a_source_with_a_defect_takes_no_other_part_down(world: World) -> None:
    world.source.polls = [[RuntimeError("+15551234567")]]
    world.says("new")
    async with world.running():
        await until(lambda: len(world.sink.delivered) == 1)


async def test_a_sink_that_cannot_open_is_started_again(world: World) -> None:
    tries = []

    async def opening() -> None:
        tries.append(True)
        if len(tries) == 1:
            raise RuntimeError("no")

    world.sink.open = opening
    world.says("new")
    async with world.running() as service:
        await until(lambda: len(world.sink.delivered) == 1)
        assert b'bridge_part_restarts_total{part="sink/crm"} 1.0' in service.process.metrics.text()


async def test_polling_pauses_while_the_journal_is_full(world: World) -> None:
    world.limits = replace(LIMITS, journal_bytes=10)
    world.says("new")
    async with world.running() as service:
        await until(lambda: len(world.sink.delivered) == 1)
        await until(lambda: "held" in service.process.health.problems.get("source/city", ""))
        operator = SqliteStore(world.folder / "bridge.db", clock=Clock())
        async with asyncio.timeout(60):
            while (status := (await operator.statuses("source/city"))["source/city"])["state"] != "held":
                await asyncio.sleep(0.005)
        assert "bound" in status["error"]
        await operator.close()


async def test_an_operator_re_enables_a_sink_by_clearing_its_note(world: World) -> None:
    def gone(_: Outgoing) -> None:
        raise EndpointGone("HTTP 410")

    world.limits = replace(world.limits, gauges_every=0.05)
    world.sink.answer = gone
    world.says("new")
    operator = SqliteStore(world.folder / "bridge.db", clock=Clock())
    async with world.running():
        await until(lambda: world.sink.tries == 1)
        await operator.open()

        async def disabled() -> str:
            return (await operator.statuses("sink/crm"))["sink/crm"].get("disabled", "")

        async with asyncio.timeout(60):
            while await disabled() != "HTTP 410":
                await asyncio.sleep(0.01)
        world.sink.answer = lambda _: None
        await operator.set_status("sink/crm", {"disabled": ""})
        await until(lambda: len(world.sink.delivered) == 1)
        await operator.close()


async def test_reading_statuses_does_not_enable_a_sink_being_disabled(world: World) -> None:
    world.limits = replace(world.limits, gauges_every=0.01)
    world.sink.answer = lambda _: (_ for _ in ()).throw(EndpointGone("HTTP 410"))
    world.says("new")
    service, stop = world.service(), asyncio.Event()
    store, noted = service.process.parts.store, asyncio.Event()
    note = store.set_status

    async def late(name: str, values: dict[str, str]) -> None:
        if "disabled" in values:
            await noted.wait()
        await note(name, values)

    store.set_status = late
    running = asyncio.ensure_future(service.run(stop))
    await until(lambda: world.sink.tries == 1)
    await asyncio.sleep(0.2)
    noted.set()
    await until(lambda: service.sinks.workers["crm"].noted)
    async with asyncio.timeout(60):
        while not (entries := await store.read("_bridge", 0, 10)):  # noted first, then said
            await asyncio.sleep(0.005)
    topics = [entry.event.topic for entry in entries]
    stop.set()
    await running
    assert topics == ["bridge.sink.disabled"]
    assert world.sink.tries == 1


async def test_rolling_topic_change_loses_no_newly_selected_event(
    world: World,
) -> None:
    world.limits = replace(world.limits, audit_every=0.05)
    world.sink_settings = SinkSettings(type="keeping", topics=["*.recipient.new"])
    async with world.running(roles=("relay", "sink")) as former:
        await until(lambda: "crm" in former.sinks.workers)
        world.sink_settings = SinkSettings(type="keeping", topics=["*.recipient.#"])
        world.says("new", "sending", "failed")
        async with world.running(roles=("poll",)):
            await until(lambda: len(world.sink.delivered) == 3)
    assert sorted(world.delivered) == ["failed", "new", "sending"]


async def test_removed_sink_with_a_growing_queue_is_named(world: World) -> None:
    await world.service(roles=("relay",)).once()
    world.says("new")
    with capture_logs() as logs:
        for _ in range(2):  # the queue of the first start was empty
            service = world.service(roles=("poll", "relay"))
            parts = replace(service.process.parts, sinks={})
            await Service(parts, Clock(), roles=("poll", "relay")).once()
    lines = [line for line in logs if line["event"] == "sink.is_no_longer_configured"]
    assert [(line["sink"], line["messages"]) for line in lines] == [("crm", 1)]


async def test_only_old_settled_entries_leave_the_journal(world: World) -> None:
    world.limits = replace(world.limits, journal_keep=0.001, audit_every=0.05, gauges_every=0.05, trim_every=0.05)
    failing = True

    def answer(outgoing: Outgoing) -> None:
        if failing and b'"sending"' in outgoing.wire.body.partition(b'"previous"')[0]:
            raise Transient("busy")

    world.sink.answer = answer
    world.sink_settings = SinkSettings(type="keeping", topics=["#"], retry=["200ms"] * 50)
    world.says("new", "sending", "failed")
    operator = SqliteStore(world.folder / "bridge.db", clock=Clock())
    async with world.running():
        await until(lambda: len(world.sink.delivered) == 2)
        await operator.open()

        async def first_kept() -> int:
            return (await operator.journal("city")).first

        base = (await operator.journal("city")).committed - 3
        async with asyncio.timeout(60):
            while await first_kept() != base + 2:
                await asyncio.sleep(0.01)
        assert len(await operator.read("city", 0, 10)) == 2
        failing = False
        async with asyncio.timeout(60):
            while await first_kept() != base + 4:
                await asyncio.sleep(0.01)
        await operator.close()
    assert world.delivered == ["new", "failed", "sending"]


async def test_nearly_full_journal_is_trimmed_early(world: World) -> None:
    world.limits = replace(world.limits, journal_bytes=100, audit_every=0.05, gauges_every=0.05, trim_every=3600.0)
    async with world.running() as service:
        await until(lambda: service.sources.states.get("city") == "ok")
        world.source.polls += [[Page([observe(str(number), "new") for number in range(8)], AT)]]
        await until(lambda: len(world.sink.delivered) == 8)
        async with asyncio.timeout(60):
            while (await service.process.parts.store.journal("city")).bytes > 1000:
                await asyncio.sleep(0.01)


async def test_full_journal_is_trimmed_while_the_store_refuses_writes(world: World) -> None:
    world.limits = replace(world.limits, journal_bytes=100, audit_every=0.05, gauges_every=0.05, trim_every=0.05)
    world.source.polls = [[Page([observe(str(number), "new") for number in range(8)], AT)]]
    service, stop = world.service(), asyncio.Event()
    store = service.process.parts.store
    note = store.set_status

    async def refuse(name: str, values: dict[str, str]) -> None:
        if name.startswith("journal/"):
            raise Unavailable("out of memory")
        await note(name, values)

    store.set_status = refuse
    running = asyncio.ensure_future(service.run(stop))
    async with asyncio.timeout(60):
        while (await store.journal("city")).bytes > 1000 or not world.sink.delivered:
            await asyncio.sleep(0.01)
    stop.set()
    await running
