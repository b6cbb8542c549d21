"""A backfill next to a poller: nothing is reverted, nothing is published twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime

from rigs.backfill import AT, DAY, intake, journal, page

from bridge.adapters.sqlite.store import SqliteStore
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.protocols.source import Observation, Page
from bridge.testing.fakes import ScriptedSource, observe


async def poll(store: SqliteStore, *observations: Observation, seconds: float = 0, **cursor: str) -> None:
    """Let the service see something."""
    lease = await store.acquire("source/city", "service", 3600)
    assert lease is not None
    await intake(store, ScriptedSource([[page(*observations, seconds=seconds, **cursor)]])).poll(lease)


async def test_backfill_publishes_unknown_events_and_keeps_the_cursor(store) -> None:
    await poll(store, observe("1", "new"), last="7")
    before = await store.cursor("city")
    source = ScriptedSource([[page(observe("1", "new"), observe("2", "sent"), last="99")]])
    done = await intake(store, source).backfill(AT - DAY, AT)
    assert (done.observed, done.events, done.yielded) == (2, 1, 0)
    assert await journal(store) == [("1", "new", "first"), ("2", "sent", "first")]
    assert await store.cursor("city") == before


async def test_a_range_that_is_read_twice_is_published_once(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"), observe("2", "sent"))]] * 2)
    rounds = [await intake(store, source).backfill(AT - DAY, AT) for _ in range(2)]
    assert [result.events for result in rounds] == [2, 0]


async def test_backfill_publishes_what_the_baseline_lacks(store) -> None:
    first = intake(store, ScriptedSource([[page(observe("1", "new"))]]), baseline=True)
    lease = await store.acquire("source/city", "service", 3600)
    await first.poll(lease)
    again = intake(store, ScriptedSource([[page(observe("1", "new"), observe("2", "new"))]]), baseline=True)
    assert (await again.backfill(AT - DAY, AT)).events == 1
    assert await journal(store) == [("2", "new", "first")]


async def test_details_are_looked_up_page_by_page(store) -> None:
    waiting = replace(observe("1", "failed"), awaits_detail=True)
    source = ScriptedSource([[page(waiting), page(observe("2", "new"))]], details={"1": "busy"})
    progress = []

    async def on_page(so_far) -> None:
        progress.append((so_far.observed, so_far.events))

    await intake(store, source).backfill(AT - DAY, AT, on_page)
    assert source.completed == ["1"]
    assert progress == [(1, 1), (2, 2)]


class ConcurrentSource(ScriptedSource):
    """A source during whose backfill something happens between the answer and its commit."""

    def __init__(self, pages: list[Page], happens: Callable[[], object]) -> None:
        super().__init__([pages])
        self._happens = happens

    async def backfill(self, start: datetime, end: datetime) -> AsyncIterator[Page]:
        async for part in super().backfill(start, end):
            await self._happens()
            yield part


async def test_older_answer_than_the_pollers_reverts_nothing(store) -> None:
    await poll(store, observe("1", "sending"))

    async def happens() -> None:
        await poll(store, observe("1", "sent"), seconds=1)

    source = ConcurrentSource([page(observe("1", "new"), observe("2", "new"))], happens)
    done = await intake(store, source).backfill(AT - DAY, AT)
    assert (done.events, done.yielded) == (1, 1)
    assert await journal(store) == [
        ("1", "sending", "first"), ("1", "sent", "advance"), ("2", "new", "first"),
    ]  # fmt: skip
    assert await store.last_seen("city", [Key("/messages/sms/1", "1")], 60) == ["se"]


async def test_status_advance_is_accepted_from_any_writer(store) -> None:
    await poll(store, observe("1", "new"))

    async def happens() -> None:
        await poll(store, observe("1", "sending"), seconds=1)

    done = await intake(store, ConcurrentSource([page(observe("1", "sent"))], happens)).backfill(AT - DAY, AT)
    assert (done.events, done.yielded) == (1, 0)


async def test_poll_reverts_nothing_that_a_concurrent_backfill_saw(store) -> None:
    class Polled(ScriptedSource):
        async def pages(self, cursor, watched):
            async for part in super().pages(cursor, watched):
                await intake(store, past).backfill(AT - DAY, AT)
                yield part

    past = ScriptedSource([[page(observe("1", "sent"), observe("2", "new"), seconds=1)]])
    lease = await store.acquire("source/city", "service", 3600)
    polled = intake(store, Polled([[page(observe("1", "sending"), observe("2", "sending"), seconds=2)]]))
    done = await polled.poll(lease)
    assert (done.events, done.yielded) == (1, 1)
    assert await journal(store) == [("1", "sent", "first"), ("2", "new", "first"), ("2", "sending", "advance")]


async def test_answer_left_entirely_to_the_poller_writes_nothing(store) -> None:
    await poll(store, observe("1", "sending"))

    async def happens() -> None:
        await poll(store, observe("1", "sent"), seconds=1)

    done = await intake(store, ConcurrentSource([page(observe("1", "sending"))], happens)).backfill(AT - DAY, AT)
    assert (done.observed, done.events, done.yielded) == (1, 0, 1)


async def test_an_answer_that_is_surely_newer_than_the_pollers_counts(store) -> None:
    await poll(store, observe("1", "sending"))

    async def happens() -> None:
        await poll(store, observe("1", "sent"), seconds=-90)

    done = await intake(store, ConcurrentSource([page(observe("1", "failed"))], happens)).backfill(AT - DAY, AT)
    assert (done.events, done.yielded) == (1, 0)
    assert (await journal(store))[-1] == ("1", "failed", "reopen")


async def test_what_the_backfill_itself_has_told_holds_nothing_back(store) -> None:
    await poll(store, observe("1", "sent"))
    others = iter("234")

    async def happens() -> None:
        await poll(store, observe(next(others), "new"), seconds=1)

    pages = [page(observe("9", "new")), page(observe("1", "failed")), page(observe("1", "sending"))]
    done = await intake(store, ConcurrentSource(pages, happens)).backfill(AT - DAY, AT)
    assert (done.events, done.yielded) == (3, 0)


async def test_steps_without_other_writers_read_the_journal_once(store) -> None:
    await poll(store, observe("1", "sent"))
    source = ScriptedSource([[page(observe("1", "failed")), page(observe("1", "sending"))]])
    read, asked = store.read, []

    async def counted(*wanted: object) -> object:
        asked.append(wanted)
        return await read(*wanted)

    store.read = counted
    assert (await intake(store, source).backfill(AT - DAY, AT)).events == 2
    assert [many for _, _, many in asked] == [1]  # once, before all: when the last event was recorded


async def test_an_event_of_the_bridge_itself_tells_of_no_resource(store) -> None:
    await poll(store, observe("1", "sent"))

    async def happens() -> None:
        lease = await store.acquire("source/city", "service", 3600)
        await intake(store, ScriptedSource()).stalled(lease, AT, 3, "the provider is away")

    done = await intake(store, ConcurrentSource([page(observe("1", "failed"))], happens)).backfill(AT - DAY, AT)
    assert (done.events, done.yielded) == (1, 0)


async def test_an_occurrence_that_the_provider_marks_is_never_left_out(store) -> None:
    def marked(mark: str) -> Observation:
        return replace(observe("1", "failed"), occurrence_id=mark)

    await poll(store, marked("a"))

    async def happens() -> None:
        await poll(store, marked("b"), seconds=1)

    source = ConcurrentSource([page(marked("a"), marked("b"), marked("c"))], happens)
    done = await intake(store, source).backfill(AT - DAY, AT)
    assert (done.events, done.yielded) == (1, 0)
    assert len(await journal(store)) == 3


async def test_what_changes_between_reading_and_writing_is_read_again(store) -> None:
    source = ScriptedSource([[page(observe("1", "new"))]])
    commit = store.commit
    interfered = []

    async def interfering(lease, page_commit):
        if lease is None and not interfered:
            interfered.append(
                await commit(None, Commit("city", [StatusChange(page_commit.statuses[0].key, None, "n")]))
            )
        return await commit(lease, page_commit)

    store.commit = interfering
    done = await intake(store, source).backfill(AT - DAY, AT)
    assert (len(interfered), done.events) == (1, 0)
