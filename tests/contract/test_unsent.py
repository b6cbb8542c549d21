"""What the stores that come with the bridge keep of deliveries that are not sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.testing.ledger_suite import Make
from bridge.testing.unsent_suite import UnsentSuite


class TestRedisUnsent(UnsentSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return lambda: RedisStore(redis_url, clock=Clock())


class TestSqliteUnsent(UnsentSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "bridge.db", clock=Clock())
