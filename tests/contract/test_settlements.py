"""The keepers of books that come with the bridge, held against the promises of every one, and against a plain model."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bridge.adapters.redis.store import RedisStore
from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.domain.event import Position
from bridge.protocols.deliveries import Attempt, DeliveryCounts, NewDelivery
from bridge.protocols.store import Store
from bridge.protocols.unsent import Unsent, UnsentDelivery
from bridge.testing.ledger_suite import Make
from bridge.testing.settlement_suite import SettlementsSuite


class TestRedisDeliveries(SettlementsSuite):
    @pytest.fixture
    def make(self, redis_url: str) -> Make:
        return lambda: RedisStore(redis_url, clock=Clock())


class TestSqliteDeliveries(SettlementsSuite):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        return lambda: SqliteStore(tmp_path / "bridge.db", clock=Clock())


SEQS = st.lists(st.integers(1, 9), min_size=1, max_size=5)
PARTITIONS = {seq: (None, "a", "b")[seq % 3] for seq in range(1, 10)}
_names = itertools.count()


@dataclass
class Row:
    """What the model knows of one position."""

    state: str
    due: float = 0.0
    held: bool = False
    reason: str = ""
    tries: list[Attempt] = field(default_factory=list)


class Books:
    """The promises of `DeliveryStore` for one sink and one source, as plainly as they can be written."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.partitions: dict[str, list[int]] = {"a": [], "b": []}
        self.forgotten = {"taken": 0, "discarded": 0, "filtered": 0, "expired": 0}

    def enter(self, seq: int, due: float, held_due: float) -> bool:
        partition = PARTITIONS[seq]
        held = partition is not None and bool(self.partitions[partition])
        self.rows[seq] = Row("waiting", held_due if held else due, held)
        if partition is not None:
            self.partitions[partition].append(seq)
        return not held

    def leave(self, seq: int, now: float) -> set[int]:
        partition = PARTITIONS[seq]
        if partition is None or seq not in self.partitions[partition]:
            return set()
        self.partitions[partition].remove(seq)
        first = next(iter(self.partitions[partition]), None)
        if first is None or not self.rows[first].held:
            return set()
        row = self.rows[first]
        row.held, row.due = False, max(row.due, now)
        return {first} if row.due <= now else set()

    def state(self, seq: int) -> str:
        return self.rows[seq].state if seq in self.rows else "unknown"

    def count(self, state: str) -> int:
        return sum(row.state == state for row in self.rows.values()) + self.forgotten.get(state, 0)

    def open(self) -> dict[int, Row]:
        return {seq: row for seq, row in self.rows.items() if row.state in {"waiting", "dead"}}


