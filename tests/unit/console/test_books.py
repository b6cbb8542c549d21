"""A message's books: provider, ledger, events and sinks beside each other, with their differences in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from rigs.console import NOW, PHONE, console

from bridge.operations import message_books
from bridge.protocols.ledger import Commit, Key, StatusChange
from bridge.protocols.source import GroupCounts

SCOPE = "/messages/sms/1"


async def test_books_name_each_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with console(tmp_path) as browser:
        source = browser.parts.sources["city"].source
        kind = source._kinds["sms"][1]
        codes = {status: kind.lifecycle.code(status) for status in ("failed", "sent")}
        statuses = [StatusChange(Key(SCOPE, str(number)), None, codes[status]) for number, status in
                    ((1, "sent"), (2, "failed"), (3, "failed"))]  # fmt: skip
        await browser.parts.store.commit(None, Commit("city", statuses=statuses))
        counted = GroupCounts(
            SCOPE, NOW, kind, lambda name: f"{SCOPE}/recipients/{name}", scope=SCOPE, counts={"failed": 3, "sent": 1}
        )

        async def count(*_: object) -> GroupCounts:
            return counted

        monkeypatch.setattr(message_books, "_counted", count)
        books = await browser.json("/api/books?of=city:1")
        assert books["message"] == SCOPE
        assert books["provider"] == {"failed": 3, "sent": 1}
        assert books["seen"] == {"sent": 1, "failed": 2}
        assert books["last_events"] == {"sending": 2, "failed": 2}
        assert (books["events"], books["confirmed"]) == (7, 6)
        assert books["sinks"]["crm"] == {
            "wanted": 6,
            "filtered": 0,
            "expired": 0,
            "settled": 1,
            "waiting": 2,
            "dead": 2,
            "on the way": 1,
        }
        assert (books["sinks"]["ops"]["wanted"], books["sinks"]["ops"]["filtered"]) == (3, 1)
        said = books["differences"]
        assert "the provider counts 3 failed, and 2 were seen" in said
        assert "the ledger has 1 sent, and 0 are in the last events" in said
        assert "1 events are not published yet" in said
        assert "2 dead at crm" in said
        _, page = await browser.get("/books?of=city:1")
        assert "the provider counts 3 failed" in page
        assert PHONE not in page


async def test_books_without_a_provider_say_so(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        books = await browser.json("/api/books?of=city:1")
        assert books["provider"] is None
        assert books["seen"] is None
        assert "The provider does not say" in (await browser.get("/books?of=city:1"))[1]
