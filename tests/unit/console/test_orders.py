"""What can be changed in a browser: after a question, by a form of the same session, with a line in the log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rigs.console import CANARIES, TOKEN, Browser, console
from structlog.testing import capture_logs

from bridge.domain.event import Position


async def ordered(browser: Browser, path: str, **fields: str) -> str:
    """Answer the question at a path with yes; return what the console says then."""
    status, page = await browser.get(path)
    assert status == 200, page
    assert not [canary for canary in CANARIES if canary in page]
    form = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page)) | fields
    action = page.partition('<form method="post" action="/act/')[2].partition('"')[0]
    status, page = await browser.post(f"/act/{action}", form)
    assert status == 200, page
    return page.partition('role="status">')[2].partition("<")[0]


async def test_orders_are_asked_for_done_and_logged(tmp_path: Path) -> None:
    async with console(tmp_path, console="act") as browser:
        store = browser.parts.store
        with capture_logs() as logs:
            assert await ordered(browser, "/act/pause?part=source/city", because="too  loud") == "It is paused."
            assert (await store.orders()).pauses["source/city"].reason == "too loud"
            assert "It was paused already" in await ordered(browser, "/act/pause?part=source/city")
            assert "Resume it first" in await ordered(browser, "/act/poll?part=source/city")
            assert await ordered(browser, "/act/resume?part=source/city") == "It works again."
            assert await ordered(browser, "/act/resume?part=sink/crm") == "It was not paused."
            assert await ordered(browser, "/act/poll?part=source/city") == "The poll is asked for."
            assert "city" in (await store.orders()).polls
            assert await ordered(browser, "/act/redrive?sink=crm&reason=exhausted") == "1 delivery due again."
            assert (await store.delivery("crm", Position("city", 3))).state == "waiting"
            assert await ordered(browser, "/act/discard?sink=crm&position=city:2") == "1 delivery discarded."
            assert await store.settled("crm", Position("city", 2))
            assert "The sink is enabled" in await ordered(browser, "/act/redrive?sink=ops&all=yes")
            assert (
                await ordered(browser, "/act/discard?sink=crm&text=sms.recipient.failed") == "2 deliveries discarded."
            )
        lines = [line for line in logs if line["event"] == "console.acted"]
        assert [line["action"] for line in lines] == [
            "pause", "pause", "resume", "resume", "poll", "redrive", "discard", "redrive", "discard",
        ]  # fmt: skip
        assert {line["by"] for line in lines} == {"console@127.0.0.1"}


async def test_what_was_read_during_an_order_is_not_kept(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        facts = browser.console._facts

        async def read() -> str:
            facts.forget()  # an order is carried out meanwhile
            return "before"

        async def read_again() -> str:
            return "after"

        assert await facts.shared("part", read) == "before"
        assert await facts.shared("part", read_again) == "after"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/act/pause?part=source/nobody", 404, "there is no source or sink"),
        ("/act/poll?part=sink/crm", 404, "there is no source"),
        ("/act/redrive?sink=nobody&all=yes", 404, "there is no sink"),
        ("/act/redrive?sink=crm", 400, "say which"),
        ("/act/discard?sink=crm&position=city:7", 404, "neither waits"),
        ("/act/destroy?sink=crm", 404, ""),
    ],
)
async def test_orders_that_mean_nothing_are_refused(tmp_path: Path, path: str, status: int, said: str) -> None:
    async with console(tmp_path, console="act") as browser:
        answer, text = await browser.get(path)
        assert (answer, said in text) == (status, True)


async def test_orders_of_foreign_pages_change_nothing(tmp_path: Path) -> None:
    async with console(tmp_path, console="act") as browser:
        _, page = await browser.get("/act/pause?part=source/city")
        key = page.partition('name="form_key" value="')[2].partition('"')[0]
        form = {"part": "source/city", "form_key": key}
        for headers, fields in (
            ({"Origin": "http://elsewhere.example"}, form),
            ({"Origin": "null"}, form),
            ({}, form | {"form_key": "0" * 64}),
            ({}, {"part": "source/city"}),
        ):
            assert (await browser.post("/act/pause", fields, **headers))[0] == 403
        assert (await browser.get("/act/pause?part=source/city", Host="elsewhere.example"))[0] == 421
        assert (await browser.parts.store.orders()).pauses == {}


async def test_orders_need_the_token_and_the_setting(tmp_path: Path) -> None:
    async with console(tmp_path, console="act", token=TOKEN) as browser:
        assert (await browser.get("/act/pause?part=source/city"))[0] == 401
        assert (await browser.post("/act/pause", {"part": "source/city"}))[0] == 401
    async with console(tmp_path, full=False) as browser:
        assert (await browser.get("/act/pause?part=source/city"))[0] == 404
        assert "/act/" not in (await browser.get("/sources"))[1]
