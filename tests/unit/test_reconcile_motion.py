"""A comparison looks again before it says that something differs: what was only in motion is no difference."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

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


@dataclass
class MovingSource(ScriptedSource):
    """A provider whose answer is another one each time: statuses by name, and how many it counts."""

    answers: list[tuple[dict[str, str], int]] = field(default_factory=list)
    asked: int = 0

    async def groups(
        self, cursor: Mapping[str, str], watched: Sequence[str], *, everything: bool
    ) -> AsyncIterator[str]:
        yield GROUP

    async def count(self, group: str, cursor: Mapping[str, str], *, ask: bool) -> GroupCounts | None:
        self.asked += 1
        shown, total = self._answer()
        counts = {status: list(shown.values()).count(status) for status in shown.values()}
        return GroupCounts(
            group, AT, KIND, lambda name: f"{GROUP}/recipients/{name}", scope=GROUP, counts=counts, total=total
        )

    async def members(self, group: str, cursor: Mapping[str, str]) -> AsyncGenerator[Page, None]:
        for name, status in self._answer()[0].items():
            yield Page([observe(name, status)], AT)

    def _answer(self) -> tuple[dict[str, str], int]:
        return self.answers[min(self.asked, len(self.answers)) - 1]


@dataclass
class Books:
    store: SqliteStore
    clock: Clock
    source: MovingSource = field(default_factory=MovingSource)

    async def saw(self, **statuses: str) -> None:
        page = Page([observe(name[1:], status) for name, status in statuses.items()], AT, None, {"k": "v"})
        lease = await self.store.acquire("source/city", "service", 1e6)
        await Intake("city", "govdelivery", ScriptedSource([[page]]), self.store, self.clock).poll(lease)

    async def compare(self, *answers: tuple[dict[str, str], int], deep: bool = True) -> Report:
        self.source.answers = list(answers)
        reconciler = Reconciler("city", self.source, self.store, self.clock)
        return await reconciler.compare(CompareOptions(deep=deep))


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async def no_sleep(_seconds: float) -> None:
        return

    clock = Clock(now=lambda: AT + timedelta(seconds=1), sleep=no_sleep)
    store = SqliteStore(tmp_path / "bridge.db", clock=clock)
    await store.open()
    yield Books(store, clock)
    await store.close()


BOTH = {"1": "sent", "2": "sent"}
MOVING = [
    ("one not listed for a moment", ({"1": "sent"}, 1)),
    ("one counted before it is listed", ({"1": "sent"}, 2)),
    ("one counted that nobody lists yet", (BOTH, 3)),
    ("one that goes back", ({"1": "sent", "2": "failed"}, 2)),
    ("one that nobody knows", ({**BOTH, "3": "sent"}, 3)),
]


@pytest.mark.parametrize(("name", "answer"), MOVING)
async def test_what_only_one_look_shows_is_no_difference(
    books: Books, name: str, answer: tuple[dict[str, str], int]
) -> None:
    await books.saw(r1="sent", r2="sent")
    report = await books.compare(answer, (BOTH, 2))
    assert report.balanced, name
    assert [(book.provider, book.ledger) for book in report.groups] == [({"sent": 2}, {"sent": 2})]


@pytest.mark.parametrize(("name", "answer"), MOVING)
async def test_what_two_looks_show_is_a_difference(books: Books, name: str, answer: tuple[dict[str, str], int]) -> None:
    await books.saw(r1="sent", r2="sent")
    report = await books.compare(answer, answer)
    assert not report.balanced, name
    assert books.source.asked == 2


async def test_resources_that_keep_moving_are_a_remark(books: Books) -> None:
    await books.saw(r1="sent", r2="new")
    report = await books.compare(({"1": "sent", "2": "sending"}, 2), ({"1": "sent", "2": "sent"}, 2))
    assert report.balanced
    assert report.remarks == ["1 resources were in motion: they changed between two looks"]


async def test_books_that_agree_are_read_once(books: Books) -> None:
    await books.saw(r1="sent", r2="sent")
    assert (await books.compare((BOTH, 2))).balanced
    assert books.source.asked == 1
