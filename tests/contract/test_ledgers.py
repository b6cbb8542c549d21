"""The ledgers that come with the bridge, held against the promises of every ledger."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.errors import Conflict, LeaseLost
from bridge.domain.event import JournalEntry, Position, WireEvent
from bridge.domain.namespace import Namespace
from bridge.protocols.ledger import Commit, Key, Lease, StatusChange
from bridge.protocols.store import Store
from bridge.testing.ledger_suite import LedgerSuite, Make, event


class TestRedisLedger(LedgerSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return lambda: RedisStore(redis_url, clock=Clock(), begin=0)


class TestSqliteLedger(LedgerSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "bridge.db", clock=Clock(), begin=0)


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
async def test_reset_store_never_reuses_a_number(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def store(name: str) -> Store:
        if kind == "sqlite":
            return SqliteStore(tmp_path / name, clock=Clock())
        return RedisStore(request.getfixturevalue("redis_url"), clock=Clock(), namespace=Namespace(name))

    first, emptied = store("first"), store("emptied")
    await first.open()
    last = await first.commit(None, Commit("city", events=[event(number) for number in range(200)]))
    before = await first.journal("city")
    assert (before.events, before.backlog, before.committed) == (200, 200, last)
    await emptied.open()
    await emptied.commit(None, Commit("city", cursor={"a": "1"}))
    await emptied.commit(None, Commit("city", events=[event(1)]))
    (entry,) = await emptied.read("city", 0, 9)
    assert entry.position.seq > last
    assert (await emptied.journal("city")).first == entry.position.seq
    for ledger in (first, emptied):
        await ledger.close()


OWNERS = ("one", "two")
NAMES = ("5", "6", "700", "key", "x5")
_sources = itertools.count()


class LedgerMachine(RuleBasedStateMachine):
    """One source's ledger, kept by two stores on the same data and by plain values side by side."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.source = f"source{next(_sources)}"
        self.runner = asyncio.Runner()
        self.stores = (make(), make())
        self.leases: dict[str, Lease] = {}
        self.holder: str | None = None
        self.tokens = [0]
        self.histories: dict[str, str] = {}
        self.cursor: dict[str, str] = {}
        self.journal: list[WireEvent] = []
        self.confirmed, self.unroutable, self.first = 0, 0, 1

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.close())
        self.runner.close()

    def store(self, owner: str) -> Store:
        return self.stores[OWNERS.index(owner)]

    @rule(owner=st.sampled_from(OWNERS))
    def acquire(self, owner: str) -> None:
        lease = self.runner.run(self.store(owner).acquire(f"relay/{self.source}", owner, 3600.0))
        assert (lease is None) == (self.holder not in {None, owner})
        if lease is not None:
            assert (lease.token > self.tokens[-1]) if self.holder is None else (lease == self.leases[owner])
            self.tokens.append(lease.token)
            self.leases[owner], self.holder = lease, owner

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.leases)))
        self.runner.run(self.store(owner).release(self.leases[owner]))
        if self.is_held_by(owner):
            self.holder = None

    def is_held_by(self, owner: str) -> bool:
        return self.holder == owner and self.leases[owner].token == self.tokens[-1]

    @rule(
        data=st.data(), names=st.lists(st.sampled_from(NAMES), unique=True, max_size=4),
        size=st.integers(0, 3), wrong=st.booleans(), cursor=st.dictionaries(st.sampled_from("ab"), st.sampled_from([None, "1", "2"])),
    )  # fmt: skip
    def commit(
        self, data: st.DataObject, names: list[str], size: int, wrong: bool, cursor: dict[str, str | None]
    ) -> None:
        owner = data.draw(st.sampled_from([None, *sorted(self.leases)]))
        changes = [
            StatusChange(Key("s", name), self.histories.get(name), self.histories.get(name, "") + "n") for name in names
        ]
        if wrong and changes:
            stale = "never" if changes[-1].expected is None else None
            changes[-1] = changes[-1]._replace(expected=stale)
        new = [event(len(self.journal) + index) for index in range(size)]
        done = self.runner.run(
            self.outcome(
                self.store(owner or "one").commit(
                    self.leases[owner] if owner else None, Commit(self.source, changes, new, cursor)
                )
            )
        )
        if owner and not self.is_held_by(owner):
            assert done is LeaseLost
        elif wrong and changes:
            assert done is Conflict
        else:
            self.journal += new
            self.histories.update({change.key.name: change.history for change in changes})
            self.cursor = {name: value for name, value in {**self.cursor, **cursor}.items() if value is not None}
            assert done == len(self.journal)

    async def outcome(self, call: Awaitable[object]) -> object:
        try:
            return await call
        except (LeaseLost, Conflict) as error:
            return type(error)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), upto=st.integers(0, 12), unwanted=st.integers(0, 2))
    def confirm(self, data: st.DataObject, upto: int, unwanted: int) -> None:
        owner = data.draw(st.sampled_from(sorted(self.leases)))
        done = self.runner.run(self.outcome(self.store(owner).confirm(self.leases[owner], self.source, upto, unwanted)))
        assert (done is LeaseLost) == (not self.is_held_by(owner))
        if done is None and min(upto, len(self.journal)) > self.confirmed:
            self.confirmed = min(upto, len(self.journal))
            self.unroutable += unwanted

    @rule(before=st.integers(0, 12))
    def trim(self, before: int) -> None:
        gone = self.runner.run(self.stores[0].trim(self.source, before))
        first = max(self.first, min(before, self.confirmed + 1))
        assert gone == first - self.first
        self.first = first

    @invariant()
    def both_know_the_same(self) -> None:
        for store in self.stores:
            state = self.runner.run(store.journal(self.source))
            assert (state.committed, state.confirmed, state.first, state.unroutable) == (
                len(self.journal), self.confirmed, self.first, self.unroutable
            )  # fmt: skip
            kept = [
                JournalEntry(Position(self.source, n), entry)
                for n, entry in enumerate(self.journal, 1)
                if n >= self.first
            ]
            assert list(self.runner.run(store.read(self.source, 0, 999))) == kept
            assert self.runner.run(store.cursor(self.source)) == self.cursor
            seen = self.runner.run(store.last_seen(self.source, [Key("s", name) for name in NAMES], 3600.0))
            assert list(seen) == [self.histories.get(name) for name in NAMES]
            assert self.runner.run(store.holder(f"relay/{self.source}")) == self.holder


BOUNDED = (
    settings() if os.environ.get("HYPOTHESIS_PROFILE") == "long" else settings(max_examples=30, stateful_step_count=25)
)


def test_a_ledger_in_redis_is_that_of_the_plain_model(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(lambda: RedisStore(redis_url, clock=Clock(), begin=0)), settings=BOUNDED
    )


def test_a_ledger_in_sqlite_is_that_of_the_plain_model(tmp_path: Path) -> None:
    path = tmp_path / "bridge.db"
    run_state_machine_as_test(
        lambda: LedgerMachine(lambda: SqliteStore(path, clock=Clock(), begin=0)), settings=BOUNDED
    )
