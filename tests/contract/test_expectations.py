"""The ledgers that come with the bridge keep who waits for a final status as every ledger promises, and as a model does."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.protocols.ledger import Commit, Expectation, Key, StatusChange
from bridge.testing.expectation_suite import DUE, ExpectationSuite, begin, due_names, waits
from bridge.testing.fakes import ManualTime
from bridge.testing.ledger_suite import Make, event


class TestRedisExpectations(ExpectationSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return lambda: RedisStore(redis_url, clock=Clock())


class TestSqliteExpectations(ExpectationSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "bridge.db", clock=Clock())


async def test_file_of_an_earlier_release_takes_expectations(tmp_path: Path) -> None:
    file = tmp_path / "bridge.db"
    first = SqliteStore(file, clock=Clock())
    await first.open()
    await first.close()
    with sqlite3.connect(file) as connection:
        connection.execute("DROP TABLE expectation")
        connection.execute("DROP TABLE expectation_due")
    connection.close()
    reading = SqliteStore(file, clock=Clock(), read_only=True)
    assert await reading.count_expectations("city") == 0
    await reading.close()
    store = SqliteStore(file, clock=Clock())
    await begin(store, waits("1"))
    assert await due_names(store) == ["1"]
    await store.close()


async def test_scope_that_is_over_takes_its_expectations_along(tmp_path: Path) -> None:
    time = ManualTime(datetime.fromtimestamp(DUE, UTC))
    store = SqliteStore(tmp_path / "bridge.db", clock=time.clock)
    await store.open()
    change = StatusChange(Key("s", "1"), None, "n")
    await store.commit(
        None, Commit("city", [change], [event(1)], retention=10, expected=[Expectation(Key("s", "1"), DUE, -1)])
    )
    assert await store.count_expectations("city") == 1
    time.passes(seconds=20)
    await store.commit(None, Commit("city", cursor={"a": "1"}))
    assert await store.count_expectations("city") == 0
    assert await store.next_expectation("city") is None
    await store.close()


NAMES = ("5", "6", "700", "key", "x5")
_sources = itertools.count()


class ExpectationMachine(RuleBasedStateMachine):
    """What one source expects, kept by two stores on the same data and by plain values side by side."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.source = f"source{next(_sources)}"
        self.runner = asyncio.Runner()
        self.stores = (make(), make())
        self.expected: dict[str, tuple[int, int]] = {}
        self.known: dict[str, str] = {}
        self.last = 0

    def teardown(self) -> None:
        for store in self.stores:
            self.runner.run(store.close())
        self.runner.close()

    @rule(
        which=st.integers(0, 1), names=st.lists(st.sampled_from(NAMES), unique=True, max_size=4),
        later=st.integers(0, 9), met=st.lists(st.sampled_from(NAMES), unique=True, max_size=3),
    )  # fmt: skip
    def commit(self, which: int, names: list[str], later: int, met: list[str]) -> None:
        names = [name for name in names if name not in met]
        changes = [StatusChange(Key("s", name), self.known.get(name), self.known.get(name, "") + "n") for name in names]
        expected = [
            Expectation(Key("s", name), DUE + later + index, index - len(names)) for index, name in enumerate(names)
        ]
        wires = [event(self.last + index) for index in range(len(names))]
        over = [Key("s", name) for name in met]
        commit = Commit(self.source, changes, wires, {"a": "1"}, expected=expected, met=over)
        last = self.runner.run(self.stores[which].commit(None, commit))
        for name in met:
            self.expected.pop(name, None)
        for index, name in enumerate(names):
            self.known[name] = self.known.get(name, "") + "n"
            time, _ = self.expected.get(name, (DUE + later + index, 0))
            self.expected[name] = (time, last - len(names) + 1 + index)
        self.last += len(names)

    @invariant()
    def both_expect_the_same(self) -> None:
        for store in self.stores:
            for upto in (DUE - 1, DUE + 3, DUE + 20):
                due = self.runner.run(store.expectations(self.source, upto, 99))
                model = {name: row for name, row in self.expected.items() if row[0] <= upto}
                assert {waiting.key.name: (waiting.due, waiting.seq) for waiting in due} == model
            assert self.runner.run(store.count_expectations(self.source)) == len(self.expected)
            first = self.runner.run(store.next_expectation(self.source))
            assert first == min((due for due, _ in self.expected.values()), default=None)


BOUNDED = (
    settings() if os.environ.get("HYPOTHESIS_PROFILE") == "long" else settings(max_examples=25, stateful_step_count=20)
)


def test_expectations_in_redis_are_those_of_the_model(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: ExpectationMachine(lambda: RedisStore(redis_url, clock=Clock(), begin=0)), settings=BOUNDED
    )


def test_expectations_in_sqlite_are_those_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "bridge.db"
    run_state_machine_as_test(
        lambda: ExpectationMachine(lambda: SqliteStore(path, clock=Clock(), begin=0)), settings=BOUNDED
    )
