"""A process follows another configuration: what differs ends and starts, all else is not disturbed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from rigs.reloadable import AccountSource, HeldSource, Reloadable, keeping, scripted, shows, until
from structlog.testing import capture_logs

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.errors import ConfigError, ConfigProblem, Unavailable
from bridge.protocols.roster import Pause
from bridge.runtime.service import Service
from bridge.testing.fakes import KeepingSink

BAD = ConfigError([ConfigProblem("bridge.yaml", n, f"sinks.crm.{n}", "is wrong") for n in range(5)])


@pytest.fixture
def world(tmp_path: Path) -> Reloadable:
    return Reloadable(tmp_path)


def statuses(sink: KeepingSink) -> list[str]:
    return [json.loads(outgoing.wire.body)["data"]["status"] for outgoing in sink.delivered]


def ids(*sinks: KeepingSink) -> list[str]:
    return [json.loads(outgoing.wire.body)["id"] for sink in sinks for outgoing in sink.delivered]


def gauges(service: Service, name: str) -> set[str]:
    """Return the gauges of a source or a sink; those of a journal stay with it."""
    families = [family for family in service.process.metrics.registry.collect() if family.type == "gauge"]
    samples = [sample for family in families for sample in family.samples if name in sample.labels.values()]
    kept = ("bridge_journal_", "bridge_lease_held")
    return {
        sample.name
        for sample in samples
        if not sample.name.startswith(kept) or sample.labels.get("kind") in ("source", "account")
    }


async def is_settled(world: Reloadable, service: Service) -> None:
    """Wait until all parts of the last reload have ended and started."""
    assert (await world.reload(service)).status == "unchanged"


# --- sources ----------------------------------------------------------------------------------------------------------


async def test_unchanged_source_keeps_its_poll_in_flight(world: Reloadable) -> None:
    async with world.running() as service:
        city = world.made_sources[0]
        city.hold = asyncio.Event()
        await until(lambda: city.in_flight, "a poll is in flight")
        poller, polls = service.sources.pollers["city"], len(city.cursors)
        world.sources["town"] = scripted()
        outcome = await world.reload(service)
        assert outcome.plain() == {
            "status": "reloaded", "generation": service.process.parts.generation, "sources_added": ["town"],
        }  # fmt: skip
        town = world.made_sources[-1]
        await until(lambda: len(town.cursors) > 1, "the new source is polled")
        del world.sources["town"]
        assert (await world.reload(service)).changes == {"sources_removed": ["town"]}
        await until(lambda: town.closed, "the removed source ends")
        assert (city.in_flight, len(city.cursors)) == (1, polls)
        assert service.sources.pollers == {"city": poller}
        assert not gauges(service, "town")
        city.hold.set()
        await until(lambda: len(city.cursors) > polls + 1, "it goes on")
        assert len(world.made_sources) == 2


async def test_changed_source_is_drained_and_starts_with_its_state(world: Reloadable) -> None:
    async with world.running() as service:
        former, crm = world.made_sources[0], world.made_sinks[0]
        shows(former, "new")
        await until(lambda: statuses(crm) == ["new"], "the first event")
        former.hold = asyncio.Event()
        await until(lambda: former.in_flight, "a poll is in flight")
        shows(former, "sending")
        world.sources["city"] = scripted("30ms")
        assert (await world.reload(service)).changes == {"sources_changed": ["city"]}
        later = world.made_sources[1]
        shows(later, "sending", "failed")
        assert not later.cursors
        former.hold.set()
        await until(lambda: len(crm.delivered) == 3, "the events of both")
        assert former.closed
    assert statuses(crm) == ["new", "sending", "failed"]
    assert len(set(ids(crm))) == 3


async def test_poll_that_does_not_end_is_cancelled(world: Reloadable) -> None:
    world.settings = {"drain_timeout": "100ms"}
    async with world.running() as service:
        former = world.made_sources[0]
        former.hold = asyncio.Event()
        await until(lambda: former.in_flight, "a poll is in flight")
        world.sources["city"] = scripted("30ms")
        await world.reload(service)
        await until(lambda: world.made_sources[1].cursors, "its successor polls")
        assert former.closed


async def test_added_source_follows_the_orders_at_once(world: Reloadable) -> None:
    async with world.running() as service:
        await world.store.open()
        await world.store.pause("source/town", Pause(1.0, "ann@desk"))
        world.sources["town"] = scripted()
        await world.reload(service)
        await until(lambda: service.sources.states.get("town") == "paused", "it rests")
        assert world.made_sources[-1].cursors == []
        await world.store.close()


@pytest.mark.parametrize("members", [["town"], ["town", "abbey"]])
async def test_sources_join_and_leave_an_account(world: Reloadable, members: list[str]) -> None:
    world.source_class = AccountSource
    world.sources = {"city": scripted("50ms"), **{name: scripted() for name in members[1:]}}
    async with world.running() as service:
        city = next(source for source in world.made_sources if source.name == "city")
        await until(lambda: len(city.cursors) > 1, "it is polled")
        poller = service.sources.pollers["city"]
        await until(lambda: not city.in_flight, "it waits for its interval")
        world.sources[members[0]] = scripted(rate="3/s")
        assert (await world.reload(service)).changes == {"sources_added": [members[0]]}
        joined = world.made_sources[-1]
        await until(lambda: joined.cursors, "its new neighbour is polled")
        polls = len(city.cursors)
        await until(lambda: len(city.cursors) > polls, "it is polled on")
        assert service.sources.pollers["city"] is poller
        world.sources[members[0]] = scripted(rate="4/s")
        await world.reload(service)
        await until(lambda: world.made_sources[-1].cursors, "its changed neighbour is polled")
        for name in members:
            del world.sources[name]
        await world.reload(service)
        await is_settled(world, service)
        polls = len(city.cursors)
        await until(lambda: len(city.cursors) > polls, "it is polled alone")
        assert service.sources.pollers == {"city": poller}
        assert set(service.sources.states) == {"city"}


async def test_process_without_polls_only_exchanges_its_sources(world: Reloadable) -> None:
    async with world.running(roles=("sink",)) as service:
        await until(lambda: "crm" in service.sinks.workers, "it delivers")
        former = world.made_sources[0]
        world.sources["city"] = scripted("30ms")
        assert (await world.reload(service)).status == "reloaded"
        await until(lambda: former.closed, "its former source is closed")
        assert not world.made_sources[1].cursors


# --- sinks ------------------------------------------------------------------------------------------------------------


async def test_sinks_come_change_and_go_without_loss(world: Reloadable) -> None:
    async with world.running() as service:
        city, crm = world.made_sources[0], world.made_sinks[0]
        shows(city, "new")
        await until(lambda: statuses(crm) == ["new"], "the first event")
        worker = service.sinks.workers["crm"]
        world.sinks["more"] = keeping(privacy="token")
        await world.reload(service)
        more = world.made_sinks[-1]
        shows(city, "sending")
        await until(lambda: statuses(more) == ["sending"] and len(crm.delivered) == 2, "both have the second event")
        assert service.sinks.workers["crm"] is worker
        assert service.process.parts.privacy.value

        crm.gate = asyncio.Event()
        shows(city, "failed")
        await until(lambda: crm._now, "the third event is being sent")
        world.sinks["crm"] = keeping(concurrency=3)
        del world.sinks["more"]
        assert (await world.reload(service)).changes == {"sinks_changed": ["crm"], "sinks_removed": ["more"]}
        shows(city, "new", key="2")
        assert not crm.closed
        crm.gate.set()
        later = world.made_sinks[-1]
        await until(lambda: statuses(later) == ["new"], "its successor has what came meanwhile")
        await is_settled(world, service)
        assert crm.closed
        assert more.closed
        assert set(service.sinks.workers) == {"crm"}
        assert not gauges(service, "more")

        shows(city, "sending", key="2")
        await until(lambda: len(later.delivered) == 2, "the last event")
        world.sinks["more"] = keeping()
        await world.reload(service)
        again = world.made_sinks[-1]
        await until(lambda: "sending" in statuses(again), "the sink that came back has what its queue kept")
    assert len(set(ids(crm, later))) == len(ids(crm, later)) == 5
    assert ids(more, again) == [*dict.fromkeys(ids(more, again))]


# --- refused ----------------------------------------------------------------------------------------------------------


async def test_bad_file_changes_nothing_and_is_told_everywhere(world: Reloadable) -> None:
    async with world.running(listen=("127.0.0.1", 0)) as service:
        await until(lambda: service.health.server.port and world.made_sources[0].cursors, "it works")
        parts, world.error = service.process.parts, BAD
        with capture_logs() as logs:
            outcome = await world.reload(service)
        assert outcome.status == "refused"
        assert outcome.reason is not None
        assert outcome.reason.endswith("bridge.yaml:2: sinks.crm.2: is wrong; and 2 more")
        assert [(line["event"], line["reason"]) for line in logs] == [("config.refused", outcome.reason)]
        assert service.process.parts is parts
        text = service.process.metrics.text().decode()
        assert "bridge_config_last_reload_successful 0.0" in text
        assert f'bridge_config_info{{generation="{parts.generation}"}} 1.0' in text
        url = f"http://127.0.0.1:{service.health.server.port}/readyz"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            page = await answer.json()
        assert page["reload"] == {"problem": outcome.reason, "generation": parts.generation}
        assert page["status"] == "ready"
        await service.attendance.begin()
        await world.store.open()
        (presence,) = await world.store.presences()
        assert presence.member.reload_problem == outcome.reason
        world.error = None
        assert (await world.reload(service)).status == "unchanged"
        assert "bridge_config_last_reload_successful 1.0" in service.process.metrics.text().decode()
        assert service.process.health.reload is None
        await world.store.close()


async def test_setting_that_needs_a_restart_refuses_the_file(world: Reloadable) -> None:
    async with world.running() as service:
        world.settings, world.sources = {"lease": "9s"}, {"town": scripted()}
        outcome = await world.reload(service)
        assert outcome.status == "refused"
        assert "lease: has changed and needs a restart" in str(outcome.reason)
        assert list(service.process.parts.sources) == ["city"]


class SourceOfNobody(HeldSource):
    """A source that has a defect where it names its account."""

    @property
    def account(self) -> str:
        raise RuntimeError("+15551234567")


@pytest.mark.parametrize("at_once", [True, False])
async def test_part_with_a_defect_refuses_the_file(
    world: Reloadable, monkeypatch: pytest.MonkeyPatch, *, at_once: bool
) -> None:
    async with world.running() as service:

        def make(name: str) -> HeldSource:
            if at_once:
                raise RuntimeError("+15551234567")
            return SourceOfNobody(name=name)

        monkeypatch.setattr(world, "make_source", make)
        world.sources["town"] = scripted()
        outcome = await world.reload(service)
        assert outcome.status == "refused"
        assert "RuntimeError at " in str(outcome.reason)
        assert "1555" not in str(outcome.reason)
        assert list(service.process.parts.sources) == ["city"]


async def test_reload_waits_for_an_unavailable_store(world: Reloadable, monkeypatch: pytest.MonkeyPatch) -> None:
    away = [True]
    orders = SqliteStore.orders

    async def cut(store: SqliteStore) -> object:
        if away:
            raise Unavailable("the store is away")
        return await orders(store)

    async with world.running() as service:
        await until(lambda: world.made_sources[0].cursors, "it works")
        monkeypatch.setattr(SqliteStore, "orders", cut)
        world.sinks["more"] = keeping()
        outcome = await world.reload(service)
        assert (outcome.status, outcome.reason) == (
            "waiting", "the new configuration waits for the store: the store is away",
        )  # fmt: skip
        assert list(service.process.parts.sinks) == ["crm"]
        away.clear()
        await until(lambda: "more" in service.sinks.workers, "it is followed when the store is back")


# --- how it is asked for ----------------------------------------------------------------------------------------------


async def test_page_reloads_where_the_configuration_allows_it(world: Reloadable) -> None:
    async with world.running(listen=("127.0.0.1", 0)) as service, aiohttp.ClientSession() as client:
        await until(lambda: service.health.server.port and world.made_sources[0].cursors, "it works")
        url = f"http://127.0.0.1:{service.health.server.port}/-/reload"

        async def post(**headers: str) -> tuple[int, str]:
            async with client.post(url, headers=headers) as answer:
                return answer.status, (await answer.json())["status"]

        world.sources["town"] = scripted()
        assert await post() == (404, "off")
        world.settings["http"] = {"reload": True}
        await world.reload(service)
        assert await post() == (200, "unchanged")
        del world.sources["town"]
        assert await post() == (200, "reloaded")
        assert await post(Origin="http://evil.example") == (403, "forbidden")
        world.error = BAD
        assert await post() == (422, "refused")
        async with client.get(url) as answer:
            assert answer.status == 405


async def test_watched_file_is_followed_when_it_rests(world: Reloadable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.runtime.reload._WATCH_SECONDS", 0.02)
    monkeypatch.setattr("bridge.runtime.reload._AGAIN_SECONDS", 0.05)
    async with world.running() as service:
        await until(lambda: world.made_sources[0].cursors, "it works")
        world.settings = {"reload": "watch"}
        await world.reload(service)
        world.sources["town"], world.error = scripted(), BAD
        with capture_logs() as logs:
            world.path.write_text("another")
            await until(lambda: service.process.reload.problem, "the bad file is refused")
            world.error = None
            await until(lambda: "town" in service.sources.states, "it is read again by itself")
        reads = [line["trigger"] for line in logs if line["event"] in ("config.refused", "config.reloaded")]
        assert reads[0] == "watch"
        assert set(reads[1:]) == {"again"}


async def test_reload_asked_for_while_the_process_starts_comes_later(
    world: Reloadable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.runtime.reload._ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(SqliteStore, "open", _never)
    async with world.running() as service:
        outcome = await world.reload(service)
        assert (outcome.status, outcome.plain()["status"]) == ("waiting", "waiting")


async def _never(_: SqliteStore) -> None:
    raise Unavailable("the store is away")


async def test_process_that_ends_in_a_reload_closes_everything(world: Reloadable) -> None:
    world.settings = {"drain_timeout": "600ms"}
    async with world.running() as service:
        city = world.made_sources[0]
        city.hold = asyncio.Event()
        await until(lambda: city.in_flight, "a poll is in flight")
        world.sources, world.sinks = {"city": scripted("30ms"), "town": scripted()}, {}
        assert (await world.reload(service)).status == "reloaded"
    assert city.closed
    assert world.made_sinks[0].closed
