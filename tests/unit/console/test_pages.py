"""Pages, the read API and the streams: what they show, and what they never show."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from rigs.console import CANARIES, EMAIL, KEY, PHONE, Browser, console, event

from bridge.console import site
from bridge.domain.event import Position
from bridge.protocols.ledger import Commit
from bridge.protocols.roster import Member, Mute
from bridge.protocols.unsent import Unsent, UnsentDelivery

LIVE = ("/live/", "/live/sources", "/live/sinks", "/live/sinks/crm", "/live/events", "/live/events/city:1",
        "/live/resources?of=city:1")  # fmt: skip
PAGES = (
    "/", "/sources", "/sinks", "/sinks/crm", "/sinks/crm?state=dead", "/sinks/crm?code=422", "/sinks/ops",
    "/sinks/@relay", "/events", "/events?status=failed&topic=sms.%23&source=city", "/events?text=unknown",
    "/events/city:1", "/events/city:2", "/events/city:5", "/events/city:7", "/resources", "/resources?of=city:2",
    "/books?of=city:2", "/books?of=city:5", "/resources?of=city:5", "/resources?name=/messages/sms/1/recipients/2", "/resources?name=nothing",
    "/api/overview", "/api/sources", "/api/sinks", "/api/sinks/crm/deliveries", "/api/events", "/api/events/city:2",
    "/api/events/city:5", "/api/books?of=city:5", "/api/resources?of=city:2",
    "/api/resources?name=/messages/sms/1/recipients/2",
)  # fmt: skip


async def first_message(browser: Browser, path: str) -> str:
    async with browser.session.get(browser.origin + path) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        line = await asyncio.wait_for(response.content.readline(), 30)
        return json.loads(line.removeprefix(b"data: "))


async def test_no_page_or_stream_shows_a_phone_or_secret(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        for path in PAGES:
            status, text = await browser.get(path)
            assert status == 200, (path, text)
            assert not [canary for canary in CANARIES if canary in text], path
        for path in LIVE:
            text = await first_message(browser, path)
            assert len(text) > 100
            assert not [canary for canary in CANARIES if canary in text], path


@pytest.mark.parametrize("privacy", ["full", "token"])
async def test_privacy_decides_what_is_shown(tmp_path: Path, privacy: str) -> None:
    async with console(tmp_path, privacy=privacy) as browser:
        detail = await browser.json("/api/events/city:2")
        assert (detail["body"]["data"]["phone"] == PHONE) is (privacy == "full")
        assert detail["body"]["data"]["phone"].startswith(PHONE if privacy == "full" else "tok_")
        assert (PHONE in json.dumps(detail["sinks"])) is (privacy == "full")


async def test_overview_says_what_is_wrong_and_why(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        overview = await browser.json("/api/overview")
        codes = {finding["code"] for finding in overview["problems"]}
        assert {"sink-circuit-open", "sink-disabled", "dead-letters"} <= codes
        assert not overview["well"]
        _, page = await browser.get("/")
        assert "things are wrong" in page
        assert "answered 503 for …0143" in page
        assert page.count('class="box bad"') >= 4  # two sinks, in the wide picture and in the narrow one
        assert "disabled" in page


async def test_pages_tell_what_a_filter_left_out(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        crm, ops = (await browser.json("/api/sinks"))["sinks"]
        assert (crm["filtered"], ops["filtered"]) == (0, 1)
        _, page = await browser.get("/sinks/ops")
        assert "Filter: <code>not(exact data.phone: &#34;…0143&#34;)</code>" in page
        assert "Filtered out" in page
        assert "Filtered out" not in (await browser.get("/sinks/crm"))[1]
        assert "1 filtered out" in (await browser.get("/"))[1]
        _, event_page = await browser.get("/events/city:1")
        assert "its filter asks for not(exact data.phone: &#34;…0143&#34;)" in event_page


async def test_pages_tell_what_has_expired_and_what_is_muted(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        store, now = browser.parts.store, time.time()
        await store.end_unsent("crm", [UnsentDelivery(Position("city", 5))], Unsent("expired", now))
        muted = Mute(
            "m1", "crm", now - 60, now + 3600, "ops@box", f"it calls {PHONE}", {"exact": {"data.phone": PHONE}}
        )
        await store.keep_mute(muted)
        crm, ops = (await browser.json("/api/sinks"))["sinks"]
        assert (crm["expired"], ops["expired"], ops["mutes"]) == (1, 0, [])
        assert crm["mutes"][0]["where"] == {"exact": {"data.phone": "…0143"}}
        assert (await browser.json("/api/books?of=city:5"))["sinks"]["crm"]["expired"] == 1
        for path in ("/sinks", "/sinks/crm"):
            _, page = await browser.get(path)
            assert "Expired" in page
            assert "by ops@box: it calls …0143" in page
        assert "bridgectl unmute crm m1" in page
        assert "1 expired" in (await browser.get("/"))[1]
        assert "it was older than max_age" in (await browser.get("/events/city:5"))[1]


async def test_overview_tells_which_process_polls_what(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        (process,) = (await browser.json("/api/overview"))["processes"]
        assert process["polls"] == ["city"]
        assert "among" not in (await browser.get("/"))[1]  # a process that is alone shares nothing
        browser.console._facts.forget()
        for owner, share in (("box:7:1", 1), ("box:8:1", 0)):
            reason = f"{share} of 1 accounts among 2 processes"
            member = Member(owner, "box", 7, ("poll",), "1", "0badcafe", 0.0, accounts=("a",), share_reason=reason)
            await browser.parts.store.announce(member, 600.0)
        _, page = await browser.get("/")
        assert '<td data-label="Polls">city <small>1 of 1 accounts among 2 processes</small></td>' in page
        assert '<td data-label="Polls">– <small>0 of 1 accounts among 2 processes</small></td>' in page  # noqa: RUF001 - a dash stands for none


async def test_deliveries_are_searched_and_paged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.console.looking_up.PAGE_DELIVERIES", 2)
    async with console(tmp_path) as browser:

        async def positions(query: str) -> list[str]:
            listed: list[str] = []
            path = f"/api/sinks/crm/deliveries?{query}"
            while path:
                page = await browser.json(path)
                listed += [row["position"] for row in page["deliveries"]]
                path = page["next"] and f"/api/sinks/crm/deliveries?{query}&after={page['next']}"
            return sorted(listed)

        assert await positions("") == [f"city:{number}" for number in (2, 3, 4, 5)]
        assert await positions("state=dead") == ["city:2", "city:3"]
        assert await positions("reason=exhausted") == ["city:3"]
        assert await positions("code=422") == ["city:2"]
        assert await positions("code=503") == ["city:3", "city:4"]
        assert await positions("text=422") == ["city:2"]
        assert await positions("topic=*.recipient.failed") == ["city:3", "city:5"]
        assert await positions("since=2h&until=1m") == [f"city:{number}" for number in (2, 3, 4, 5)]
        assert await positions("since=2099-01-01T00:00:00") == []
        assert (await browser.json("/api/sinks"))["sinks"][0]["answers"] == {"503": 2, "422": 1}
        _, page = await browser.get("/sinks/crm")
        assert "Next page" in page


async def test_events_are_filtered_and_paged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.console.feed.PAGE_EVENTS", 3)
    async with console(tmp_path) as browser:

        async def numbers(query: str) -> list[int]:
            listed: list[int] = []
            path = f"/api/events?{query}"
            while path:
                page = await browser.json(path)
                listed += [int(row["position"].partition(":")[2]) for row in page["events"]]
                path = page["next"] and f"/api/events?{query}&before={page['next']}"
            return listed

        assert await numbers("") == [7, 6, 5, 4, 3, 2, 1]
        assert await numbers("status=failed") == [7, 5, 3, 1]
        assert await numbers("topic=sms.recipient.sending") == [6, 4, 2]
        assert await numbers("source=drops") == []
        assert await numbers("text=UNKNOWN") == [7, 6, 5, 4, 3, 2, 1]
        assert await numbers("text=timeout") == []
        assert await numbers("key=/messages/sms/1/recipients/2") == [7, 4, 1]
        assert await numbers(f"key={event(3).id}") == [3]
        assert await numbers(f"key={KEY}") == [7, 6, 5, 4, 3, 2, 1]
        # What is masked cannot be searched for piece by piece.
        assert await numbers(f"key={PHONE[1:6]}") == []
        assert await numbers(f"text={PHONE[1:6]}") == []
        assert await numbers(f"text={EMAIL[:6]}") == []


async def test_event_and_resource_tell_what_each_sink_did(tmp_path: Path) -> None:
    async with console(tmp_path) as browser:
        detail = await browser.json("/api/events/city:2")
        assert {sink["sink"]: sink["state"] for sink in detail["sinks"]} == {"crm": "dead", "ops": "filtered"}
        assert detail["sinks"][0]["answer"]["status"] == 422
        life = await browser.json("/api/resources?of=city:1")
        assert [change["position"] for change in life["changes"]] == ["city:1", "city:4", "city:7"]
        assert not life["changes"][-1]["confirmed"]
        _, page = await browser.get("/resources?of=city:4")
        assert page.count('class="bar') >= 3
        assert page.count('class="try"') == 2  # one in the picture, one in its legend
        _, page = await browser.get("/resources?name=nothing-of-that-name")
        assert "The journal has nothing of it" in page


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/events/city:99", 404, "the journal has no event"),
        ("/events/nonsense", 400, "an event is named by its position"),
        ("/books?of=city:99", 404, "the journal has no event"),
        ("/resources?of=city:99", 404, "the journal has no event"),
        ("/api/resources", 400, "say which"),
        ("/sinks/nobody", 404, "there is no sink"),
        ("/events?topic=SMS", 400, "is not a word"),
        ("/events?text=" + "x" * 201, 400, "at most 200 characters"),
        ("/events?before=x", 400, "an event is named by its position"),
        ("/sinks/crm?state=lost", 400, "waiting or dead"),
        ("/sinks/crm?reason=lost", 400, "permanent"),
        ("/sinks/crm?code=5", 400, "an HTTP status"),
        ("/sinks/crm?since=soon", 400, "is no time"),
        ("/sinks/crm?after=x", 400, "no mark of a page"),
        ("/sinks/crm?after=ops/1.0/city:1", 400, "the mark is of another sink"),
        ("/static/other.css", 404, "there is no such file"),
        ("/live/sinks/nobody", 404, "there is no sink"),
    ],
)
async def test_what_cannot_be_shown_is_said(tmp_path: Path, path: str, status: int, said: str) -> None:
    async with console(tmp_path) as browser:
        answer, text = await browser.get(path)
        assert (answer, said in text) == (status, True)


async def test_stream_sends_what_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "LIVE_SECONDS", 0.05)
    monkeypatch.setattr(site, "MAX_STREAMS", 1)
    async with console(tmp_path) as browser, browser.session.get(f"{browser.origin}/live/events") as response:
        first = await response.content.readline()
        assert b"city:7" in first
        assert (await browser.get("/live/events"))[0] == 503  # no more streams than that
        await browser.parts.store.commit(None, Commit("city", events=[event(8)]))
        async with asyncio.timeout(30):
            while b"city:8" not in await response.content.readline():
                pass


async def test_unreachable_store_and_empty_store_have_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with console(tmp_path, full=False) as browser:
        for path in ("/", "/sources", "/sinks", "/events"):
            assert (await browser.get(path))[0] == 200
        facts = browser.console._facts
        await facts.close()
        (tmp_path / "state" / "bridge.db").rename(tmp_path / "state" / "elsewhere.db")
        facts._kept.clear()
        status, page = await browser.get("/")
        assert status == 200
        assert "wrong" in page
        status, page = await browser.get("/events")
        assert (status, "the store is not ready yet" in page) == (503, True)
        assert (await browser.get("/api/events"))[0] == 503
