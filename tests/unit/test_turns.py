"""Leases by turns: taken when it is ours, given back when it is not, and stood in for when nobody takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from harness import until
from structlog.testing import capture_logs

from bridge.coordination.leases import LeaseRunner
from bridge.coordination.quota import cooldown, note_quiet, takeover_cooldown
from bridge.coordination.turns import Turn
from bridge.domain.clock import Clock
from bridge.domain.errors import Unavailable
from bridge.protocols.ledger import Lease, Ledger

TTL = 0.2


@dataclass
class Works:
    """What a process does under a lease: it ends its present piece when it shall leave."""

    turn: Turn = field(default_factory=lambda: Turn(is_ours=False))
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    ends_piece: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: list[int] = field(default_factory=list)
    is_leaving: bool = False
    standbys: int = 0

    async def work(self, lease: Lease, leave: asyncio.Event) -> None:
        self.tokens.append(lease.token)
        await leave.wait()
        self.is_leaving = True
        await self.ends_piece.wait()

    def standby(self) -> None:
        self.standbys += 1

    @asynccontextmanager
    async def running(self, ledger: Ledger, owner: str) -> AsyncIterator[None]:
        runner = LeaseRunner(ledger, Clock(), owner, TTL)
        task = asyncio.ensure_future(
            runner.run("source/a", self.work, self.stop, standby=self.standby, turn=self.turn)
        )  # fmt: skip
        try:
            yield
        finally:
            self.stop.set()
            self.ends_piece.set()
            await task


async def test_lease_goes_over_when_the_piece_of_work_has_ended(store: Ledger) -> None:
    first, second = Works(), Works()
    first.turn.set(is_ours=True)
    async with first.running(store, "first"):
        await until(lambda: first.tokens, "the first has it")
        async with second.running(store, "second"):
            await until(lambda: second.standbys, "the second stands by")
            second.turn.set(is_ours=True)
            first.turn.set(is_ours=False)
            await until(lambda: first.is_leaving, "the first hears of it")
            await asyncio.sleep(0)
            assert not second.tokens, "the first still ends its poll"
            first.ends_piece.set()
            await until(lambda: second.tokens == [first.tokens[0] + 1], "the second has it")
            assert await store.holder("source/a") == "second"
    assert await store.holder("source/a") is None


async def test_lease_of_another_is_not_asked_for(store: Ledger) -> None:
    works = Works()
    await store.acquire("source/a", "another", 60)
    async with works.running(store, "us"):
        await until(lambda: works.standbys, "it stands by")
        assert works.standbys == 1
    assert not works.tokens


async def test_abandoned_lease_is_stood_in_for(store: Ledger) -> None:
    works = Works()
    with capture_logs() as logs:
        async with works.running(store, "us"):
            await until(lambda: works.tokens, "it stands in")
            works.ends_piece.set()
            await until(lambda: works.is_leaving, "it tries whether the other can again")
            await until(lambda: len(works.tokens) > 1, "it stands in again")
    assert {log["lease"] for log in logs if log["event"] == "lease.abandoned"} == {"source/a"}


async def test_unreadable_lease_is_not_abandoned() -> None:
    class Away:
        asked = 0

        async def holder(self, name: str) -> str | None:
            self.asked += 1
            raise Unavailable("the store is away")

    away, works = Away(), Works()
    async with works.running(away, "us"):  # type: ignore[arg-type] - it asks for nothing else
        await until(lambda: away.asked > 2, "it has looked several times")
    assert not works.tokens


async def test_quiet_holder_spares_the_next_one_its_wait(store: Ledger) -> None:
    first = await store.acquire("source/a", "first", 60)
    assert first is not None
    assert await takeover_cooldown(store, first, 4.0) == 0.0, "nobody asked before"
    await note_quiet(store, first)
    await store.release(first)
    second = await store.acquire("source/a", "second", 60)
    assert second is not None
    assert await takeover_cooldown(store, second, 4.0) == 0.0
    await store.release(second)
    third = await store.acquire("source/a", "third", 60)
    assert third is not None
    assert await takeover_cooldown(store, third, 4.0) == cooldown(4.0), "the second ended without a word"


async def test_unavailable_store_makes_the_next_holder_wait() -> None:
    class Away:
        async def statuses(self, prefix: str) -> dict[str, dict[str, str]]:
            raise Unavailable(prefix)

        async def set_status(self, name: str, values: dict[str, str]) -> None:
            raise Unavailable(name)

    lease = Lease("source/a", "us", 2, 15.0)
    assert await takeover_cooldown(Away(), lease, 4.0) == pytest.approx(cooldown(4.0))  # type: ignore[arg-type] - no more is asked
    await note_quiet(Away(), lease)  # type: ignore[arg-type] - no more is asked
