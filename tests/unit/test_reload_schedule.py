"""Reloads do not move the polls of a source that stays as it is: by a clock that the test moves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.reloadable import AccountSource, HeldSource, Reloadable, keeping, scripted, until
from rigs.stepped_clock import SteppedClock

from bridge.domain.errors import ConfigError, ConfigProblem
from bridge.runtime.service import Service

INTERVAL_SECONDS = 0.7
"""Seconds between two polls; nothing else in the process waits for as long."""
BAD = ConfigError([ConfigProblem("bridge.yaml", 1, "sinks.crm", "is wrong")])


def neighbour_comes_or_goes(world: Reloadable) -> None:
    world.sources.pop("abbey", None) or world.sources.update(abbey=scripted("1m"))


def neighbour_changes(world: Reloadable) -> None:
    abbey = world.sources["abbey"]
    world.sources["abbey"] = scripted("1m", rate="3/s" if abbey.rate == 4 else "4/s")


def third_comes_or_goes(world: Reloadable) -> None:
    world.sources.pop("town", None) or world.sources.update(town=scripted("1m"))


def sink_changes(world: Reloadable) -> None:
    world.sinks["crm"] = keeping(concurrency=29 - world.sinks["crm"].concurrency)


def sink_comes_or_goes(world: Reloadable) -> None:
    world.sinks.pop("more", None) or world.sinks.update(more=keeping())


def setting_changes(world: Reloadable) -> None:
    world.settings["audit"] = "3s" if world.settings.get("audit") == "2s" else "2s"


def file_breaks(world: Reloadable) -> None:
    world.error = BAD


CHANGES: list[Callable[[Reloadable], None]] = [
    neighbour_comes_or_goes, sink_changes, neighbour_changes, file_breaks, third_comes_or_goes, neighbour_comes_or_goes,
    sink_comes_or_goes, third_comes_or_goes, neighbour_comes_or_goes, setting_changes, neighbour_comes_or_goes,
]  # fmt: skip
"""Sources of the same account join and leave, by which the lease of the unchanged one gets other names."""


@pytest.mark.parametrize("source_class", [HeldSource, AccountSource])
async def test_reloads_leave_polls_of_an_unchanged_source_on_schedule(
    tmp_path: Path, source_class: type[HeldSource]
) -> None:
    time = SteppedClock()
    world = Reloadable(tmp_path, source_class=source_class, clock=time.clock)
    world.sources = {"city": scripted(f"{INTERVAL_SECONDS * 1000:g}ms")}
    world.settings = {"lease": "30s"}
    async with world.running() as service:
        await waits_for_its_next_poll(time, 0)
        city = world.made_sources[0]
        for number, change in enumerate([*CHANGES, *CHANGES]):
            time.move_to((number + 0.4) * INTERVAL_SECONDS)
            change(world)
            outcome = await world.reload(service)
            assert outcome.status == ("refused" if change is file_breaks else "reloaded"), outcome
            world.error = None
            await is_settled(world, service)
            await waits_for_its_next_poll(time, number)
            time.move_to((number + 1) * INTERVAL_SECONDS)
            await waits_for_its_next_poll(time, number + 1)
        expected = [number * INTERVAL_SECONDS for number in range(2 * len(CHANGES) + 1)]
        assert city.polled_at == pytest.approx(expected)
        assert service.process.parts.sources["city"].source is city


async def test_polls_go_on_while_the_file_is_being_read(tmp_path: Path) -> None:
    world = Reloadable(tmp_path)
    async with world.running() as service:
        city = world.made_sources[0]
        await until(lambda: city.cursors, "it is polled")
        world.is_readable = threading.Event()
        try:
            world.sources["town"] = scripted()
            reload = asyncio.ensure_future(world.reload(service))
            polls = len(city.cursors)
            await until(lambda: len(city.cursors) > polls + 5, "it is polled on")
            assert not reload.done()
        finally:
            world.is_readable.set()
        assert (await reload).changes == {"sources_added": ["town"]}


async def waits_for_its_next_poll(time: SteppedClock, number: int) -> None:
    await until(lambda: time.has_sleeper_until((number + 1) * INTERVAL_SECONDS), f"poll {number + 1} is due")


async def is_settled(world: Reloadable, service: Service) -> None:
    assert (await world.reload(service)).status == "unchanged"
