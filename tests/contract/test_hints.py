"""The stores of hints that come with the bridge, held against the promises of every one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.testing.hint_suite import HintSuite
from bridge.testing.ledger_suite import Make


class TestRedisHints(HintSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return lambda: RedisStore(redis_url, clock=Clock())


class TestSqliteHints(HintSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "bridge.db", clock=Clock())


async def test_file_of_an_earlier_release_takes_hints(tmp_path: Path) -> None:
    file = tmp_path / "bridge.db"
    first = SqliteStore(file, clock=Clock())
    await first.open()
    await first.close()
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE hint")
    connection.close()
    reading = SqliteStore(file, clock=Clock(), read_only=True)
    assert await reading.count_hints("city") == 0
    await reading.close()
    store = SqliteStore(file, clock=Clock())
    assert await store.add_hints("city", ["a"], 10)
    assert await store.count_hints("city") == 1
    await store.close()
