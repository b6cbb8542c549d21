"""A resource without a final status is published once when its time has come, and its late status says so."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.errors import Conflict, LeaseLost
from bridge.domain.events.govdelivery import RecipientOverdue
from bridge.domain.lifecycle import StatusHistory, awaits_final
from bridge.domain.overdue import is_overdue, overdue_id
from bridge.ingest.expectations import SINCE, FinalStatuses
from bridge.ingest.intake import Intake
from bridge.ingest.overdue import OverdueWatch
from bridge.protocols.ledger import Commit, Key, Lease, StatusChange
from bridge.protocols.source import Page
from bridge.testing.fakes import KIND, LIFECYCLE, ManualTime, ScriptedSource, observe

OPEN = replace(KIND, overdue=RecipientOverdue)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WITHIN = 3600.0
LONG = 10 * 365 * 86400.0


def seen(time: ManualTime, *statuses: str, **options) -> Page:
    """Return a page that shows resources as `NAME=STATUS`."""
    pairs = (text.split("=") for text in statuses)
    observations = [observe(name, status, kind=OPEN, phone=f"+1555000{name}") for name, status in pairs]
    return Page(observations, time.now, **options)


@dataclass
class World:
    """One source with its store, and the processes that poll it one after the other."""

    store: SqliteStore
    time: ManualTime
    within: float | None = WITHIN
    baseline: bool = False
    source: ScriptedSource = field(default_factory=ScriptedSource)

    def __post_init__(self) -> None:
        self.source.resource_types = [OPEN]
        self.start()

    def start(self) -> None:
        """Start a process: what the one before kept in memory is gone."""
        self.finals = None if self.within is None else FinalStatuses(self.within)
        self.intake = Intake(
            "city", "govdelivery", self.source, self.store, self.time.clock, finals=self.finals, baseline=self.baseline
        )
        self.watch = OverdueWatch(
            "city", self.intake.uri, self.source, self.store, self.time.clock,
            self.finals or FinalStatuses(WITHIN), self.intake.times,
        )  # fmt: skip

    async def lease(self, owner: str = "one") -> Lease:
        lease = await self.store.acquire("source/city", owner, LONG)
        assert lease is not None
        return lease

    async def poll(self, *statuses: str, **options) -> None:
        self.source.polls = [[seen(self.time, *statuses, **options)]]
        await self.intake.poll(await self.lease())

    async def check(self) -> int:
        return await self.watch.check(await self.lease())

    async def events(self) -> list[dict]:
        return [json.loads(entry.event.body) for entry in await self.store.read("city", 0, 1000)]

    async def said(self) -> list[tuple[str, str]]:
        return [(event["subject"].rpartition("/")[2], event["data"]["status"]) for event in await self.events()]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    time = ManualTime(AT)
    store = SqliteStore(tmp_path / "bridge.db", clock=time.clock)
    await store.open()
    yield World(store, time)
    await store.close()


async def test_overdue_resource_is_published_once_at_its_time(world: World) -> None:
    await world.poll("1=new", "2=new")
    world.time.passes(minutes=30)
    await world.poll("1=sending", "2=sent")
    world.time.passes(minutes=30, seconds=-1)
    assert await world.check() == 0
    world.time.passes(seconds=1)
    assert [await world.check(), await world.check()] == [1, 0]
    event = (await world.events())[-1]
    assert event["type"] == "bridge.sms.recipient.overdue"
    assert event["id"] == overdue_id("/govdelivery/city", event["subject"])
    assert event["time"] == event["data"]["due"] == "2026-03-01T13:00:00Z"
    fields = {
        name: event["data"][name] for name in ("stands_in", "previous", "since", "phone", "message", "transition")
    }
    assert fields == {
        "stands_in": "sending", "previous": "sending", "since": "2026-03-01T12:30:00Z", "phone": "+15550001",
        "message": "/messages/sms/1", "transition": "advance",
    }  # fmt: skip
    assert event["data"]["observed"]["by"] == "2026-03-01T12:30:00Z"
    RecipientOverdue.model_validate(event)


async def test_late_status_names_the_overdue_event_that_it_resolves(world: World) -> None:
    await world.poll("1=new")
    world.time.passes(hours=1)
    await world.check()
    await world.poll("1=sending")
    await world.poll("1=sent")
    await world.poll("1=sending")
    events = await world.events()
    assert await world.said() == [("1", "new"), ("1", "overdue"), ("1", "sending"), ("1", "sent"), ("1", "sending")]
    assert [event["data"].get("resolves") for event in events] == [None, None, None, events[1]["id"], None]
    assert [event["data"]["transition"] for event in events][2:] == ["advance", "advance", "reopen"]
    world.time.passes(days=1)
    assert await world.check() == 0  # once for each resource


async def test_events_without_overdue_keep_their_bytes(world: World, tmp_path: Path) -> None:
    plain = SqliteStore(tmp_path / "plain.db", clock=world.time.clock)
    await plain.open()
    other = World(plain, world.time, within=None)
    bodies = []
    for process in (world, other):
        await process.poll("1=new", "2=failed")
        await process.poll("1=sending")
        await process.poll("1=sent")
        bodies.append([entry.event.body for entry in await process.store.read("city", 0, 99)])
    await plain.close()
    assert bodies[0] == bodies[1]
    assert b"resolves" not in b"".join(bodies[0])


async def test_nothing_is_written_or_asked_unless_it_is_expected(world: World, monkeypatch) -> None:
    commits: list[Commit] = []
    real = world.store.commit

    async def commit(lease: Lease | None, what: Commit) -> int:
        commits.append(what)
        return await real(lease, what)

    monkeypatch.setattr(world.store, "commit", commit)
    for name in ("expectations", "next_expectation", "count_expectations", "drop_expectations"):
        monkeypatch.setattr(world.store, name, None)
    world.within = None
    world.start()
    await world.poll("1=new")
    await world.poll("1=sent")
    assert [(list(commit.expected), list(commit.met)) for commit in commits] == [([], [])] * len(commits)
    assert not any(SINCE in commit.cursor for commit in commits)


async def test_status_that_comes_at_the_last_moment_wins(world: World) -> None:
    await world.poll("1=new")
    world.time.passes(hours=1)
    real = world.store.last_seen

    async def last_seen(*values) -> Sequence[str | None]:
        histories = await real(*values)
        change = StatusChange(Key("/messages/sms/1", "1"), "n", "nf")
        await world.store.commit(None, Commit("city", [change], met=[change.key]))
        world.store.last_seen = real
        return histories

    world.store.last_seen = last_seen
    assert await world.check() == 0
    assert await world.check() == 0
    assert await world.said() == [("1", "new")]


async def test_owner_that_lost_the_lease_publishes_nothing(world: World) -> None:
    await world.poll("1=new")
    former = await world.lease()
    await world.store.release(former)
    await world.lease("two")
    world.time.passes(hours=1)
    with pytest.raises(LeaseLost):
        await world.watch.check(former)
    assert await world.said() == [("1", "new")]


async def test_baseline_is_waited_for_from_its_next_status(world: World) -> None:
    world.baseline = True
    world.start()
    await world.poll("1=new", "2=new")
    world.time.passes(hours=2)
    assert await world.check() == 0
    await world.poll("1=sending")
    world.time.passes(hours=1)
    assert await world.check() == 1
    assert await world.said() == [("1", "sending"), ("1", "overdue")]


async def test_open_resources_are_awaited_when_they_are_seen(world: World) -> None:
    world.within = None
    world.start()
    await world.poll("1=new", "2=new", "3=sent", cursor={"page": "1"})
    world.time.passes(minutes=20)
    world.within = WITHIN
    for _ in range(2):  # also by a process that starts soon after
        world.start()
        await world.poll("1=new", "3=sent")
        assert await world.store.count_expectations("city") == 1
    world.time.passes(minutes=40)
    assert await world.check() == 1
    assert (await world.said())[-1] == ("1", "overdue")
    assert (await world.events())[-1]["data"]["due"] == "2026-03-01T13:00:00Z"


async def test_expectations_are_dropped_when_they_are_switched_off(world: World) -> None:
    await world.poll("1=new")
    assert SINCE in await world.store.cursor("city")
    world.within = None
    world.start()
    await world.poll("1=new")
    assert SINCE not in await world.store.cursor("city")
    assert await world.store.count_expectations("city") == 0


async def test_trimmed_event_is_logged_and_not_tried_again(world: World, capsys) -> None:
    await world.poll("1=new")
    state = await world.store.journal("city")
    await world.store.confirm(await world.lease(), "city", state.committed)
    await world.store.trim("city", state.committed + 1)
    world.time.passes(hours=1)
    assert await world.check() == 0
    assert "overdue.event_trimmed" in capsys.readouterr().out
    assert await world.store.count_expectations("city") == 0


async def test_many_are_published_in_batches(world: World) -> None:
    await world.poll(*(f"{number}=new" for number in range(1200)))
    world.time.passes(hours=1)
    assert await world.check() == 1200
    assert await world.store.next_expectation("city") is None


def test_history_keeps_that_it_was_overdue_until_the_end() -> None:
    history = StatusHistory.parse("!ns2|a")
    assert (str(history), history.last, history.is_overdue) == ("!ns2|a", "s", True)
    assert str(history.enter("f")) == "!ns2f|a"
    assert not awaits_final(LIFECYCLE, "!ns")
    assert not awaits_final(LIFECYCLE, str(StatusHistory.parse("n").enter(LIFECYCLE.code("sent"))))
    assert awaits_final(LIFECYCLE, "ns(what)")
    assert not is_overdue({"status": "overdue"})


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.sampled_from("123"), st.sampled_from(["new", "sending", "sent", "failed", "odd"])),
        st.tuples(st.just("pass"), st.integers(1, 3000)),
        st.tuples(st.just("set"), st.sampled_from([-3600, 3600])),
        st.tuples(st.just("check")),
        st.tuples(st.just("restart")),
    ),
    max_size=25,
)


@given(STEPS)
def test_any_life_is_overdue_once_and_resolved_once(steps) -> None:
    async def live(folder: Path) -> None:
        time = ManualTime(AT)
        store = SqliteStore(folder / "bridge.db", clock=time.clock)
        await store.open()
        try:
            await _live(World(store, time), steps)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


async def _live(world: World, steps) -> None:
    first: dict[str, datetime] = {}
    ended: set[str] = set()
    overdue: set[str] = set()
    for step in steps:
        match step:
            case ("see", name, status):
                await world.poll(f"{name}={status}")
                first.setdefault(name, world.intake.times.last)
                if status in LIFECYCLE.finals:
                    ended.add(name)
            case ("pass", seconds):
                world.time.passes(seconds=seconds)
            case ("set", seconds):
                world.time.set_by += seconds
            case ("restart",):
                world.start()
            case _:
                await world.check()
                due = {name for name, at in first.items() if world.time.now - at >= timedelta(seconds=WITHIN + 1)}
                overdue |= due - ended - overdue
        events = await world.events()
        names = [event["subject"].rpartition("/")[2] for event in events if is_overdue(event["data"])]
        assert len(names) == len(set(names))
        assert overdue <= set(names)
        resolved = [event["data"]["resolves"] for event in events if "resolves" in event["data"]]
        assert len(resolved) == len(set(resolved))
        assert set(resolved) <= {event["id"] for event in events if is_overdue(event["data"])}
        for name in names:
            late = [event for event in events if event["subject"].endswith(f"/{name}")]
            place = next(index for index, event in enumerate(late) if is_overdue(event["data"]))
            finals = [event for event in late[place:] if event["data"]["status"] in LIFECYCLE.finals]
            assert [("resolves" in event["data"]) for event in finals] == [index == 0 for index in range(len(finals))]


async def test_conflict_leaves_everything_for_the_next_look(world: World) -> None:
    await world.poll("1=new", "2=new")
    world.time.passes(hours=1)
    real = world.store.commit

    async def commit(*_: object) -> int:
        world.store.commit = real
        raise Conflict("another")

    world.store.commit = commit
    assert [await world.check(), await world.check()] == [0, 2]
