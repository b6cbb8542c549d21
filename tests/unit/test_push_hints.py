"""A hint ends the wait of a poller, costs half of the budget at most, and stays until somebody has looked."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.adapters.sqlite.store import SqliteStore
from bridge.coordination.gates import Gate
from bridge.domain.errors import Transient, Unavailable
from bridge.domain.pushes import PushReader
from bridge.ingest.hints import HintBudget, HintQueue
from bridge.ingest.intake import Intake
from bridge.ingest.poller import Poller, PollListener
from bridge.protocols.ledger import Lease
from bridge.protocols.request_context import current
from bridge.protocols.source import Page, SourceSettings
from bridge.testing.fakes import ManualTime, ScriptedSource, observe

LIMIT = 100


@dataclass
class PushedSource(ScriptedSource):
    """A source that is pushed to; each poll makes some requests."""

    pushes: PushReader | None = None
    polled: list[tuple[list[str], bool]] = field(default_factory=list)
    postponed: Collection[str] = ()
    requests: int = 1
    _next: tuple[list[str], bool] = field(default_factory=lambda: ([], False))

    def expect_news(self, things: Mapping[str, datetime], *, early: bool) -> None:
        self._next = (sorted(things), early)

    async def pages(self, cursor, watched):
        self.polled.append(self._next)
        self._next = ([], False)
        if (counter := current().counter) is not None:
            counter.requests += self.requests
        async for page in super().pages(cursor, watched):
            yield page


class Watcher(PollListener):
    def __init__(self) -> None:
        self.waited: list[float] = []

    def hints_done(self, source: str, seconds) -> None:
        self.waited += seconds


class Rig:
    """A poller of a source that is pushed to, on a store and a clock of its own."""

    def __init__(self, folder: Path, rate: float = 4.0) -> None:
        self.time = ManualTime(datetime(2026, 3, 1, tzinfo=UTC))
        clock = self.time.clock
        self.store = SqliteStore(folder / "store.db", clock=clock)
        self.source = PushedSource()
        self.wake, self.stop, self.gate, self.watcher = asyncio.Event(), asyncio.Event(), Gate(), Watcher()
        self.budget = HintBudget(clock, rate)
        self.queue = HintQueue("city", self.store, clock, self.budget, self.wake)
        settings = SourceSettings(type="scripted", interval="60s")
        intake = Intake("city", "scripted", self.source, self.store, clock)
        self.poller = Poller(
            "city", settings, intake, self.store, clock, watcher=self.watcher, backpressure=_never, gate=self.gate,
            hints=self.queue,
        )  # fmt: skip

    async def lease(self) -> Lease:
        lease = await self.store.acquire("source/city", "test", 1e9)
        assert lease is not None
        return lease

    async def push(self, *things: str) -> None:
        assert await self.store.add_hints("city", things, LIMIT)
        self.wake.set()

    async def wait(self, seconds: float = 60.0) -> float:
        """Return how long the poller waits for its next poll."""
        before = self.time.seconds
        await self.poller._wait(self.stop, seconds)
        return self.time.seconds - before

    async def poll(self) -> float:
        return await self.poller.step(await self.lease())


async def _never(_: str) -> str | None:
    return None


@pytest.fixture
async def rig(tmp_path: Path):
    rig = Rig(tmp_path)
    await rig.store.open()
    await rig.poll()
    rig.source.polled.clear()
    yield rig
    await rig.store.close()


async def test_push_ends_the_wait(rig: Rig) -> None:
    """Whichever process stored the hint, it is found within a second; without one, the interval is waited for."""
    assert await rig.wait() >= 60
    await rig.store.add_hints("city", ["a"], LIMIT)
    assert await rig.wait() <= 1


async def test_pushed_things_are_looked_at_and_forgotten(rig: Rig) -> None:
    await rig.push("a", "b")
    await rig.wait()
    await rig.poll()
    assert rig.source.polled == [(["a", "b"], True)]
    assert await rig.store.count_hints("city") == 0
    assert len(rig.watcher.waited) == 2
    assert await rig.wait(30) >= 30


async def test_regular_poll_takes_what_was_pushed(rig: Rig) -> None:
    await rig.push("a")
    await rig.poll()
    assert rig.source.polled == [(["a"], False)]
    assert await rig.store.count_hints("city") == 0


async def test_pushes_do_not_put_off_the_regular_poll(rig: Rig) -> None:
    wait = await rig.poll()
    due = rig.time.seconds + wait
    while wait > 0:
        await rig.push("a")
        await rig.wait(wait)
        if rig.time.seconds >= due:
            break
        wait = await rig.poll()
        assert rig.time.seconds + wait == pytest.approx(due)
        await rig.time.sleep(5.0)
    assert due <= rig.time.seconds <= due + 5


async def test_push_during_the_look_is_looked_at_again(rig: Rig) -> None:
    await rig.push("a")
    await rig.wait()
    pages = rig.source.pages

    async def with_push(cursor, watched):
        await rig.push("a")
        async for page in pages(cursor, watched):
            yield page

    rig.source.pages = with_push
    await rig.poll()
    assert await rig.store.count_hints("city") == 1


async def test_hint_stays_if_its_look_fails(rig: Rig) -> None:
    await rig.push("a")
    await rig.wait()
    rig.source.polls = [[Transient("HTTP 500")]]
    with capture_logs():
        await rig.poll()
    assert await rig.store.count_hints("city") == 1
    assert await rig.wait(3) >= 3  # a failing source is not asked sooner because it is pushed to


async def test_hint_stays_if_there_was_no_time_for_it(rig: Rig) -> None:
    await rig.push("a", "b")
    rig.source.postponed = ["b"]
    await rig.poll()
    assert [hint.thing for hint in await rig.store.hints("city", LIMIT)] == ["b"]
    assert len(rig.watcher.waited) == 1


async def test_flood_spends_half_of_the_budget(rig: Rig) -> None:
    """A new thing is pushed all the time, for ten minutes; with 4 requests a second, 2 may be spent."""
    spent, early, began = 0, 0, rig.time.seconds
    with capture_logs() as logs:
        while rig.time.seconds < began + 600:
            await rig.push(*(f"m{rig.time.seconds}-{n}" for n in range(3)), "known")
            await rig.wait(max(0.0, began + 600 - rig.time.seconds))
            rig.source.requests = 7
            await rig.poll()
            spent += 7 if rig.source.polled[-1][1] else 0
            early += rig.source.polled[-1][1]
            if await rig.store.count_hints("city") > 80:
                await rig.store.drop_hints("city", await rig.store.hints("city", LIMIT))
    assert early > 50
    assert spent <= 2 * 600 + 20
    assert "push.budget_spent" in [line["event"] for line in logs]


async def test_pause_and_requested_poll_go_before_pushes(rig: Rig) -> None:
    await rig.push("a")
    rig.gate.request_poll("now")
    assert await rig.wait() == 0
    await rig.poll()
    assert rig.source.polled == [(["a"], False)]


async def test_store_outage_leaves_the_regular_polls(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: str) -> int:
        raise Unavailable("away")

    monkeypatch.setattr(rig.store, "count_hints", away)
    assert await rig.wait(5) >= 5


async def test_low_rate_still_looks_now_and_then(tmp_path: Path) -> None:
    rig = Rig(tmp_path, rate=20 / 60)
    await rig.store.open()
    await rig.poll()
    rig.budget.spend(1)
    await rig.push("a")
    assert 5 <= await rig.wait() <= 8
    await rig.store.close()


async def test_event_says_that_a_push_led_there(rig: Rig) -> None:
    at = rig.time.now
    rig.source.polls = [[Page([observe("1", "sent")], at, pushed=at)], [Page([observe("2", "sent")], at)]]
    await rig.poll()
    await rig.poll()
    first, second = await rig.store.read("city", 0, 10)
    assert b'"pushed":"' in first.event.body
    assert b"pushed" not in second.event.body
