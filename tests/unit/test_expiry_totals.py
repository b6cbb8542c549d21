"""A service tells what has expired in an event of its own, and follows mutes and quiet times while it runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from harness import until
from rigs.embedded_service import EmbeddedService, with_frequent_gauges

from bridge.domain.errors import Unavailable
from bridge.protocols.roster import Mute
from bridge.protocols.sink import SinkSettings
from bridge.runtime import expiry_totals


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EmbeddedService]:
    async with with_frequent_gauges(tmp_path) as world:
        yield world


def lets_all_expire(world: EmbeddedService) -> None:
    world.sink_settings = SinkSettings(type="keeping", topics=["#"], max_age="1ms", expired="summary")


async def summaries(world: EmbeddedService) -> list[dict[str, Any]]:
    entries = [entry.event for entry in await world.store.read("_bridge", 0, 100)]
    return [json.loads(event.body) for event in entries if event.topic == "bridge.delivery.expired"]


async def expired(world: EmbeddedService) -> int:
    return sum(count.expired for count in (await world.store.counts("crm")).values())


async def test_a_summary_is_published_once_and_none_about_summaries(world: EmbeddedService) -> None:
    lets_all_expire(world)
    world.says("new")
    await world.service().once()
    (summary,) = await summaries(world)
    assert (summary["type"], summary["subject"]) == ("bridge.bridge.delivery.expired", "/sinks/crm")
    data = summary["data"]
    assert (data["sink"], data["count"], data["reason"]) == ("crm", 1, "1 event older than 1ms (max_age)")
    assert data["oldest"] == data["newest"]
    assert sum(data["topics"].values()) == 1
    await world.service().once()
    assert await expired(world) == 2  # the summary itself was too old for its sink
    assert len(await summaries(world)) == 1


async def test_a_summary_that_was_cut_short_is_the_same_event(world: EmbeddedService) -> None:
    lets_all_expire(world)
    world.says("new")
    service = world.service()

    async def fail(*_: object) -> None:
        raise Unavailable("the store is away")

    service.process.parts.store.close_totals = fail
    with pytest.raises(Unavailable):
        await service.once()
    await world.service().once()
    first, second = await summaries(world)
    assert first["id"] == second["id"]
    assert first["data"]["count"] == second["data"]["count"] == 1


async def test_a_running_service_tells_at_most_once_a_minute(world: EmbeddedService, monkeypatch) -> None:
    monkeypatch.setattr(expiry_totals, "_RUN_EVERY_SECONDS", 0.05)
    lets_all_expire(world)
    world.says("new")

    async def is_published() -> bool:
        return len(await summaries(world)) == 1

    async with world.running():
        await until(is_published, "it is told")
        world.says("failed")

        async def have_expired() -> bool:
            return await expired(world) == 3  # the summary is one of them

        await until(have_expired, "more expires")
    assert len(await summaries(world)) == 1
    assert await world.store.holder("totals/crm") is not None


async def test_mutes_are_followed_while_the_service_runs(world: EmbeddedService) -> None:
    now = datetime.now(UTC).timestamp()
    mute = Mute("m1", "crm", now, now + 3600, "ann@desk", where={"exact": {"data.status": "failed"}})
    async with world.running() as service:
        await world.store.keep_mute(mute)
        await until(lambda: bool(service.process.gates.of("sink/crm").mutes), "the mute is heard")
        world.says("new", "failed")

        async def is_counted() -> bool:
            return [(count.delivered, count.filtered) for count in (await world.store.counts("crm")).values()] == [
                (1, 1)
            ]

        await until(is_counted, "one is sent, and one is muted")
        text = service.process.metrics.text().decode()
        assert 'bridge_sink_filtered_total{sink="crm"} 1.0' in text
        await world.store.keep_mute(replace(mute, until=now))
        await until(lambda: not service.process.gates.of("sink/crm").mutes, "its end is heard")


async def test_readiness_is_that_of_other_times_while_it_is_quiet(world: EmbeddedService) -> None:
    begin, end = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    world.sink_settings = SinkSettings(type="keeping", topics=["#"], quiet=f"{begin:%H:%M}-{end:%H:%M} UTC")
    world.says("new")
    async with world.running(listen=("127.0.0.1", 0)) as service, aiohttp.ClientSession() as client:

        async def waits() -> bool:
            return sum(count.waiting for count in (await world.store.counts("crm")).values()) == 1

        await until(waits, "the event waits")
        await until(lambda: 'state="quiet"} 1.0' in service.process.metrics.text().decode(), "the state is shown")
        async with client.get(f"http://127.0.0.1:{service.health.server.port}/readyz") as answer:
            assert answer.status == 200
    assert world.sink.tries == 0
