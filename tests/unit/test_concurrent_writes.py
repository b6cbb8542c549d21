"""What others wrote while a poll was under way, told apart from what the poll wrote itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.event import WireEvent
from bridge.ingest.concurrent_writes import ConcurrentWrites
from bridge.protocols.ledger import Commit

AT = datetime(2026, 3, 1, tzinfo=UTC)


def event(subject: str, by: datetime = AT) -> WireEvent:
    observed = by.isoformat().replace("+00:00", "Z")
    body = f'{{"id":"i","subject":"{subject}","recordedtime":"{observed}","data":{{"channel":"sms","observed":{{"by":"{observed}"}}}}}}'
    return WireEvent("i", "sms.recipient.sent", 0, body.encode())


async def write(store: SqliteStore, *subjects: str) -> tuple[int, int]:
    return len(subjects), await store.commit(None, Commit("city", events=[event(subject) for subject in subjects]))


async def test_only_what_others_wrote_is_told(store: SqliteStore) -> None:
    writes = await ConcurrentWrites.from_now(store, "city")
    everything = set()
    for number in range(30):
        ours, theirs = [f"/ours/{number}/{index}" for index in range(number % 4)], [f"/theirs/{number}"] * (number % 3)
        everything |= {*ours, *theirs}
        if theirs:
            await write(store, *theirs)
        if ours:
            writes.record_own(*await write(store, *ours))
        if number % 7 == 6:
            assert await writes.newer_than(everything, AT) == {
                subject for subject in everything if subject.startswith("/theirs")
            }
    assert await writes.newer_than(everything, AT) == {
        subject for subject in everything if subject.startswith("/theirs")
    }


async def test_an_answer_that_is_older_than_ours_is_not_newer(store: SqliteStore) -> None:
    writes = await ConcurrentWrites.from_now(store, "city")
    await write(store, "/a")
    assert await writes.newer_than({"/a"}, AT + timedelta(seconds=29)) == {"/a"}
    assert await writes.newer_than({"/a"}, AT + timedelta(seconds=31)) == set()


async def test_a_commit_without_events_is_nothing_to_remember(store: SqliteStore) -> None:
    writes = await ConcurrentWrites.from_now(store, "city")
    await write(store, "/theirs")
    writes.record_own(0, 77)
    writes.record_own(*await write(store, "/ours"))
    assert await writes.newer_than({"/ours", "/theirs"}, AT) == {"/theirs"}


async def test_a_million_events_of_our_own_take_no_memory(store: SqliteStore) -> None:
    writes = await ConcurrentWrites.from_now(store, "city")
    _, last = await write(store, "/theirs")
    for number in range(1, 2001):
        writes.record_own(500, last + 500 * number)
    assert len(writes._own) == 1
    assert writes._own[0] == range(last + 1, last + 1_000_001)
