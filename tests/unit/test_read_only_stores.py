"""A store that is opened for reading makes and changes nothing, whichever release wrote it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import redis
import yaml

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.config.loading import load
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.domain.event import Position
from bridge.protocols.deliveries import KeptAnswer, NewDelivery
from bridge.protocols.store import Store
from bridge.runtime.assembly import Assembly
from bridge.runtime.overview_reader import read_overview
from bridge.testing.roster_suite import PAUSE, member


async def seed(store: Store) -> None:
    await store.open()
    await store.set_status("source/city", {"state": "ok"})
    await store.announce(member("one"), 60.0)
    await store.pause("sink/crm", PAUSE)
    await store.enqueue("crm", [NewDelivery(Position("city", 1))], 5.0)
    await store.dead_letter("crm", Position("city", 1), "permanent", None, KeptAnswer(422, "no"))


async def assert_readable(store: Store) -> None:
    await store.open()
    assert (await store.statuses("source/"))["source/city"] == {"state": "ok"}
    assert [presence.member.owner for presence in await store.presences()] == ["one"]
    assert (await store.orders()).pauses == {"sink/crm": PAUSE}
    assert [delivery.state for delivery in await store.deliveries("crm")] == ["dead"]


async def test_missing_file_is_read_as_an_empty_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "folder" / "bridge.db", clock=Clock(), read_only=True)
    await store.open()
    assert list(await store.sources()) == list(await store.presences()) == []
    with pytest.raises(Unavailable, match="cannot be written to"):
        await store.set_status("source/city", {"state": "ok"})
    await store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("running", [True, False])
async def test_file_is_read_while_a_service_runs_and_after(tmp_path: Path, running: bool) -> None:
    written = SqliteStore(tmp_path / "bridge.db", clock=Clock())
    await seed(written)
    if not running:
        await written.close()
    reading = SqliteStore(tmp_path / "bridge.db", clock=Clock(), read_only=True)
    await assert_readable(reading)
    with pytest.raises(Unavailable, match="cannot be written to"):
        await reading.resume("sink/crm")
    await reading.close()
    if running:
        await written.close()


async def test_file_of_a_former_release_is_read_and_then_completed(tmp_path: Path) -> None:
    path = tmp_path / "bridge.db"
    written = SqliteStore(path, clock=Clock())
    await seed(written)
    await written.close()

    def tables() -> set[str]:
        with sqlite3.connect(path) as db:
            return {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}

    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE answer")
    reading = SqliteStore(path, clock=Clock(), read_only=True)
    await assert_readable(reading)
    await reading.close()
    assert "answer" not in tables()
    again = SqliteStore(path, clock=Clock())
    await assert_readable(again)
    assert "answer" in tables()
    await again.redrive("crm", [Position("city", 1)], 5.0)
    await again.dead_letter("crm", Position("city", 1), "permanent", None, KeptAnswer(400, "still no"))
    (delivery,) = await again.deliveries("crm")
    assert delivery.answer == KeptAnswer(400, "still no")
    await again.close()


async def test_overview_changes_nothing_in_redis(tmp_path: Path, redis_url: str) -> None:
    written = RedisStore(redis_url, clock=Clock())
    await seed(written)
    await written.close()
    source = {"type": "govdelivery", "url": "https://tms.example", "token": "x", "channels": ["sms"]}
    sink = {"type": "stdout", "topics": ["#"]}
    path = tmp_path / "bridge.yaml"
    path.write_text(yaml.safe_dump({
        "state": str(tmp_path / "state"), "store": redis_url, "sources": {"city": source}, "sinks": {"crm": sink},
    }))  # fmt: skip
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("persistence")["rdb_changes_since_last_save"]
        overview = await read_overview(Assembly(load(path)))
        assert client.info("persistence")["rdb_changes_since_last_save"] == before
    assert [process.member.owner for process in overview.processes] == ["one"]
    assert (overview.sinks[0].state, overview.sinks[0].dead) == ("paused", 1)
