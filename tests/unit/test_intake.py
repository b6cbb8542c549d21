"""Read, decide, write: an event exists once because its transition was committed once."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, LeaseLost, Transient
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.protocols.source import Facts, Page, ResourceType
from bridge.testing.fakes import KIND, LIFECYCLE, ScriptedSource, observe

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def page(*observations, minute: int = 0, after=None, **cursor):
    return Page(observations, AT + timedelta(minutes=minute), after, cursor)


async def run(store: SqliteStore, source: ScriptedSource, *, polls: int | None = None, **options):
    intake = Intake("city", "govdelivery", source, store, Clock(now=lambda: AT), **options)
    lease = await store.acquire("source/city", "me", 30)
    rounds = [await intake.poll(lease) for _ in range(polls or len(source.polls))]
    return intake, lease, rounds


async def journal(store: SqliteStore) -> list[dict]:
    return [json.loads(entry.event.body) for entry in await store.read("city", 0, 1000)]


def said(events: list[dict]) -> list[tuple[str, str, str]]:
    return [
        (event["subject"].rpartition("/")[2], event["data"]["status"], event["data"]["transition"]) for event in events
    ]


async def test_transition_is_an_event_and_repeated_status_is_none(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))], [page(observe("1", "new"))], [page(observe("1", "failed"))]])
    _, _, rounds = await run(store, source)
    assert said(await journal(store)) == [("1", "new", "first"), ("1", "failed", "skip")]
    assert [entry.events for entry in rounds] == [1, 0, 1]
    assert [entry.observed for entry in rounds] == [1, 1, 1]


async def test_the_same_resource_twice_on_a_page_is_one_resource(store) -> None:
    await run(store, ScriptedSource([[page(observe("1", "new"), observe("1", "new"), observe("1", "sending"))]]))
    assert said(await journal(store)) == [("1", "new", "first"), ("1", "sending", "advance")]


async def test_resource_on_two_pages_of_a_commit_is_one(store) -> None:
    pages = [
        page(observe("1", "new")),
        page(observe("1", "sending"), minute=1),
        page(observe("1", "sending"), minute=2),
    ]
    await run(store, ScriptedSource([pages]))
    events = await journal(store)
    assert said(events) == [("1", "new", "first"), ("1", "sending", "advance")]
    assert [event["data"]["observed"]["by"] for event in events] == ["2026-03-01T12:00:00Z", "2026-03-01T12:01:00Z"]


def recorded(events: list[dict]) -> list[timedelta]:
    """Return how long after the beginning each was recorded."""
    return [datetime.fromisoformat(event["recordedtime"]) - AT for event in events]


async def test_resource_moving_twice_in_a_commit_records_latest_last(store) -> None:
    observations = [observe("1", "new"), observe("2", "new")]
    other = [observe("2", "sending"), observe("1", "sending"), observe("2", "failed")]
    await run(store, ScriptedSource([[page(*observations), page(*other, minute=1)]]))
    events = await journal(store)
    assert [name for name, _, _ in said(events)] == ["1", "2", "2", "1", "2"]
    times = recorded(events)
    assert times[0] == times[1] < times[2] <= times[3] < times[4]


@given(st.lists(st.integers(-59_000, 2_000), max_size=30))
def test_later_commit_is_recorded_later_by_any_clock(steps) -> None:
    now = AT

    async def record(folder: Path) -> list[dict]:
        nonlocal now
        store = SqliteStore(folder / "bridge.db", clock=Clock())
        await store.open()
        try:
            polls = [[page(observe("1", "failed" if number % 2 else "sending"))] for number in range(len(steps))]
            intake = Intake("city", "govdelivery", ScriptedSource(polls), store, Clock(now=lambda: now))
            lease = await store.acquire("source/city", "me", 3000)
            for step in steps:
                await intake.poll(lease)
                now = max(now + timedelta(milliseconds=step), AT)
            return await journal(store)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        times = recorded(asyncio.run(record(Path(folder))))
    assert len(times) == len(steps)
    assert all(earlier < other for earlier, other in pairwise(times))


async def test_record_time_follows_another_processs_records(store) -> None:
    lease = await store.acquire("source/city", "me", 30)
    sources = [
        ScriptedSource([[page(observe("1", "new"))], [page(observe("1", "failed"))]]),
        ScriptedSource([[page(observe("1", "sending"))]]),
    ]
    early, late = (
        Intake("city", "govdelivery", source, store, Clock(now=lambda after=after: AT + timedelta(seconds=after)))
        for source, after in zip(sources, (0, 20), strict=True)
    )
    await early.poll(lease)
    await late.poll(lease)
    await early.poll(lease)
    events = await journal(store)
    assert [status for _, status, _ in said(events)] == ["new", "sending", "failed"]
    assert recorded(events) == [timedelta(0), timedelta(seconds=20), timedelta(seconds=20, milliseconds=1)]


async def test_clock_set_back_over_a_minute_is_believed(store) -> None:
    now = AT + timedelta(hours=1)
    source = ScriptedSource([[page(observe("1", "new"))], [page(observe("1", "failed"))]])
    intake = Intake("city", "govdelivery", source, store, Clock(now=lambda: now))
    lease = await store.acquire("source/city", "me", 30)
    await intake.poll(lease)
    now = AT
    await intake.poll(lease)
    assert recorded(await journal(store)) == [timedelta(hours=1), timedelta(0)]


async def test_pages_that_came_while_one_was_committed_are_committed_together(store) -> None:
    batches: list[tuple[int, list[str]]] = []
    pages = [page(observe(str(number), "new"), last=str(number)) for number in range(20)]
    await run(
        store,
        ScriptedSource([pages]),
        committed=lambda last, events: batches.append((last, [event.id for event in events])),
    )
    assert sum(len(ids) for _, ids in batches) == 20
    assert len(batches) < 20
    assert (await store.cursor("city"))["last"] == "19"
    assert [(entry.position.seq, entry.event.id) for entry in await store.read("city", 0, 100)] == [
        (last - len(ids) + index, event_id) for last, ids in batches for index, event_id in enumerate(ids, 1)
    ]


@pytest.mark.parametrize("batch", [1, 2, 3, 500])
async def test_events_are_committed_in_one_order_for_any_batches(
    store, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Page] = []
    for number in range(30):
        entry = observe(str(number), "failed")
        pages.append(
            page(
                replace(entry, awaits_detail=True) if number % 4 == 1 else entry,
                **({"c": "x"} if number % 5 == 3 else {}),
            )
        )

    async def portions(read):
        everything = [page async for page in read]
        for start in range(0, len(everything), batch):
            yield everything[start : start + batch]

    monkeypatch.setattr("bridge.ingest.intake.prefetched", portions)
    await run(store, ScriptedSource([pages], details={str(number): "busy" for number in range(30)}))
    # What waits for its details comes before the next page that moves the cursor, and behind those that do not.
    events = await journal(store)
    assert recorded(events) == [timedelta(milliseconds=number) for number in range(30)]
    assert [int(subject) for subject, _, _ in said(events)] == [
        0, 2, 1, 3, 4, 6, 7, 5, 8, 10, 11, 12, 9, 14, 15, 16, 13, 17, 18, 19, 20, 22, 21, 23, 24, 26, 27, 25, 28, 29,
    ]  # fmt: skip


async def test_the_event_says_in_which_interval_the_change_happened(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))], [page(observe("1", "sending"), minute=5, after=AT)]])
    await run(store, source)
    first, second = await journal(store)
    assert first["data"]["observed"] == {"after": None, "by": "2026-03-01T12:00:00Z"}
    assert second["data"]["observed"] == {"after": "2026-03-01T12:00:00Z", "by": "2026-03-01T12:05:00Z"}


async def test_event_time_is_the_providers_or_else_observation(store) -> None:
    own = AT - timedelta(hours=1)
    source = ScriptedSource(
        [[page(observe("1", "sent", time=own), observe("2", "new", first_time=own), observe("3", "new"))]]
    )
    source.polls.append([page(observe("2", "sending", first_time=own), minute=3)])
    await run(store, source)
    assert [event["time"] for event in await journal(store)] == [
        "2026-03-01T11:00:00Z",
        "2026-03-01T11:00:00Z",
        "2026-03-01T12:00:00Z",
        "2026-03-01T12:03:00Z",
    ]


async def test_cursor_moves_with_its_page_to_next_poll(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"), last="7")], [page(last=None, other="x")], []])
    await run(store, source)
    assert source.cursors == [{}, {"last": "7"}, {"other": "x"}]


async def test_half_failed_poll_keeps_results_and_repeats_nothing(store) -> None:
    source = ScriptedSource(
        [
            [page(observe("1", "new")), Transient("the provider went away")],
            [page(observe("1", "new")), page(observe("2", "new"))],
        ]
    )
    intake = Intake("city", "govdelivery", source, store, Clock())
    lease = await store.acquire("source/city", "me", 30)
    with pytest.raises(Transient):
        await intake.poll(lease)
    await intake.poll(lease)
    assert [subject for subject, _, _ in said(await journal(store))] == ["1", "2"]


async def test_baseline_records_first_start_without_publishing(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))], [page(observe("1", "sending"), observe("2", "new"))]])
    await run(store, source, baseline=True)
    assert said(await journal(store)) == [("1", "sending", "advance"), ("2", "new", "first")]


async def test_baseline_records_deferred_first_start_reads_without_publishing(store) -> None:
    def late(*observations):
        return replace(page(*observations), backlog=True)

    source = ScriptedSource(
        [
            [page(observe("1", "new"))],
            [late(observe("1", "sending"), observe("2", "new"), observe("3", "odd")), page(observe("4", "new"))],
            [late(observe("2", "sent"), replace(observe("5", "failed"), awaits_detail=True))],
            [page(observe("3", "new"))],
        ]
    )
    await run(store, source, baseline=True)
    assert [entry[:2] for entry in said(await journal(store))] == [
        ("1", "sending"), ("4", "new"), ("2", "sent"), ("3", "new"),
    ]  # fmt: skip
    assert source.completed == ["5"]


async def test_without_baseline_deferred_first_start_reads_are_published(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))], [replace(page(observe("2", "new")), backlog=True)]])
    await run(store, source)
    assert said(await journal(store)) == [("1", "new", "first"), ("2", "new", "first")]


async def test_an_unknown_status_is_published_with_the_providers_own_value(store) -> None:
    await run(store, ScriptedSource([[page(observe("1", "new"))], [page(observe("1", "paused"))]]))
    event = (await journal(store))[-1]
    assert event["type"] == "bridge.sms.recipient.unknown"
    assert event["data"]["provider_status"] == "paused"
    assert event["data"]["previous"] == "new"
    assert event["data"]["message"] == "/messages/sms/1"


async def test_details_are_asked_for_only_where_they_become_events(store) -> None:
    waiting = replace(observe("1", "failed"), awaits_detail=True)
    source = ScriptedSource([[page(waiting, observe("2", "new"), done="yes")], [page(waiting)]], details={"1": "busy"})
    await run(store, source)
    assert source.completed == ["1"]
    events = {event["subject"].rpartition("/")[2]: event for event in await journal(store)}
    assert events["1"]["data"]["detail"] == "busy"


async def poll_without_details(store: SqliteStore, source: ScriptedSource) -> None:
    """Poll once while the source cannot look up any details."""

    async def fail(_):
        raise Transient("no details now")

    intake = Intake("city", "govdelivery", source, store, Clock())
    lease = await store.acquire("source/city", "me", 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "complete", fail)
        with pytest.raises(Transient):
            await intake.poll(lease)


async def test_cursor_waits_until_pending_details_are_committed(store) -> None:
    waiting = replace(observe("1", "failed"), awaits_detail=True)
    source = ScriptedSource([[page(waiting), page(swept="yes")]], details={"1": "busy"})
    await poll_without_details(store, source)
    assert "swept" not in await store.cursor("city")
    assert await journal(store) == []


async def test_cursor_on_page_with_pending_details_waits(store) -> None:
    waiting = replace(observe("1", "failed"), awaits_detail=True)
    source = ScriptedSource([[page(waiting, observe("2", "new"), swept="yes")]] * 2, details={"1": "busy"})
    await poll_without_details(store, source)
    assert "swept" not in await store.cursor("city")
    await run(store, source, polls=1)
    assert (await store.cursor("city"))["swept"] == "yes"
    assert said(await journal(store)) == [("2", "new", "first"), ("1", "failed", "first")]


async def test_indescribable_resource_does_not_stop_others(store) -> None:
    def describe(observation) -> Facts:
        if observation.key == "1":
            raise KeyError("phone")
        return KIND.describe(observation)

    odd = ResourceType("sms", "recipient", LIFECYCLE, KIND.events, describe)
    await run(store, ScriptedSource([[page(observe("1", "new", kind=odd), observe("2", "new", kind=odd))]]))
    assert [subject for subject, _, _ in said(await journal(store))] == ["2"]
    assert await store.last_seen("city", [Key("/messages/sms/1", "1")], 60) == [None]


async def test_a_lost_lease_commits_nothing(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))]])
    intake = Intake("city", "govdelivery", source, store, Clock())
    lease = await store.acquire("source/city", "me", 30)
    await store.release(lease)
    await store.acquire("source/city", "another", 30)
    with pytest.raises(LeaseLost):
        await intake.poll(lease)
    assert await journal(store) == []


async def test_concurrent_write_is_read_and_decided_again(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))]])
    intake = Intake("city", "govdelivery", source, store, Clock())
    lease = await store.acquire("source/city", "me", 30)
    read = store.last_seen
    interfered = []

    async def last_seen(name, keys, retention):
        seen = await read(name, keys, retention)
        if not interfered:
            interfered.append(True)
            await store.commit(None, Commit("city", statuses=[StatusChange(keys[0], None, "s")]))
        return seen

    store.last_seen = last_seen
    await intake.poll(lease)
    assert said(await journal(store)) == [("1", "new", "regress")]


async def test_endless_conflict_is_raised_and_not_lost(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))]])
    intake = Intake("city", "govdelivery", source, store, Clock())
    lease = await store.acquire("source/city", "me", 30)

    async def commit(*_):
        raise Conflict("again and again")

    store.commit = commit
    with pytest.raises(Conflict):
        await intake.poll(lease)


async def test_a_stall_is_published_once_and_so_is_the_recovery(store) -> None:
    intake, lease, _ = await run(store, ScriptedSource([[]]))
    since = AT - timedelta(minutes=9)
    await intake.stalled(lease, since, 12, "the token was refused")
    await intake.stalled(lease, since, 13, "the token was refused")
    assert await intake.recovered(lease)
    assert not await intake.recovered(lease)
    stalled, recovered = await journal(store)
    assert stalled["type"] == "bridge.bridge.source.stalled"
    assert stalled["data"]["failures"] == 12
    assert stalled["data"]["since"] == "2026-03-01T11:51:00Z"
    assert recovered["data"]["previous"] == "stalled"
    assert stalled["source"] == "/govdelivery/city"


async def test_occurrence_keeps_its_id_after_ledger_loss(store, tmp_path: Path) -> None:
    polls = [[page(observe("1", "sending"))], [page(observe("1", "failed"))]]
    await run(store, ScriptedSource([*polls]))
    other = SqliteStore(tmp_path / "other.db", clock=Clock())
    await other.open()
    await run(other, ScriptedSource([*polls[1:]]))
    assert (await journal(other))[0]["id"] == (await journal(store))[1]["id"]
    await other.close()
