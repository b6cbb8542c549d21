"""20,000 resources, 100,000 in a long run, wait for a final status: each overdue one is published once and in time, and costs little."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.errors import LeaseLost
from bridge.domain.events.govdelivery import RecipientOverdue
from bridge.ingest.expectations import FinalStatuses
from bridge.ingest.intake import Intake
from bridge.ingest.overdue import OverdueWatch
from bridge.protocols.journal import journal_batches
from bridge.protocols.ledger import Lease
from bridge.protocols.source import Page
from bridge.protocols.store import Store
from bridge.testing.fakes import KIND, ManualTime, ScriptedSource, observe
from bridge.testing.servers import RedisServer

OPEN = replace(KIND, overdue=RecipientOverdue)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
RESOURCES = 100_000 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 20_000
SENT_EVERY = 10
"""One resource of so many gets its final status before its time."""
BATCH = 500
"""Resources on a page."""
WITHIN_SECONDS = 600.0
WAVE_SECONDS = 100 * BATCH / RESOURCES
"""Seconds from one page of new resources to the next."""
LEASE_SECONDS = 30.0
BOUND_BYTES = 100
IN_TIME = timedelta(seconds=5)


class Owner:
    """One process that polls the source, and looks for what is overdue."""

    def __init__(self, store: Store, time: ManualTime) -> None:
        self.store = store
        self.time = time
        self.source = ScriptedSource(retention=30 * 86400.0)
        self.source.resource_types = [OPEN]
        finals = FinalStatuses(WITHIN_SECONDS)
        self.intake = Intake("city", "govdelivery", self.source, store, time.clock, finals=finals)
        self.watch = OverdueWatch(
            "city", self.intake.uri, self.source, store, time.clock, finals, self.intake.times
        )  # fmt: skip

    async def lease(self, name: str) -> Lease:
        lease = await self.store.acquire("source/city", name, LEASE_SECONDS)
        assert lease is not None
        return lease

    async def see(self, lease: Lease, numbers: list[int], status: str) -> None:
        observations = [
            observe(str(number), status, scope=f"/messages/sms/{number // 1000}", kind=OPEN, phone=f"+1{number:07}")
            for number in numbers
        ]
        self.source.polls = [[Page(observations, self.time.now)]]
        await self.intake.poll(lease)


def index_bytes(store: Store, path: Path, server: RedisServer) -> int:
    """Return what the store needs for what waits, and for nothing else."""
    if isinstance(store, SqliteStore):
        with sqlite3.connect(path) as connection:
            query = "SELECT sum(pgsize) FROM dbstat WHERE name IN ('expectation', 'expectation_due')"
            return int(connection.execute(query).fetchone()[0])
    with redis.Redis(port=server.port) as client:
        keys = [*client.scan_iter("*}:e:*", count=5000), *client.scan_iter("*}:e", count=5000)]
        return sum(int(client.memory_usage(key, samples=0)) for key in keys)


async def overdue_events(store: Store) -> list[dict]:
    bodies = []
    async for entries in journal_batches(store, "city"):
        bodies += [json.loads(entry.event.body) for entry in entries if entry.event.topic == "sms.recipient.overdue"]
    return bodies


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_each_is_overdue_once_and_in_time(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    time, path = ManualTime(AT), tmp_path / "bridge.db"
    server = request.getfixturevalue("redis_server")
    url = request.getfixturevalue("redis_url")

    def opened() -> Store:
        return SqliteStore(path, clock=time.clock) if kind == "sqlite" else RedisStore(url, clock=time.clock)

    stores = [opened(), opened()]
    owner = Owner(stores[0], time)
    first = await owner.lease("one")
    sent = []
    for start in range(0, RESOURCES, BATCH):
        await owner.see(first, list(range(start, start + BATCH)), "new")
        final = list(range(start, start + BATCH, SENT_EVERY))
        await owner.see(first, final, "sent")
        sent += final
        time.passes(seconds=WAVE_SECONDS)
        first = await owner.lease("one")
    waiting = RESOURCES - len(sent)
    assert await stores[1].count_expectations("city") == waiting
    assert index_bytes(stores[0], path, server) / waiting <= BOUND_BYTES

    lease, jumped = first, AT + timedelta(days=1)
    time.passes(seconds=WITHIN_SECONDS - RESOURCES / BATCH * WAVE_SECONDS - 1)
    published = 0
    for second in range(int(RESOURCES / BATCH * WAVE_SECONDS) + 5):
        time.passes(seconds=1)
        if second == 30:  # noqa: PLR2004 - the process is started again
            owner = Owner(stores[0], time)
        if second == 60:  # noqa: PLR2004 - another process takes over
            await stores[0].release(lease)
            owner, before = Owner(stores[1], time), owner
            lease = await owner.lease("two")
            with pytest.raises(LeaseLost):
                await before.watch.check(first)
        if second == 80:  # noqa: PLR2004 - the clock is set ahead by an hour
            time.set_by = 3600.0
            jumped = time.now
        lease = await owner.lease("one" if second < 60 else "two")  # noqa: PLR2004 - see above
        published += await owner.watch.check(lease)

    events = await overdue_events(stores[1])
    assert published == len(events) == waiting
    assert set(Counter(event["subject"] for event in events).values()) == {1}
    assert len({event["id"] for event in events}) == waiting
    subjects = {f"/messages/sms/{number // 1000}/recipients/{number}" for number in sent}
    assert subjects.isdisjoint(event["subject"] for event in events)
    for event in events:
        due, recorded = (datetime.fromisoformat(text) for text in (event["data"]["due"], event["recordedtime"]))
        assert due <= recorded
        assert recorded - due <= IN_TIME or timedelta() <= recorded - jumped <= IN_TIME
    for store in stores:
        assert await store.next_expectation("city") is None
        await store.close()
