"""What the polite client remembers of pages, and asks for again only if they changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from bridge.http.client import HttpLimits
from bridge.http.errors import ProviderError


async def test_unmodified_page_is_not_resent_but_still_read(far, time, open_client):
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"1"':
            assert request.headers["If-Modified-Since"] == "Wed, 01 May 2024 12:00:00 GMT"
            return web.Response(status=304)
        return web.Response(
            text="[1]",
            headers={"ETag": '"1"', "Last-Modified": "Wed, 01 May 2024 12:00:00 GMT", "Link": "<?p=2>;rel=next"},
        )

    far.answer = answer
    client = open_client()
    first = await client.get("/a")
    time.seconds += 60
    second = await client.get("/a")
    other = await client.get("/b")
    assert [first.unchanged, second.unchanged, other.unchanged] == [False, True, False]
    assert second.json() == [1]
    assert second.link("next") == first.link("next")
    assert second.at - first.at == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=1))


@pytest.mark.parametrize(
    "body", [b'[{"id": 9, "sta', b"<html>", b"", b'{"error": "later"}'], ids=["torn", "html", "nothing", "shape"]
)
async def test_unusable_answer_is_requested_whole_next_time(far, open_client, body):
    bodies = [body, b"[1]"]

    async def answer(request):
        if "If-None-Match" in request.headers:
            return web.Response(status=304)
        return web.Response(body=bodies.pop(0), headers={"ETag": '"7"'})

    far.answer = answer
    client = open_client()
    first = await client.get("/a")
    with pytest.raises(ProviderError, match=r"GET /a: "):
        raise first.refused(f"{first.json()} is no list")
    assert (await client.get("/a")).json() == [1]
    first.forget()
    assert (await client.get("/a")).unchanged


async def test_a_client_without_a_memory_makes_no_conditional_request(far, open_client):
    far.says(lambda: web.Response(body=b"", headers={"ETag": '"1"'}))
    client = open_client(limits=HttpLimits(memory=0))
    for _ in range(2):
        await client.get("/a")
    assert not any("If-None-Match" in request.headers for request in far.requests)


async def test_unmodified_page_has_current_time_and_links(far, open_client):
    far.says(
        web.Response(
            text="[1]", headers={"ETag": '"1"', "Date": "Wed, 01 May 2024 12:00:00 GMT", "Link": "</2>;rel=next"}
        ),
        web.Response(status=304, headers={"Date": "Wed, 01 May 2024 12:05:00 GMT"}),
        web.Response(status=304, headers={"Date": "Wed, 01 May 2024 12:06:00 GMT", "Link": "</3>;rel=next"}),
    )
    client = open_client()
    _, second, third = [await client.get("/a") for _ in range(3)]
    assert (second.headers["Date"], second.link("next")) == ("Wed, 01 May 2024 12:05:00 GMT", f"{far.url}2")
    assert (third.headers["Date"], third.link("next")) == ("Wed, 01 May 2024 12:06:00 GMT", f"{far.url}3")
    assert third.json() == [1]


async def test_second_change_within_one_second_is_noticed(far, open_client):
    modified = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
    body, date = ["first"], [modified]

    async def answer(request: web.Request) -> web.Response:
        headers = {
            name: format_datetime(when, usegmt=True) for name, when in (("Date", date[0]), ("Last-Modified", modified))
        }
        if request.headers.get("If-Modified-Since") == headers["Last-Modified"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body[0], headers=headers)

    far.answer = answer
    client = open_client()
    assert (await client.get("/a")).body == b"first"
    body[0] = "second"
    date[0] += timedelta(seconds=60)
    assert (await client.get("/a")).body == b"second"
    again = await client.get("/a")
    assert (again.body, again.unchanged) == (b"second", True)


async def test_what_is_remembered_is_bounded_in_bytes(far, open_client):
    far.says(lambda: web.Response(body=b"x" * 100, headers={"ETag": '"1"'}))
    client = open_client(limits=HttpLimits(memory=400))
    for page in (1, 2, 3, 4, 1, 5, 1, 2):
        await client.get(f"/{page}")
    conditional = ["If-None-Match" in request.headers for request in far.requests]
    assert conditional == [False, False, False, False, True, False, True, False]
    far.says(lambda: web.Response(body=b"x" * 101, headers={"ETag": '"2"'}))
    await client.get("/2")
    await client.get("/2")
    assert ["If-None-Match" in request.headers for request in far.requests[-2:]] == [True, False]
