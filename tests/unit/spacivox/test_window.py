"""Spacivox: the trailing window that is read again and again."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs.spacivox import DAY, NOW, Memory, _source, record, stamp
from structlog.testing import capture_logs

from bridge.domain import errors
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Lease
from bridge.sources.shapes.window import CursorKeys, Progress, Slice, due, period, slices
from bridge.sources.spacivox import Spacivox
from bridge.testing.fakes import ManualTime


async def test_a_late_change_of_an_old_record_is_seen(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0, NOW - timedelta(hours=60))]
    poller = bridge()
    await poller.poll()
    vendor.records = [record(1, 1, NOW - timedelta(hours=60))]
    time.passes(minutes=10)
    await poller.poll()
    assert poller.memory.said == [("1", "voicemail.drop.sent", "first"), ("1", "voicemail.drop.delivered", "advance")]


async def test_first_start_ignores_records_before_the_lookback(vendor, bridge) -> None:
    vendor.records = [
        record(1, 0, NOW - timedelta(hours=72, seconds=5)),
        record(2, 0, NOW - timedelta(hours=71, minutes=59)),
    ]
    poller = bridge()
    await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["2"]


async def test_after_an_outage_longer_than_the_lookback_nothing_is_missing(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0, NOW - timedelta(hours=1))]
    memory = Memory()
    await bridge(memory).poll()
    time.passes(days=9)
    vendor.records = [record(1, 1, NOW - timedelta(hours=1)), record(2, 3, NOW + timedelta(days=3))]
    poller = bridge(memory)
    await poller.poll()
    assert memory.said[1:] == [("1", "voicemail.drop.delivered", "advance"), ("2", "voicemail.drop.rejected", "first")]
    vendor.requests.clear()
    time.passes(minutes=20)
    await poller.poll()
    assert min(datetime.fromisoformat(asked.query["start"]) for asked in vendor.requests) > time.now - timedelta(
        hours=73
    )


async def test_an_outage_beyond_the_bound_is_cut_and_said(vendor, bridge, time) -> None:
    memory = Memory()
    await bridge(memory).poll()
    vendor.records = [record(1, 0, NOW + DAY)]
    time.passes(days=60)
    vendor.requests.clear()
    with capture_logs() as logs:
        await bridge(memory).poll()
    (line,) = [line for line in logs if line["event"] == "source.outage_too_long"]
    assert "catch_up" in line["consequence"]
    assert min(datetime.fromisoformat(asked.query["start"]) for asked in vendor.requests) > time.now - timedelta(
        days=30, minutes=1
    )
    reads = [name for name in memory.entries if ".read." in name]
    assert all(datetime.fromisoformat(name.split(".read.")[1].split("+")[0]) > time.now - 32 * DAY for name in reads)


async def test_a_clock_that_once_ran_ahead_hides_nothing(vendor, bridge, time) -> None:
    memory = Memory()
    time.passes(days=400)
    await bridge(memory).poll()
    time.now = NOW
    vendor.records = [record(1)]
    await bridge(memory).poll()
    assert [subject for subject, _, _ in memory.said] == ["1"]


async def test_changed_slice_size_starts_new_slices(vendor, bridge) -> None:
    memory = Memory()
    await bridge(memory).poll()
    await bridge(memory, slice="12h").poll()
    assert memory.entries
    assert not any(name.endswith("+86400s") for name in memory.entries)
    assert sum(name.endswith("+43200s") for name in memory.entries) == 7


async def test_the_cursor_does_not_grow(vendor, bridge, time) -> None:
    poller = bridge(lookback="24h", interval="1h")
    sizes = []
    for _ in range(100):
        await poller.poll()
        time.passes(hours=3)
        sizes.append(len(poller.memory.entries))
    assert max(sizes[20:]) <= max(sizes[:20])


@pytest.mark.parametrize("inclusive", [True, False])
async def test_record_on_a_slice_border_is_read_once(vendor, bridge, inclusive) -> None:
    vendor.inclusive = inclusive
    border = datetime(2015, 1, 6, tzinfo=UTC)
    vendor.records = [record(number, 0, border + timedelta(milliseconds=number - 2)) for number in range(1, 4)]
    poller = bridge()
    pages = await poller.pages()
    assert sorted(seen.key for page in pages for seen in page.observations) == ["1", "2", "3"]


async def test_record_changing_between_overlapping_requests_shows_both_states(vendor, bridge) -> None:
    border = NOW.replace(hour=0)
    vendor.records = [record(1, 0, border)]
    poller = bridge()

    async def changes(since, until) -> None:
        vendor.records = [record(1, int(since > border - DAY), border)]

    vendor._refusal = changes
    await poller.poll()
    assert [topic for _, topic, _ in poller.memory.said] == ["voicemail.drop.sent", "voicemail.drop.delivered"]


async def test_record_in_two_states_of_one_answer_is_published_once(vendor, bridge, time) -> None:
    vendor.records = [record(1, 1), record(2, 0), record(1, 0)]
    poller = bridge()
    for _ in range(3):
        await poller.poll()
        time.passes(minutes=1)
    assert poller.memory.said == [("1", "voicemail.drop.sent", "first"), ("2", "voicemail.drop.sent", "first")]


async def test_baseline_records_of_a_failed_slice_stay_unpublished(vendor, bridge, time) -> None:
    poller = bridge(first_sight="baseline", lookback="3d")
    intake = Intake("drops", "spacivox", poller.source, poller.memory, time.clock, baseline=True)

    async def poll() -> list[tuple[str, str | None]]:
        before = len(poller.memory.events)
        time.passes(hours=1)
        await intake.poll(Lease("drops", "me", 1, 30))
        return [(event.subject.rpartition("/")[2], event.data.status) for event in poller.memory.events[before:]]

    yesterday, today = NOW - timedelta(days=1), NOW
    vendor.records = [record(1, 0, yesterday), record(2, 1, today)]
    vendor.broken = {f"{yesterday:%Y-%m-%d}"}
    assert await poll() == []
    assert poller.source.problems
    vendor.records += [record(3, 0, NOW + timedelta(hours=1, minutes=30))]
    vendor.broken = set()
    assert await poll() == [("3", "sent")], "what came since is news, and what was there is not"
    vendor.records[0] |= {"state": 2}
    vendor.records += [record(4, 0, yesterday)]
    assert await poll() == [("1", "failed"), ("4", "sent")], (
        "a change is news, and so is what turns up where all was read"
    )
    assert "voicemail_drop.begun" in poller.memory.entries
    time.passes(days=4)
    await poll()
    await poll()
    assert "voicemail_drop.begun" not in poller.memory.entries


async def test_big_answer_is_committed_in_pages_before_the_cursor(vendor, bridge) -> None:
    vendor.records = [record(number) for number in range(1, 1202)]
    poller = bridge(lookback="1h")
    pages = [page for page in await poller.pages() if page.observations]
    assert [len(page.observations) for page in pages] == [500, 500, 201]
    assert [bool(page.cursor) for page in pages] == [False, False, True]


async def test_the_event_says_between_which_two_polls_the_change_happened(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0)]
    poller = bridge()
    await poller.poll()
    time.passes(minutes=1)
    vendor.records = [record(1, 1)]
    await poller.poll()
    first, second = poller.memory.events
    assert first.data.observed.after is None
    assert NOW <= second.data.observed.after < NOW + timedelta(seconds=5)
    assert NOW + timedelta(minutes=1) <= second.data.observed.by < NOW + timedelta(minutes=1, seconds=5)


async def test_late_record_of_a_new_day_is_still_read(vendor, bridge, time) -> None:
    time.now = NOW.replace(hour=23, minute=50)
    poller = bridge()
    await poller.poll()
    time.passes(minutes=11)
    vendor.records = [record(1, 0, time.now - timedelta(seconds=10))]
    await poller.poll()
    (event,) = poller.memory.events
    assert event.data.observed.after.date() == NOW.date()


async def test_newest_records_are_read_most_often(vendor, bridge, time) -> None:
    poller = bridge()
    counts = []
    for _ in range(12):
        vendor.requests.clear()
        await poller.poll()
        counts.append(len(vendor.requests))
        time.passes(seconds=60)
    assert counts[0] == 4
    assert counts.count(1) == 10
    assert counts[10] == 4


@pytest.mark.parametrize(
    ("age", "expected"),
    [(-300, 60), (0, 60), (1800, 60), (3600, 60), (7200, 120), (18000, 300), (36000, 600), (250000, 600)],
)
def test_how_often_a_slice_is_read_depends_on_its_age(age, expected) -> None:
    assert period(age, 60.0, 600.0) == expected


def test_slice_is_due_after_its_period_or_when_unread() -> None:
    part = Slice(NOW - 2 * DAY, NOW - 2 * DAY, NOW - DAY)
    assert due(part, None, NOW, 60.0, 600.0)
    assert not due(part, NOW - timedelta(minutes=9), NOW, 60.0, 600.0)
    assert due(part, NOW - timedelta(minutes=9, seconds=40), NOW, 60.0, 600.0)


@given(
    start=st.timedeltas(timedelta(0), timedelta(days=9)).map(lambda span: NOW + span),
    span=st.timedeltas(timedelta(0), timedelta(days=5)),
    size=st.timedeltas(timedelta(hours=1), timedelta(days=3)),
)
def test_slices_cover_the_window_on_a_fixed_grid(start, span, size) -> None:
    parts = list(slices(start, start + span, size))
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert not parts or (parts[0].start, parts[-1].end) == (start, start + span)
    later = {part.grid for part in slices(start + size, start + span, size)}
    assert later == {part.grid for part in parts if part.grid + size > start + size}


def test_unreadable_cursor_keys_are_dropped_and_foreign_ones_kept() -> None:
    entries = CursorKeys("text", DAY)
    good = entries.read(NOW.replace(hour=0))
    cursor = {
        good: stamp(NOW - DAY),
        "text.read.soon+86400s": stamp(NOW),
        entries.read(NOW.replace(hour=0) - DAY): "soon",
        entries.read(NOW.replace(hour=0) - 2 * DAY): stamp(NOW + DAY),
        "voicemail_drop.read.2015-01-06T00:00:00Z+86400s": stamp(NOW),
        "text.floor": "soon",
    }
    progress, stale = entries.load(cursor, NOW, 3 * DAY)
    assert progress == Progress(NOW - 3 * DAY, {NOW.replace(hour=0): NOW - DAY})
    assert len(stale) == 3


@dataclass
class Life:
    """One record, what becomes of it, and a provider that fails now and then."""

    created: datetime
    changes: list[int]
    """Hours after its creation."""
    time: ManualTime = field(default_factory=lambda: ManualTime(NOW))
    mode: str = "up"
    cursor: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)

    def respond(self, start: datetime, end: datetime):
        if self.mode == "down" or (self.mode == "half" and start.day % 2):
            return errors.Transient("GET /j/voicemail_drop_records: 500")
        shown = start <= self.created <= end and self.created <= self.time.now
        state = sum(self.time.now >= self.created + timedelta(hours=hour) for hour in self.changes)
        return json.dumps([record(1, state, self.created)] if shown else []).encode()

    async def poll(self, source: Spacivox) -> None:
        with suppress(errors.Transient):
            async for page in source.pages(dict(self.cursor), []):
                self.known.extend(poller.status for poller in page.observations)
                self.cursor |= {name: value for name, value in page.cursor.items() if value is not None}
                for name in [name for name, value in page.cursor.items() if value is None]:
                    self.cursor.pop(name, None)

    async def live(self, steps) -> None:
        source = _source(self.respond, self.time, lookback="48h", interval="1m", catch_up="2000d")
        await self.poll(source)
        for minutes, self.mode in steps:
            self.time.passes(minutes=minutes * 7)
            await self.poll(source)
        self.mode = "up"
        self.time.now = max(self.time.now, self.created + timedelta(hours=48))
        await self.poll(source)
        self.time.passes(minutes=10)
        await self.poll(source)


@given(
    steps=st.lists(st.tuples(st.integers(1, 400), st.sampled_from(["up", "up", "up", "down", "half"])), max_size=40),
    born=st.integers(-47, 60),
    changes=st.lists(st.integers(0, 47), max_size=3),
)
@settings(max_examples=60)
def test_no_failure_loses_a_record_before_its_time(steps, born, changes) -> None:
    life = Life(NOW + timedelta(hours=born), changes)
    asyncio.run(life.live(steps))
    assert life.known
    assert life.known[-1] == str(len(changes))
