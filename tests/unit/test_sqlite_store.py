"""What is SQLite's own: the file, its version, writes that share one commit, and what becomes of what is over."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bridge.adapters.sqlite import ledger as sqlite_ledger
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, LeaseLost, Unavailable
from bridge.protocols.deliveries import NewDelivery
from bridge.protocols.ledger import Commit, JournalState, Key
from bridge.testing.ledger_suite import MONTH_SECONDS, change, event, events, histories
from bridge.testing.settlement_suite import later


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "bridge.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(path, clock=Clock(), begin=0)
    await made.open()
    yield made
    await made.close()


async def rows(store: SqliteStore, query: str) -> list[tuple[object, ...]]:
    return await store._file.reader.do(lambda db: db.execute(query).fetchall())


async def test_nothing_is_made_before_the_first_use(path: Path) -> None:
    store = SqliteStore(path, clock=Clock(), begin=0)
    assert not path.parent.exists()
    await store.close()
    assert not path.parent.exists()


async def test_directory_in_place_of_the_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="is a directory; name a file in it"):
        await SqliteStore(tmp_path, clock=Clock()).open()


async def test_only_its_owner_may_read_the_file(store: SqliteStore, path: Path) -> None:
    await store.commit(None, Commit("city", events=events(1)))
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name


async def test_every_commit_waits_for_the_disk(store: SqliteStore) -> None:
    settings = [
        await store._file.writer.do(lambda db, name=name: db.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("journal_mode", "synchronous")
    ]
    assert settings == ["wal", 2]


async def test_a_file_of_a_later_bridge_is_left_alone(store: SqliteStore, path: Path) -> None:
    await store.close()
    with closing(sqlite3.connect(path)) as later_bridge:
        later_bridge.execute("PRAGMA user_version = 7")
    again = SqliteStore(path, clock=Clock(), begin=0)
    with pytest.raises(Unavailable, match=r"bridge\.db has schema 7, and this bridge knows 1"):
        await again.open()
    await again.close()


async def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title)")
    store = SqliteStore(path, clock=Clock(), begin=0)
    with pytest.raises(Unavailable, match="another program's database"):
        await store.open()
    await store.close()


def test_processes_that_start_at_once_make_one_file(path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from bridge.domain.clock import Clock\n"
        "from bridge.adapters.sqlite.store import SqliteStore\n"
        "store = SqliteStore(Path(sys.argv[1]), clock=Clock(), begin=0)\n"
        "print(asyncio.run(store.watch('city', sys.argv[2])))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, path, f"/messages/sms/{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    assert [process.communicate()[0] for process in started] == ["True\n"] * 4


async def test_writes_that_wait_at_the_same_time_share_one_commit(store: SqliteStore) -> None:
    commits = []
    entered, go = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> None:
        db.set_trace_callback(lambda statement: commits.append(1) if statement == "COMMIT" else None)
        entered.set()
        assert go.wait(60)

    first = asyncio.create_task(store._file.writer.do(slow))
    await asyncio.to_thread(entered.wait, 10)
    waiting = [asyncio.create_task(store.commit(None, Commit(f"s{n}", events=events(n)))) for n in range(50)]
    await asyncio.sleep(0)
    go.set()
    await first
    assert await asyncio.gather(*waiting) == [1] * 50
    assert len(commits) == 2


async def test_refused_write_does_not_affect_its_neighbours(store: SqliteStore) -> None:
    def broken(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO watch VALUES ('city', 'half')")
        raise KeyError("a mistake")

    bad = Commit("bad", [change("1", None, "n"), change("2", "never", "s")], events(1), {"a": "1"})
    done = await asyncio.gather(
        store.commit(None, Commit("city", events=events(1))),
        store.commit(None, bad),
        store._file.writer.do(broken),
        store._file.writer.do(lambda db: db.execute("INSERT INTO ping VALUES (2, 0)")),
        store.commit(None, Commit("town", events=events(1))),
        return_exceptions=True,
    )
    assert [type(result) for result in done] == [int, Conflict, KeyError, sqlite3.IntegrityError, int]
    assert list(await store.sources()) == ["city", "town"]
    assert list(await store.watched("city")) == []


async def test_failed_read_does_not_affect_its_neighbours(store: SqliteStore) -> None:
    await store.commit(None, Commit("city", events=events(1)))
    too_large = store.read("city", 2**70, 1)
    done = await asyncio.gather(store.journal("city"), too_large, store.read("city", 0, 1), return_exceptions=True)
    assert [type(result) for result in done] == [JournalState, OverflowError, list]


async def test_closing_loses_no_write_that_was_asked_for(path: Path) -> None:
    store = SqliteStore(path, clock=Clock(), begin=0)
    writing = [asyncio.create_task(store.commit(None, Commit("city", events=events(n)))) for n in range(100)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(await asyncio.gather(*writing)) == list(range(1, 101))
    with pytest.raises(Unavailable, match="was closed"):
        await store.ping()
    again = SqliteStore(path, clock=Clock(), begin=0)
    assert (await again.journal("city")).committed == 100
    await again.close()


async def test_write_cancelled_before_its_turn_is_not_made(store: SqliteStore) -> None:
    entered, go = threading.Event(), threading.Event()
    blocking = asyncio.create_task(store._file.writer.do(lambda _: (entered.set(), go.wait(60))))
    await asyncio.to_thread(entered.wait, 10)
    writing = asyncio.create_task(store.commit(None, Commit("city", events=events(1))))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    go.set()
    await blocking
    await store.ping()
    assert (await store.journal("city")).committed == 0


def test_write_continues_after_its_loop_has_ended(path: Path) -> None:
    store = SqliteStore(path, clock=Clock(), begin=0)
    entered, go = threading.Event(), threading.Event()

    async def ask() -> None:
        asking = asyncio.create_task(store._file.writer.do(lambda _: (entered.set(), go.wait(60))))
        await asyncio.to_thread(entered.wait, 10)
        asking.cancel()

    asyncio.run(ask())
    go.set()
    assert asyncio.run(store.watch("city", "/messages/sms/1"))
    asyncio.run(store.close())


async def test_expired_scopes_are_deleted_in_small_batches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = start = datetime(2026, 1, 1, tzinfo=UTC)
    clock = Clock(now=lambda: now, monotonic=lambda: (now - start) / timedelta(seconds=1))
    store = SqliteStore(path, clock=clock)
    monkeypatch.setattr(sqlite_ledger, "_SWEEP_STEP", 4)
    await store.commit(None, Commit("city", [change(str(n), None, "n") for n in range(10)]))
    await store.commit(None, Commit("city", [change("k", None, "n", "/kept")], retention=10 * MONTH_SECONDS))
    now += timedelta(days=60)
    assert await histories(store, "1", "2") == [None, None]
    left = []
    for turn in range(4):
        await store.commit(None, Commit("city", cursor={"turn": str(turn)}))
        left.append((await rows(store, "SELECT count(*) FROM status"))[0][0])
    assert left == [7, 3, 1, 1]
    assert await rows(store, "SELECT name FROM scope") == [("/kept",)]
    await store.close()


async def test_killed_process_frees_its_lease_after_backward_clock_step(path: Path) -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    store = SqliteStore(path, clock=Clock(now=lambda: now))
    killed = await store.acquire("source/city", "killed", 15.0)
    assert killed is not None
    now -= timedelta(seconds=5)
    assert await store.acquire("source/city", "next", 15.0) is None
    now -= timedelta(hours=3)
    new_lease = await store.acquire("source/city", "next", 15.0)
    assert new_lease is not None
    assert new_lease.token > killed.token
    with pytest.raises(LeaseLost):
        await store.renew(killed)
    await store.renew(new_lease)
    await store.close()


async def test_a_scope_that_comes_back_after_its_end_starts_anew(path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = SqliteStore(path, clock=Clock(now=lambda: now, monotonic=lambda: 0.0))
    await store.commit(None, Commit("city", [change("1", None, "n"), change("2", None, "n")]))
    now += timedelta(days=60)
    await store.commit(None, Commit("city", [change("1", None, "again")]))
    assert await histories(store, "1", "2") == ["again", None]
    await store.close()


async def test_sqlite_store_remembers_a_bounded_number_of_scopes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "_SCOPES_REMEMBERED", 3)
    for number in range(20):
        await store.last_seen("city", [Key(f"scope-{number}", "1")], 60.0)
    assert len(store._kept) <= 4


async def test_sqlite_store_drops_foreign_events_after_a_month(path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = SqliteStore(path, clock=Clock(now=lambda: now))
    settled, waiting = await store.accept_foreign("crm", event(1)), await store.accept_foreign("crm", event(2))
    await store.accept("crm", [NewDelivery(settled), NewDelivery(waiting)], later())
    await store.settle("crm", [settled])
    now += timedelta(days=31)
    newest = await store.accept_foreign("crm", event(3))
    kept = await store.entries([settled, waiting, newest])
    assert [entry and entry.event for entry in kept] == [None, event(2), event(3)]
    assert await store.accept_foreign("crm", event(2)) == waiting
    await store.close()


async def test_no_cursor_leaves_the_thread_of_its_connection(store: SqliteStore) -> None:
    """Freed on another thread, it would reset a statement that is in use."""
    for worker in (store._file.writer, store._file.reader):
        assert await worker.do(lambda db: db.execute("SELECT 1")) is None
        assert await worker.do(lambda db: db.execute("SELECT 1").fetchone()) == (1,)
