"""The embedded broker's file: whose it is, and what it keeps of dead processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.adapters.sqlite.broker import SqliteBroker
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.testing.broker_suite import QUEUE, collect, entry, ids


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[SqliteBroker]:
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock(), lease=0.6)
    yield broker
    await broker.close()


async def test_the_file_is_for_its_owner_only(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}  # noqa: PTH116, PTH208 - quick
    assert modes == dict.fromkeys(["broker.db", "broker.db-wal", "broker.db-shm"], 0o600)


async def test_body_is_stored_once_while_any_queue_needs_it(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.declare("bridge.sink.other", ["#"])
    await embedded.publish([entry(1)])
    counts = []
    for queue in (QUEUE, "bridge.sink.other"):
        counts.append(_count(tmp_path, "bodies"))
        async with embedded.inbox(queue) as inbox:
            await inbox.ack(await collect(inbox, 1))
    assert [*counts, _count(tmp_path, "bodies")] == [1, 1, 0]


def _count(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "broker.db") as db:
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - a name of ours
    db.close()
    return int(count)


async def test_dead_process_messages_return_after_a_backward_clock_step(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1), entry(2)])
    db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    db.execute("INSERT INTO consumers SELECT 'dead', id, ? FROM queues", (time.time() + 3 * 3600,))
    db.execute("UPDATE items SET owner = 'dead'")
    db.close()
    async with embedded.inbox(QUEUE) as inbox:
        assert ids(await collect(inbox, 2)) == ["event-1", "event-2"]


async def test_dead_process_messages_return_and_its_taps_go(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1), entry(2)])
    db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    db.execute("INSERT INTO consumers SELECT 'dead', id, ? FROM queues", (time.time() + 0.5,))
    db.execute("UPDATE items SET owner = 'dead'")
    db.execute("INSERT INTO queues (name, tap_until) VALUES ('bridge.tap.dead', ?)", (time.time() - 1,))
    db.execute("INSERT INTO bindings SELECT id, '#' FROM queues WHERE name = 'bridge.tap.dead'")
    db.close()
    async with embedded.inbox(QUEUE) as inbox:
        assert await inbox.get(2, 0.1) == []
        assert ids(await collect(inbox, 2)) == ["event-1", "event-2"]
        await embedded.publish([entry(3)])
    assert _count(tmp_path, "queues") == 1


async def test_a_live_consumer_and_a_live_tap_keep_their_leases(embedded: SqliteBroker, tmp_path: Path) -> None:
    other = SqliteBroker(tmp_path / "broker.db", clock=Clock(), lease=0.6)
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    async with embedded.inbox(QUEUE) as inbox, embedded.tap(["#"]) as tap, other.inbox(QUEUE) as eager:
        got = await collect(inbox, 1)
        assert await eager.get(1, 1.5) == []  # longer than the lease
        await other.publish([entry(2)])
        assert ids(await collect(tap, 1)) == ["event-2"]
        await inbox.ack(got)
    await other.close()


async def test_consumer_wrongly_declared_dead_continues(embedded: SqliteBroker, tmp_path: Path) -> None:
    """As after a suspended laptop: its messages come again, its late acknowledgement harms nobody, its tap is back."""
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    async with embedded.inbox(QUEUE) as inbox, embedded.tap(["#"]) as tap:
        got = await collect(inbox, 1)
        db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM consumers")
        db.execute("DELETE FROM queues WHERE tap_until IS NOT NULL")
        db.close()
        await inbox.ack(got)
        assert ids(await collect(inbox, 1)) == ["event-1"]
        async with asyncio.timeout(60):
            seq = 2
            while not await tap.get(1, 0.1):
                await embedded.publish([entry(seq)])
                seq += 1


async def test_missing_queue_is_reported_and_publishing_continues(embedded: SqliteBroker, tmp_path: Path) -> None:
    await embedded.declare(QUEUE, ["#"])
    async with embedded.inbox(QUEUE) as inbox:
        db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM queues")
        db.close()
        with pytest.raises(Unavailable, match=r"bridge\.sink\.suite: there is no such queue"):
            await inbox.get(1, 10)
        assert await embedded.publish([entry(1)]) == 1
        await embedded.declare(QUEUE, ["#"])
        await embedded.publish([entry(2)])
        async with asyncio.timeout(60):
            while True:
                try:
                    assert ids(await collect(inbox, 1)) == ["event-2"]
                    break
                except Unavailable:  # until the lease was renewed once more
                    continue


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    path.write_text("this is not a database, but something long enough to be looked at" * 20)
    broker = SqliteBroker(path, clock=Clock())
    with pytest.raises(Unavailable, match=r"broker\.db: file is not a database"):
        await broker.open()
    await broker.close()
    blocked = SqliteBroker(path / "below" / "a-file.db", clock=Clock())
    with pytest.raises(Unavailable, match=r"a-file\.db: "):
        await blocked.ping()
    await blocked.close()


async def test_a_file_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "broker.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    broker = SqliteBroker(tmp_path / "broker.db", clock=Clock())
    with pytest.raises(Unavailable, match="another version"):
        await broker.open()
    await broker.close()


async def test_a_half_written_batch_is_not_there(embedded: SqliteBroker, tmp_path: Path) -> None:
    """As when the disk is full in the middle of it; the next one is whole again."""
    await embedded.declare(QUEUE, ["#"])
    await embedded.publish([entry(1)])
    db = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
    db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON bodies WHEN NEW.event = 'event-4' "
        "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
    )
    with pytest.raises(Unavailable, match=r"broker\.db: database or disk is full"):
        await embedded.publish([entry(seq) for seq in range(2, 7)])
    db.execute("DROP TRIGGER full")
    db.close()
    assert await embedded.depth(QUEUE) == 1
    await embedded.publish([entry(2)])
    assert await embedded.depth(QUEUE) == 2
