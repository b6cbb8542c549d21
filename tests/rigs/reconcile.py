"""Accounts, journals and sinks whose counts a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain.clock import Clock
from bridge.ingest.intake import Intake
from bridge.protocols.source import GroupCounts, Page
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.reconciliation.report import Report
from bridge.testing.fakes import KIND, ScriptedSource, observe

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
GROUP = "/messages/sms/1"


def subject(name: str) -> str:
    return f"{GROUP}/recipients/{name}"


@dataclass
class Accounts(ScriptedSource):
    """A source whose provider counts one group and lists who is in it."""

    has: dict[str, str] = field(default_factory=dict)
    """What the provider shows: statuses by name."""
    counts: Mapping[str, int] | None = None
    """What it counts, where that is something else."""
    total: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """Further fields of the answer."""
    error: Exception | None = None
    remembers: bool = False
    """Whether the polls have learnt the counts."""
    named: tuple[str, ...] = (GROUP,)
    asked: list[str] = field(default_factory=list)

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        assert not [name for name in cursor if name.startswith("~")]
        for name in (*self.named, *watched, *(["/messages/sms/old"] if everything else [])):
            yield name

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        if ask or not self.remembers:
            self.asked.append(group)
            if self.error is not None:
                raise self.error
        counts: dict[str, int] = {}
        for status in self.has.values():
            counts[status] = counts.get(status, 0) + 1
        total = len(self.has) if self.total is None else self.total
        given = {"scope": GROUP, "counts": counts if self.counts is None else self.counts, "total": total}
        return GroupCounts(group, AT, KIND, subject, **(given | self.facts))

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        self.asked.append(f"{group}/recipients")
        for name, status in self.has.items():
            yield Page([observe(name, status)], AT)


class Waiting:
    """A clock whose waits take no time, and during which something may happen."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.happens: list[Any] = []
        self.clock = Clock(
            now=lambda: AT + timedelta(seconds=self.seconds), monotonic=lambda: self.seconds, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.happens:
            await self.happens.pop(0)()
        await asyncio.sleep(0)


class Books:
    """One source's books on a store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.source = Accounts()
        self.time = Waiting()
        self.published = True

    async def saw(self, **statuses: str) -> None:
        """Let the service see some recipients, by name with a leading `r`."""
        page = Page([observe(name[1:], status) for name, status in statuses.items()], AT, None, {"k": "v"})
        lease = await self.store.acquire("source/city", "service", 1e6)
        intake = Intake("city", "govdelivery", ScriptedSource([[page]]), self.store, self.time.clock)
        await intake.poll(lease)

    def reconciler(self) -> Reconciler:
        return Reconciler("city", self.source, self.store, self.time.clock, published=self.published)

    async def compare(self, **wanted: Any) -> Report:
        return await self.reconciler().compare(CompareOptions(**wanted))

    async def settle(self, *, max_wait: float = 0.0, **sinks: Sequence[str]) -> Report:
        wanted = CompareOptions(max_wait=max_wait)
        report = await self.compare()
        await self.reconciler().settle(report, wanted, self.store, sinks)
        return report

    async def confirm(self, count: int) -> None:
        lease = await self.store.acquire("relay/city", "service", 1e6)
        await self.store.confirm(lease, "city", (await self.store.journal("city")).base + count)


def named(report: Report) -> list[tuple[str, str, str | None, str | None, str | None]]:
    return [
        (
            difference.resource.removeprefix(f"{GROUP}/recipients/"),
            difference.what,
            difference.provider,
            difference.ledger,
            difference.event,
        )
        for difference in report.differences
    ]
