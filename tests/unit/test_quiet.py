"""A provider that says nothing new for too long is published once, and so is that it speaks again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.expect import ExpectSettings
from bridge.ingest.expectations import ACTIVITY, QUIET
from bridge.ingest.intake import Intake
from bridge.ingest.quiet import QuietWatch
from bridge.ingest.silence import SilenceWatch
from bridge.protocols.source import Page, SourceSettings
from bridge.testing.fakes import ManualTime, ScriptedSource, observe

MONDAY = datetime(2026, 3, 2, 10, tzinfo=UTC)
OFFICE = "Mon-Fri 08:00-18:00 Europe/Paris"


@dataclass
class World:
    """One source, polled every ten minutes."""

    store: SqliteStore
    time: ManualTime
    during: str | None = None
    source: ScriptedSource = field(default_factory=ScriptedSource)
    shown: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a process: what the one before kept in memory is gone."""
        clock = self.time.clock
        expect = ExpectSettings(activity_within="1h", during=self.during)
        self.intake = Intake("city", "govdelivery", self.source, self.store, clock, notes_activity=True)
        quiet = QuietWatch(
            "city", self.intake.uri, self.store, clock, expect, self.intake.times, shown=self.shown.append
        )  # fmt: skip
        self.silence = SilenceWatch(quiet=quiet)

    async def poll(self, *, news: bool = False, is_complete: bool = True) -> None:
        lease = await self.store.acquire("source/city", "me", 1e9)
        number = str(self.time.seconds)
        self.source.polls = [[Page([observe(number, "new")] if news else [], self.time.now)]]
        result = await self.intake.poll(lease)
        await self.silence.after_poll(lease, has_news=result.events > 0, is_complete=is_complete)

    async def polls(self, hours: float, **options) -> None:
        for _ in range(int(hours * 6)):
            self.time.passes(minutes=10)
            await self.poll(**options)

    async def own_events(self) -> list[dict]:
        entries = await self.store.read("city", 0, 1000)
        bodies = [json.loads(entry.event.body) for entry in entries]
        return [body for body in bodies if body["data"]["channel"] == "bridge"]

    async def statuses(self) -> list[str]:
        return [event["data"]["status"] for event in await self.own_events()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    time = ManualTime(MONDAY)
    store = SqliteStore(tmp_path / "bridge.db", clock=time.clock)
    await store.open()
    yield World(store, time)
    await store.close()


async def test_quiet_and_active_are_published_once_each(world: World) -> None:
    await world.poll(news=True)
    await world.polls(0.8)
    assert await world.statuses() == []
    await world.polls(3)
    assert world.shown[-1]
    await world.polls(0.5, news=True)
    quiet, active = await world.own_events()
    assert (quiet["type"], active["type"]) == ("bridge.bridge.source.quiet", "bridge.bridge.source.active")
    assert quiet["subject"] == active["subject"] == "/sources/city"
    assert quiet["time"] == "2026-03-02T11:00:00Z"
    assert quiet["data"]["since"] == active["data"]["since"] == "2026-03-02T10:00:00Z"
    assert quiet["data"]["reason"] == "nothing new for 1h"
    assert (active["data"]["previous"], active["data"]["reason"]) == ("quiet", None)
    assert not world.shown[-1]
    await world.polls(1.2)
    assert await world.statuses() == ["quiet", "active", "quiet"]


async def test_restart_neither_repeats_nor_forgets(world: World) -> None:
    await world.poll(news=True)
    for _ in range(30):
        world.time.passes(minutes=10)
        world.start()
        await world.poll()
    assert await world.statuses() == ["quiet"]
    world.start()
    world.time.passes(minutes=10)
    await world.poll(news=True)
    assert await world.statuses() == ["quiet", "active"]


async def test_only_a_good_and_complete_poll_tells_of_silence(world: World) -> None:
    await world.poll(news=True)
    world.time.passes(hours=5)  # no poll at all: it failed, or nobody polled
    assert await world.statuses() == []
    await world.poll(is_complete=False)
    assert await world.statuses() == []
    await world.poll(news=True)  # the first good poll finds what came in between
    await world.polls(0.8)
    assert await world.statuses() == []


async def test_silence_counts_from_the_opening_of_the_window(world: World) -> None:
    world.during = OFFICE
    world.start()
    world.time.now = datetime(2026, 3, 6, 16, 40, tzinfo=UTC)  # Friday, twenty minutes before the end
    await world.poll(news=True)
    await world.polls(62)
    assert await world.statuses() == []
    world.time.now = datetime(2026, 3, 9, 7, 59, tzinfo=UTC)  # Monday, 08:59 in Paris
    await world.poll()
    assert await world.statuses() == []
    world.time.passes(minutes=1)
    await world.poll()
    assert await world.statuses() == ["quiet"]
    assert (await world.own_events())[0]["data"]["reason"] == f"nothing new for 1h, which is expected {OFFICE}"


async def test_window_opens_by_the_clocks_of_its_zone(world: World) -> None:
    world.during = "Sun 08:00-18:00 Europe/Paris"
    world.start()
    world.time.now = datetime(2026, 3, 28, 12, tzinfo=UTC)
    await world.poll(news=True)
    world.time.now = datetime(2026, 3, 29, 6, 59, tzinfo=UTC)  # summer has begun: 08:59
    await world.poll()
    assert await world.statuses() == []
    world.time.passes(minutes=1)
    await world.poll()
    assert await world.statuses() == ["quiet"]


async def test_source_without_any_news_counts_from_its_first_poll(world: World) -> None:
    await world.poll()
    await world.polls(0.8)
    assert await world.statuses() == []
    await world.polls(0.5)
    assert await world.statuses() == ["quiet"]


async def test_clock_that_was_ahead_does_not_silence_the_alarm(world: World) -> None:
    world.time.set_by = 7200.0
    await world.poll(news=True)
    world.time.set_by = 0.0
    world.start()
    await world.polls(1.5)
    assert await world.statuses() == ["quiet"]


async def test_expectation_that_is_removed_leaves_nothing_behind(world: World) -> None:
    await world.poll(news=True)
    await world.polls(2)
    assert {ACTIVITY, QUIET} <= (await world.store.cursor("city")).keys()
    plain = Intake("city", "govdelivery", world.source, world.store, world.time.clock)
    lease = await world.store.acquire("source/city", "me", 1e9)
    await plain.poll(lease)
    assert not {ACTIVITY, QUIET} & (await world.store.cursor("city")).keys()
    world.time.passes(hours=9)
    world.start()
    await world.poll()
    assert await world.statuses() == ["quiet"]  # that of before


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({}, "says nothing"), ({"during": OFFICE, "final_within": "2h"}, "add activity_within"),
        ({"activity_within": "1h", "during": "Mon-Fri"}, "is no weekly window"), ({"activity_within": "0s"}, "greater"),
        ({"final_within": "2"}, "is not a duration"), ({"final_after": "2h"}, "not permitted"),
    ],
)  # fmt: skip
def test_expectation_that_means_nothing_is_refused(values: dict, wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        SourceSettings.model_validate({"type": "govdelivery", "expect": values})


def test_expectations_are_shown_as_they_were_written() -> None:
    values = {"final_within": "2h", "activity_within": "1h", "during": OFFICE}
    settings = SourceSettings.model_validate({"type": "govdelivery", "expect": values})
    assert settings.model_dump(mode="json")["expect"] == values