class BooksMachine(RuleBasedStateMachine):
    """One sink's books, kept by a store and by the model side by side."""

    def __init__(self, make: Callable[[Clock], Store]) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.sink, self.source = f"sink{next(_names)}", f"source{next(_names)}"
        self.runner = asyncio.Runner()
        self.store = make(Clock(now=lambda: datetime.fromtimestamp(self.now, UTC)))
        self.model = Books()

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()

    def at(self, seqs: list[int]) -> list[Position]:
        return [Position(self.source, seq) for seq in seqs]

    def arrivals(self, seqs: list[int]) -> list[NewDelivery]:
        return [NewDelivery(Position(self.source, seq), PARTITIONS[seq]) for seq in seqs]

    def enter(self, seqs: list[int], due: float, held_due: float) -> tuple[int, list[int]]:
        new = [seq for seq in dict.fromkeys(seqs) if self.model.state(seq) == "unknown"]
        return len(new), [seq for seq in new if self.model.enter(seq, due, held_due)]

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(seqs=SEQS, claim=st.integers(1, 60))
    def take(self, seqs: list[int], claim: int) -> None:
        accepted = self.runner.run(self.store.accept(self.sink, self.arrivals(seqs), self.now + claim))
        assert list(accepted) == self.at(self.enter(seqs, self.now + claim, self.now)[1])

    @rule(seqs=SEQS, wait=st.integers(-60, 60))
    def offer(self, seqs: list[int], wait: int) -> None:
        new = self.runner.run(self.store.enqueue(self.sink, self.arrivals(seqs), self.now + wait))
        assert new == self.enter(seqs, self.now + wait, self.now + wait)[0]

    @rule(seqs=SEQS)
    def filter_out(self, seqs: list[int]) -> None:
        number = self.runner.run(self.store.filter_out(self.sink, self.at(seqs)))
        unknown = {seq for seq in seqs if self.model.state(seq) == "unknown"}
        self.model.rows.update({seq: Row("filtered") for seq in unknown})
        assert number == len(unknown)

    @rule(seqs=SEQS, muted=st.booleans())
    def end_unsent(self, seqs: list[int], muted: bool) -> None:
        unsent = Unsent("muted" if muted else "expired", self.now, "m" if muted else "")
        number = self.runner.run(
            self.store.end_unsent(self.sink, [UnsentDelivery(position) for position in self.at(seqs)], unsent)
        )
        waiting = [seq for seq in dict.fromkeys(seqs) if self.model.state(seq) == "waiting"]
        for seq in waiting:
            self.model.leave(seq, self.now)
            self.model.rows[seq] = Row("filtered" if muted else "expired")
        assert number == len(waiting)

    @rule(seqs=SEQS, wait=st.integers(-10, 60))
    def wait_until(self, seqs: list[int], wait: int) -> None:
        dues = [(position, self.now + wait) for position in self.at(seqs)]
        self.runner.run(self.store.wait_until(self.sink, dues))
        for seq in seqs:
            if self.model.state(seq) == "waiting" and not self.model.rows[seq].held:
                self.model.rows[seq].due = self.now + wait

    @rule(limit=st.integers(1, 6), claim=st.integers(1, 60))
    def claim(self, limit: int, claim: int) -> None:
        claimed = self.runner.run(self.store.claim(self.sink, self.now, self.now + claim, limit))
        ready = {
            seq: row
            for seq, row in self.model.open().items()
            if row.state == "waiting" and not row.held and row.due <= self.now
        }
        # Those due at one moment come in any order: compare the moments, then follow the store.
        chosen = [delivery.position.seq for delivery in claimed]
        assert [ready[seq].due for seq in chosen] == sorted(row.due for row in ready.values())[:limit]
        for delivery in claimed:
            row = ready[delivery.position.seq]
            row.due = self.now + claim
            assert (delivery.due, list(delivery.attempts)) == (row.due, row.tries)

    @rule(seqs=SEQS)
    def settle(self, seqs: list[int]) -> None:
        freed = self.runner.run(self.store.settle(self.sink, self.at(seqs)))
        became_due: set[int] = set()
        for seq in dict.fromkeys(seqs):
            if self.model.state(seq) not in {"taken", "discarded", "filtered", "expired"}:
                became_due |= self.model.leave(seq, self.now)
                self.model.rows[seq] = Row("taken")
        assert freed == len(became_due - set(seqs))

    @rule(seq=st.integers(1, 9), wait=st.integers(-10, 60), tried=st.booleans())
    def postpone(self, seq: int, wait: int, tried: bool) -> None:
        attempt = Attempt(self.now, "timed out") if tried else None
        self.runner.run(self.store.postpone(self.sink, self.at([seq])[0], self.now + wait, attempt))
        if self.model.state(seq) == "waiting":
            row = self.model.rows[seq]
            row.due = self.now + wait
            row.tries += [attempt] if attempt and row.tries[-1:] != [attempt] else []

    @rule(seq=st.integers(1, 9), tried=st.booleans())
    def dead_letter(self, seq: int, tried: bool) -> None:
        attempt = Attempt(self.now, "refused", "permanent") if tried else None
        freed = self.runner.run(self.store.dead_letter(self.sink, self.at([seq])[0], "permanent", attempt))
        became_due: set[int] = set()
        if self.model.state(seq) == "waiting":
            became_due = self.model.leave(seq, self.now)
            tries = self.model.rows[seq].tries + ([attempt] if attempt else [])
            self.model.rows[seq] = Row("dead", self.now, reason="permanent", tries=tries)
        assert freed == len(became_due)

    @rule(seqs=SEQS, wait=st.integers(-10, 60))
    def redrive(self, seqs: list[int], wait: int) -> None:
        number = self.runner.run(self.store.redrive(self.sink, self.at(seqs), self.now + wait))
        driven = [seq for seq in dict.fromkeys(seqs) if self.model.state(seq) in {"waiting", "dead"}]
        for seq in driven:
            if self.model.state(seq) == "dead":
                self.model.enter(seq, self.now + wait, self.now + wait)
            row = self.model.rows[seq]
            row.due, row.tries = self.now + wait, []
        assert number == len(driven)

    @rule(seqs=SEQS)
    def discard(self, seqs: list[int]) -> None:
        number = self.runner.run(self.store.discard(self.sink, self.at(seqs)))
        gone = [seq for seq in dict.fromkeys(seqs) if self.model.state(seq) in {"waiting", "dead"}]
        for seq in gone:
            self.model.leave(seq, self.now)
            self.model.rows[seq] = Row("discarded")
        assert number == len(gone)

    @rule(seqs=SEQS, wait=st.integers(-10, 60))
    def replay(self, seqs: list[int], wait: int) -> None:
        number = self.runner.run(self.store.replay(self.sink, self.arrivals(seqs), self.now + wait))
        again = [seq for seq in dict.fromkeys(seqs) if self.model.state(seq) not in {"waiting", "dead"}]
        for seq in again:
            self.model.enter(seq, self.now + wait, self.now + wait)
        assert number == len(again)

    @rule(before=st.integers(1, 6))
    def forget(self, before: int) -> None:
        self.runner.run(self.store.forget(self.source, before))
        for seq in range(1, before):
            if self.model.state(seq) in self.model.forgotten:
                self.model.forgotten[self.model.rows.pop(seq).state] += 1

    @invariant()
    def the_books_add_up(self) -> None:
        count = self.model.count
        counts = self.runner.run(self.store.counts(self.sink)).get(self.source, DeliveryCounts())
        states = ("taken", "waiting", "dead", "discarded", "filtered", "expired")
        assert counts == DeliveryCounts(*map(count, states))

    @invariant()
    def both_know_the_same(self) -> None:
        listed = self.runner.run(self.store.deliveries(self.sink))
        assert [delivery.due for delivery in listed] == sorted(delivery.due for delivery in listed)
        stored = {
            delivery.position.seq: (delivery.state, delivery.due, delivery.reason, list(delivery.attempts))
            for delivery in listed
        }
        assert stored == {seq: (row.state, row.due, row.reason, row.tries) for seq, row in self.model.open().items()}
        unknown = self.runner.run(self.store.unaccounted(self.sink, self.source, range(1, 10)))
        assert list(unknown) == [seq for seq in range(1, 10) if self.model.state(seq) == "unknown"]
        free = [row.due for row in self.model.open().values() if row.state == "waiting" and not row.held]
        assert self.runner.run(self.store.next_due(self.sink)) == min(free, default=None)


BOUNDED = (
    settings() if os.environ.get("HYPOTHESIS_PROFILE") == "long" else settings(max_examples=40, stateful_step_count=30)
)


def test_books_in_redis_are_those_of_the_plain_model(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:

        def make(clock: Clock) -> Store:
            client.flushdb()  # to forget a source takes as long as there are sinks, and each example makes one
            return RedisStore(redis_url, clock=clock)

        run_state_machine_as_test(lambda: BooksMachine(make), settings=BOUNDED)


def test_books_in_sqlite_are_those_of_the_plain_model(tmp_path: Path) -> None:
    path = tmp_path / "bridge.db"
    run_state_machine_as_test(lambda: BooksMachine(lambda clock: SqliteStore(path, clock=clock)), settings=BOUNDED)
