"""The rosters that come with the bridge, held against the promises of every roster."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.adapters import roster_records
from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.testing.ledger_suite import Make
from bridge.testing.roster_suite import PAUSE, RosterSuite, member


class TestRedisRoster(RosterSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return lambda: RedisStore(redis_url, clock=Clock())


class TestSqliteRoster(RosterSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "bridge.db", clock=Clock())


async def test_announcement_costs_one_command(redis_url: str) -> None:
    store = RedisStore(redis_url, clock=Clock())
    await store.announce(member("one"), 60.0)
    before = int((await store._link.command("INFO", "commandstats"))["cmdstat_evalsha"]["calls"])
    processed = int((await store._link.command("INFO", "stats"))["total_commands_processed"])
    for _ in range(10):
        await store.announce(member("one"), 60.0)
    stats = await store._link.command("INFO", "stats")
    calls = int((await store._link.command("INFO", "commandstats"))["cmdstat_evalsha"]["calls"]) - before
    await store.close()
    assert calls == 10
    # Of what the server counts, four commands of the script itself, and the requests for its figures.
    assert int(stats["total_commands_processed"]) - processed <= 10 * 6 + 2


async def test_gone_process_is_forgotten_after_an_hour(tmp_path: Path) -> None:
    now = 1_000_000.0
    store = SqliteStore(tmp_path / "bridge.db", clock=Clock(now=lambda: datetime.fromtimestamp(now, UTC)))
    await store.announce(member("one"), 10.0)
    now += 10.0 + roster_records.KEPT_SECONDS
    await store.announce(member("two"), 10.0)
    assert [presence.gone for presence in await store.presences()] == [True, False]
    now += 1.0
    await store.announce(member("two"), 10.0)
    assert [presence.member.owner for presence in await store.presences()] == ["two"]
    await store.close()


def test_records_of_a_later_version_are_read() -> None:
    text = json.dumps({**json.loads(roster_records.pack(member("one"))), "mood": "good"})
    assert roster_records.unpack_member(text) == member("one")
    pause = json.dumps({**json.loads(roster_records.pack(PAUSE)), "until": 5})
    orders = roster_records.read_orders({"pause/sink/crm": pause, "dance/crm": "now"})
    assert orders.pauses == {"sink/crm": PAUSE}
