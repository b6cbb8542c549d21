"""Twelve sources of six accounts in one to three processes: shares, moves, and nothing lost by them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import Process, ask, bridge, until
from rigs.shared_accounts import ACCOUNTS, LISTS, SharedAccounts

from bridge.adapters.redis.store import RedisStore
from bridge.domain.clock import Clock
from bridge.testing.servers import RedisServer

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

LEASE, INTERVAL, RATE = 3.0, 3.0, 4
MARGIN_SECONDS = 3.0
"""What a move may take beyond its promise on a busy machine."""


class Site:
    """Processes of one configuration, and what the store says of them."""

    def __init__(self, folder: Path, config: Path, store: RedisStore, accounts: SharedAccounts) -> None:
        self.folder = folder
        self.config = config
        self.accounts = accounts
        self._store = store

    async def holders(self, kind: str = "source") -> dict[str, int]:
        """Return how many leases of a kind each process has, by its number."""
        owners = await asyncio.gather(*(self._store.holder(f"{kind}/{name}") for name in self.accounts.lists))
        held: dict[str, int] = {}
        for owner in owners:
            number = owner.split(":")[1] if owner else "nobody"
            held[number] = held.get(number, 0) + 1
        return held

    def shared(self, processes: Sequence[Process], shares: Sequence[int]) -> Callable[[], Any]:
        """Return whether these processes poll and relay so many sources, in ascending order."""

        async def is_shared() -> bool:
            numbers = {str(process.process.pid) for process in processes}
            polled, relayed = await self.holders(), await self.holders("relay")
            return polled == relayed and polled.keys() == numbers and sorted(polled.values()) == list(shares)

        return is_shared

    async def processes(self) -> dict[int, dict[str, Any]]:
        done = await ask(self.folder, "status", "--json", "-c", str(self.config))
        return {process["pid"]: process for process in json.loads(done.stdout)["processes"]}


async def test_sources_follow_processes_that_come_and_go(tmp_path: Path, record_property: Any) -> None:
    seconds: dict[str, float] = {}
    with RedisServer() as redis, ExitStack() as stack:
        async with SharedAccounts() as accounts:
            config = accounts.configuration(
                tmp_path, redis.url, redis.url, interval=f"{INTERVAL:g}s", rate=f"{RATE}/s", lease=f"{LEASE:g}s"
            )  # fmt: skip
            store = RedisStore(redis.url, clock=Clock())
            site = Site(tmp_path, config, store, accounts)

            def start(name: str) -> Process:
                return stack.enter_context(bridge(tmp_path, "run", "-c", str(config), name=name))

            async def measured(what: str, condition: Callable[[], Any]) -> None:
                began = time.monotonic()
                await until(condition, what)
                seconds[what] = round(time.monotonic() - began, 1)

            first = start("first")
            await measured("one polls everything", site.shared([first], [12]))
            began = time.monotonic()
            second, third = start("second"), start("third")
            await until(lambda: second.log and third.log, "both have started")
            await measured("three have a third each", site.shared([first, second, third], [4, 4, 4]))

            async def is_shown() -> bool:  # each says with its next announcement what it has
                shown = {
                    pid: (len(item["polls"]), len(item["share"]), len(item["accounts"]), item["share_reason"])
                    for pid, item in (await site.processes()).items()
                }
                third_each = (4, 2, ACCOUNTS, "2 of 6 accounts among 3 processes")
                return shown == {process.process.pid: third_each for process in (first, second, third)}

            await measured("status shows who has what", is_shown)
            assert await asyncio.to_thread(second.stop) == 0
            await measured("who was stopped is followed", site.shared([first, third], [6, 6]))
            await asyncio.to_thread(first.kill)
            await measured("who died is followed", site.shared([third], [12]))
            gaps = accounts.gaps(began)
            accounts.freeze()
            await until(lambda: not accounts.lost, "every status has arrived")
            assert await asyncio.to_thread(third.stop) == 0
            await store.close()
        record_property("seconds", seconds)
        record_property("longest time without a poll", max(gaps.values()))
        assert accounts.renamed == []
        assert accounts.most_in_a_second <= RATE
        assert seconds["three have a third each"] < 2 * LEASE + MARGIN_SECONDS
        assert seconds["who was stopped is followed"] < MARGIN_SECONDS
        assert seconds["who died is followed"] < LEASE + MARGIN_SECONDS
        assert max(gaps.values()) < LEASE + INTERVAL + MARGIN_SECONDS
        changes = [line for line in first.log if line["event"] == "share.changed"]
        assert changes[0]["accounts"] == f"{ACCOUNTS} of {ACCOUNTS}"
        assert f":{third.process.pid} takes part" in " ".join(change["reason"] for change in changes)
        assert len(accounts.lists) == ACCOUNTS * LISTS
