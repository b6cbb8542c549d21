"""What was committed is published once and in order, whether it is still at hand or has to be read back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import JournalEntry, WireEvent
from bridge.protocols.broker import PartlyPublished
from bridge.protocols.ledger import Commit, Lease
from bridge.relay.recent_entries import RecentEntries
from bridge.relay.relay import Relay


class Reader(SqliteStore):
    """A store that counts how often its journal was read, and takes no mark when it is told so."""

    reads = 0
    full = False

    async def confirm(self, lease: Lease, source: str, upto: int, unroutable: int = 0) -> None:
        if self.full:
            raise Unavailable("the disk is full")
        await super().confirm(lease, source, upto, unroutable)

    async def read(self, source: str, after: int, limit: int) -> Sequence[JournalEntry]:
        self.reads += 1
        return await super().read(source, after, limit)


class Broker:
    """Keeps what it is given, or is away."""

    def __init__(self) -> None:
        self.held: list[JournalEntry] = []
        self.away = False
        self.confirms: int | None = None
        """How many entries of the next call are confirmed before it fails; None confirms all."""

    async def publish(self, entries: Sequence[JournalEntry]) -> int:
        if self.away:
            raise Unavailable("the broker is away")
        if self.confirms is not None:
            confirmed, self.confirms = entries[: self.confirms], None
            self.held += confirmed
            raise PartlyPublished("a queue refused the rest", (entry.position for entry in confirmed), 1)
        self.held += entries
        return 0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Reader]:
    store = Reader(tmp_path / "bridge.db", clock=Clock())
    await store.open()
    yield store
    await store.close()


def events(*names: int) -> list[WireEvent]:
    return [WireEvent(f"{name}", "sms.recipient.sent", 0, b"{}") for name in names]


async def commit(store: SqliteStore, *names: int, recent: RecentEntries | None = None) -> None:
    new_events = events(*names)
    last = await store.commit(None, Commit("city", events=new_events))
    if recent is not None:
        recent.put(last, new_events)


async def lease_of(store: SqliteStore) -> Lease:
    lease = await store.acquire("relay/city", "me", 30)
    assert lease is not None
    return lease


async def test_what_was_just_committed_is_published_without_reading_it_back(store: Reader) -> None:
    broker, recent = Broker(), RecentEntries("city")
    await commit(store, *range(10), recent=recent)
    await commit(store, *range(10, 20), recent=recent)
    relay = Relay(store, broker, Clock(), batch=8, recent=recent)
    assert (await relay.drain(await lease_of(store), "city")).published == 20
    assert [entry.event.id for entry in broker.held] == [str(number) for number in range(20)]
    assert store.reads == 1  # the one that finds the end
    assert broker.held == list(await store.read("city", 0, 100))


async def test_concurrently_committed_entries_are_published_in_place(store: Reader) -> None:
    broker, recent = Broker(), RecentEntries("city")
    await commit(store, 1, 2, recent=recent)
    await commit(store, 3)  # a backfill, in another process
    await commit(store, 4, 5, recent=recent)
    await Relay(store, broker, Clock(), batch=2, recent=recent).drain(await lease_of(store), "city")
    assert [entry.event.id for entry in broker.held] == ["1", "2", "3", "4", "5"]
    assert broker.held == list(await store.read("city", 0, 100))


async def test_refused_entries_are_published_after_the_outage(store: Reader) -> None:
    broker, recent, lease = Broker(), RecentEntries("city"), await lease_of(store)
    relay = Relay(store, broker, Clock(), batch=2, recent=recent)
    await commit(store, 1, 2, 3, recent=recent)
    broker.away = True
    with pytest.raises(Unavailable):
        await relay.drain(lease, "city")
    await commit(store, 4, recent=recent)
    broker.away = False
    await relay.drain(lease, "city")
    assert [entry.event.id for entry in broker.held] == ["1", "2", "3", "4"]
    assert (await store.journal("city")).backlog == 0


async def test_a_store_that_takes_no_mark_has_nothing_published_twice(store: Reader) -> None:
    broker, lease = Broker(), await lease_of(store)
    relay = Relay(store, broker, Clock(), batch=2)
    await commit(store, 1, 2, 3, 4)
    store.full = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            await relay.drain(lease, "city")
    store.full = False
    assert (await relay.drain(lease, "city")).published == 4
    assert [entry.event.id for entry in broker.held] == ["1", "2", "3", "4"]
    assert (await store.journal("city")).backlog == 0


async def test_confirmed_part_of_a_failed_batch_is_not_repeated(store: Reader) -> None:
    broker = Broker()
    await commit(store, *range(8))
    relay, lease = Relay(store, broker, Clock()), await lease_of(store)
    for confirms in (3, 2):
        broker.confirms = confirms
        with pytest.raises(PartlyPublished):
            await relay.drain(lease, "city")
        assert (await store.journal("city")).backlog == 8
    await commit(store, 8)
    result = await relay.drain(lease, "city")
    assert [entry.event.id for entry in broker.held] == [str(number) for number in range(9)]
    assert (result.published, result.unroutable) == (9, 2)
    assert (await store.journal("city")).backlog == 0


async def test_another_event_at_a_confirmed_position_is_published(store: Reader) -> None:
    """The store was restored from a backup while the broker held a part of a batch."""
    broker, lease = Broker(), await lease_of(store)
    await commit(store, 1, 2, 3)
    relay = Relay(store, broker, Clock())
    broker.confirms = 2
    with pytest.raises(PartlyPublished):
        await relay.drain(lease, "city")
    await store._file.writer.do(lambda db: db.execute("UPDATE journal SET id = '9' WHERE id = '2'"))
    await relay.drain(lease, "city")
    assert [entry.event.id for entry in broker.held] == ["1", "2", "9", "3"]


async def test_entry_recommitted_by_a_restored_store_is_published(store: Reader) -> None:
    broker, lease = Broker(), await lease_of(store)
    relay = Relay(store, broker, Clock())
    await commit(store, 1, 2)
    store.full = True
    with pytest.raises(Unavailable):
        await relay.drain(lease, "city")
    await store._file.writer.do(lambda db: db.execute("UPDATE journal SET id = '9' WHERE id = '2'"))
    store.full = False
    await relay.drain(lease, "city")
    assert [entry.event.id for entry in broker.held] == ["1", "2", "1", "9"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("own"), st.integers(1, 5)),
        st.tuples(st.just("foreign"), st.integers(1, 3)),
        st.tuples(st.just("take"), st.integers(1, 7)),
        st.tuples(st.just("elsewhere"), st.integers(1, 7)),
    ),
    max_size=30,
)


@given(steps, st.integers(1, 8))
def test_whatever_is_at_hand_is_what_the_journal_has_there(moves: list[tuple[str, int]], kept: int) -> None:
    journal: list[WireEvent] = []
    recent, after = RecentEntries("city", max_entries=kept), 0
    for move, number in moves:
        if move in {"own", "foreign"}:
            new_events = events(*range(len(journal), len(journal) + number))
            journal += new_events
            if move == "own":
                recent.put(len(journal), new_events)
        elif move == "take":
            entries = recent.take(after, number)
            assert [entry.event for entry in entries] == journal[after : after + len(entries)]
            assert [entry.position.seq for entry in entries] == list(range(after + 1, after + len(entries) + 1))
            after += len(entries)
        else:
            after = min(after + number, len(journal))
    assert len(recent) <= kept


def test_no_more_is_kept_than_there_is_room_for() -> None:
    recent = RecentEntries("city", max_entries=3)
    recent.put(5, events(1, 2, 3, 4, 5))
    assert recent.take(0, 10) == []
    assert [entry.event.id for entry in recent.take(2, 10)] == ["3", "4", "5"]
    assert len(recent) == 0
