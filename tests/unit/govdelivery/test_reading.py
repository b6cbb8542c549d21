"""GovDelivery: what is read, when, in which order, and how much at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from datetime import timedelta

import pytest
from aiohttp import web
from pydantic import ValidationError
from rigs.govdelivery import (
    HOUR,
    S1,
    START,
    TOKEN,
    Bridge,
    Tms,
    made,
    person,
    put,
    stamp,
)

from bridge.domain import errors
from bridge.domain.clock import Clock
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.sources.govdelivery import GovDelivery, GovDeliverySettings


async def test_recipients_are_not_read_again_while_the_counts_stand(tms, open_bridge):
    tms.message(S1)
    tms.people(S1, person(S1, 1), person(S1, 2))
    bridge = open_bridge(messages=[S1], interval="10s")
    await bridge.poll()
    for _ in range(3):
        bridge.later(10)
        assert await bridge.poll() == []
    assert (tms.count(S1), tms.count(f"{S1}/recipients")) == (4, 1)
    bridge.later(10)
    tms.people(S1, person(S1, 1), person(S1, 2, "sending"))
    assert await bridge.poll() == [("sms.recipient.sending", f"{S1}/recipients/2")]
    observed = bridge.events[-1][3].observed
    assert observed.after == START
    assert START + timedelta(seconds=40) <= observed.by


async def test_two_opposite_changes_are_found_though_no_count_moves(tms, open_bridge):
    tms.message(S1)
    tms.people(S1, person(S1, 1, "sent"), person(S1, 2, "failed"))
    bridge = open_bridge(messages=[S1], interval="10s", reread_every="1m")
    await bridge.poll()
    tms.people(S1, person(S1, 1, "failed"), person(S1, 2, "sent"))
    published = []
    for _ in range(6):
        bridge.later(10)
        published += await bridge.poll()
    assert published == [("sms.recipient.failed", f"{S1}/recipients/1"), ("sms.recipient.sent", f"{S1}/recipients/2")]


async def test_completed_message_is_read_once_more_at_its_end(tms, time, open_bridge):
    tms.message(S1, "completed", completed_at=stamp(START))
    tms.people(S1, person(S1, 1, "sent"), person(S1, 2, "failed"))
    tms.at |= {"/messages/sms": [tms.at[S1]], "/messages/voice": []}
    bridge = open_bridge(discover=True, follow_for="1h", interval="1m", reread_every="9h")
    await bridge.poll()
    tms.people(S1, person(S1, 1, "failed"), person(S1, 2, "sent"))
    published = []
    for _ in range(70):
        bridge.later(60)
        published += await bridge.poll()
    assert published == [("sms.recipient.failed", f"{S1}/recipients/1"), ("sms.recipient.sent", f"{S1}/recipients/2")]
    assert tms.count(S1) < 50  # of 70 polls
    asked = tms.count(S1)
    for _ in range(40):
        bridge.later(3600)
        assert await bridge.poll() == []
    assert tms.count(S1) == asked
    assert S1 not in bridge.cursor


async def test_a_message_without_counts_is_read_at_every_look(tms, open_bridge):
    tms.message(S1, "new")
    tms.at[f"{S1}/recipients"] = [person(S1, 1)]
    bridge = open_bridge(messages=[S1], interval="10s")
    await bridge.poll()
    bridge.later(10)
    tms.at[f"{S1}/recipients"] = [person(S1, 1, "sending")]
    assert await bridge.poll() == [("sms.recipient.sending", f"{S1}/recipients/1")]


async def test_counts_written_as_text_are_counts(tms, open_bridge):
    tms.message(S1, recipient_counts={"total": "1", "new": "1", "odd": None})
    tms.at[f"{S1}/recipients"] = [person(S1, 1)]
    bridge = open_bridge(messages=[S1], interval="10s")
    await bridge.poll()
    bridge.later(10)
    await bridge.poll()
    assert tms.count(f"{S1}/recipients") == 1
    assert bridge.events[0][3].recipient_counts == {"total": 1, "new": 1}


async def test_list_being_built_is_read_later_not_as_empty(tms, open_bridge):
    tms.message(S1)
    tms.people(S1, person(S1, 1))
    people = tms.at[f"{S1}/recipients"]
    tms.at[f"{S1}/recipients"] = lambda: web.Response(status=202, headers={"Retry-After": "15"})
    bridge = open_bridge(messages=[S1], interval="10s")
    assert await bridge.poll() == [("sms.message.sending", S1)]
    assert bridge.source.problems == []
    bridge.later(10)
    assert await bridge.poll() == []
    assert tms.count(f"{S1}/recipients") == 1
    bridge.later(10)
    tms.at[f"{S1}/recipients"] = people
    assert await bridge.poll() == [("sms.recipient.new", f"{S1}/recipients/1")]


async def test_a_message_still_being_built_is_asked_later(tms, open_bridge):
    tms.at[S1] = 202
    bridge = open_bridge(messages=[S1], interval="10s")
    assert await bridge.poll() == []
    bridge.later(10)
    tms.message(S1)
    tms.people(S1)
    assert await bridge.poll() == [("sms.message.sending", S1)]


@pytest.mark.parametrize(
    "link",
    [
        '<{S1}/recipients?page=2>; rel="next"',
        '<{url}messages/sms/1/recipients?page=2>; rel="next", <{S1}/recipients>; rel="first"',
        "< {S1}/recipients?page=2>;rel=next,",
        '<?page=2>; rel="next",<?page=2>; rel="last"',
    ],
)
async def test_every_recipient_page_is_read_with_any_link_form(tms, open_bridge, link):
    tms.message(S1, recipient_counts={"total": 2})
    tms.at[f"{S1}/recipients"] = ([person(S1, 1)], link.format(S1=S1, url=tms.url))
    tms.at[f"{S1}/recipients?page=2"] = ([person(S1, 2)], "")
    assert len(await open_bridge(messages=[S1]).poll()) == 3


def crowd(tms: Tms, message: str, pages: int, status: str = "new") -> None:
    tms.message(message, recipient_counts={"total": pages * 50, status: pages * 50})
    for page in range(pages):
        people = [person(message, page * 50 + number, status) for number in range(50)]
        link = f'<{message}/recipients?page={page + 1}>; rel="next"' if page + 1 < pages else ""
        tms.at[f"{message}/recipients?page={page}" if page else f"{message}/recipients"] = (people, link)


async def test_pages_wait_for_their_reader_and_are_not_piled_up(tms, open_bridge):
    crowd(tms, S1, 40)
    bridge = open_bridge(messages=[S1])
    async with aclosing(bridge.source.pages({}, ())) as pages:
        read = [await anext(pages) for _ in range(3)]
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert len(read) == 3
    assert len(tms.asked) < 10
    assert len(asyncio.all_tasks()) <= 3  # nobody goes on working for a reader who left


async def test_huge_message_continues_at_next_poll_without_losses(tms, open_bridge):
    bridge = open_bridge(messages=[S1], interval="10s")
    tms.message(S1, recipient_counts={"total": 0})
    tms.at[f"{S1}/recipients"] = []
    await bridge.poll()
    crowd(tms, S1, 10)
    tms.takes[f"{S1}/recipients"] = 25.0
    polls = 0
    bridge.later(10)
    while "swept" not in json.loads(bridge.cursor[S1]) or json.loads(bridge.cursor[S1]).get("counts") == {"total": 0}:
        await bridge.poll()
        polls += 1
        assert polls < 10
        assert bridge.source.behind == ("sweep" in json.loads(bridge.cursor[S1]))
    assert polls == 4
    assert len(bridge.events) == 501
    assert tms.count(f"{S1}/recipients") == 11


async def test_very_first_poll_reads_everything_without_deadline(tms, open_bridge):
    crowd(tms, S1, 10)
    tms.takes[f"{S1}/recipients"] = 25.0
    bridge = open_bridge(messages=[S1], interval="10s")
    assert len(await bridge.poll()) == 501
    assert not bridge.source.behind


async def test_what_is_new_does_not_wait_for_what_is_huge(tms, open_bridge):
    bridge = open_bridge(messages=[S1], interval="10s", concurrency=1)
    tms.message(S1, recipient_counts={"total": 0})
    tms.at[f"{S1}/recipients"] = []
    await bridge.poll()
    crowd(tms, S1, 20)
    tms.takes[f"{S1}/recipients"] = 25.0
    bridge.later(10)
    await bridge.poll()
    put(tms, made(2, HOUR))
    tms.asked.clear()
    await bridge.poll("/messages/sms/2")
    assert tms.asked[0] == "/messages/sms/2"


async def test_asked_twice_from_one_cursor_it_yields_the_same(tms, open_bridge):
    crowd(tms, S1, 3)
    bridge = open_bridge(messages=[S1])

    async def all_pages() -> list[tuple[str, str]]:
        async with aclosing(bridge.source.pages({}, ())) as pages:
            return [(observation.key, observation.status) async for page in pages for observation in page.observations]

    assert await all_pages() == await all_pages()


@pytest.mark.parametrize("hours", [30 * 24, 2, 0.1])
async def test_a_clock_set_back_puts_nothing_off(tms, open_bridge, hours):
    tms.message(S1)
    tms.people(S1, person(S1, 1, "sending"))
    bridge = open_bridge(messages=[S1])
    await bridge.poll()
    bridge.later(-hours * HOUR)
    tms.at[S1]["status"] = "completed"
    tms.people(S1, person(S1, 1, "sent"))
    assert await bridge.poll() == [("sms.message.completed", S1), ("sms.recipient.sent", f"{S1}/recipients/1")]


async def test_clock_set_back_during_poll_delays_nothing(tms, time, open_bridge):
    tms.message(S1)
    tms.people(S1, person(S1, 1, "sending"))
    tms.at["/messages/sms"] = []
    bridge = open_bridge(messages=[S1], discover=True, channels=["sms"])
    await bridge.poll()

    def set_back() -> list[object]:
        time.set_by -= 2 * HOUR
        tms.at["/messages/sms"] = []
        return []

    tms.at["/messages/sms"] = set_back
    bridge.later(60)
    tms.people(S1, person(S1, 1, "failed"))
    assert await bridge.poll() == [("sms.recipient.failed", f"{S1}/recipients/1")]
    assert tms.at["/messages/sms"] == []
    bridge.later(60)
    tms.people(S1, person(S1, 1, "sent"))
    assert await bridge.poll() == [("sms.recipient.sent", f"{S1}/recipients/1")]


@pytest.mark.parametrize("hours", [0.5, 23, 46, 29 * 24])
async def test_a_clock_set_ahead_puts_nothing_off(tms, time, open_bridge, hours):
    tms.message(S1)
    tms.people(S1, person(S1, 1, "sending"))
    bridge = open_bridge(messages=[S1], discover=False, interval="10s")
    for _ in range(3):
        await bridge.poll()
        bridge.later(10)
    time.set_by += hours * HOUR
    await bridge.poll()
    bridge.later(5)
    tms.people(S1, person(S1, 1, "failed"))
    reads = 0
    while not await bridge.poll():
        bridge.later(5)
        reads += 1
        assert reads < 10


@pytest.mark.parametrize(("status", "days"), [("completed", 5), ("sending", 40)])
async def test_message_ended_by_a_clock_ahead_is_followed_again(tms, time, open_bridge, status, days):
    listed = tms.message(S1, status, **({"completed_at": stamp(START)} if status == "completed" else {}))
    tms.at["/messages/sms"] = [dict(listed)]
    tms.people(S1, person(S1, 1, "sent"))
    bridge = open_bridge(discover=True, channels=["sms"])
    await bridge.poll()
    time.set_by += days * 24 * HOUR
    await bridge.poll()
    assert json.loads(bridge.cursor[S1])["over"] > START.timestamp() + days * 24 * HOUR - 1
    bridge.later(60)
    time.set_by = 0.0
    tms.people(S1, person(S1, 1, "failed"))
    assert await bridge.poll() == [("sms.recipient.failed", f"{S1}/recipients/1")]
    assert "over" not in json.loads(bridge.cursor[S1])


@pytest.mark.parametrize(
    ("text", "channels", "path"),
    [
        ("10507", ["voice"], "/messages/voice/10507"),
        ("/messages/voice/10507", ["sms", "voice"], "/messages/voice/10507"),
        ("messages/voice/10507/", ["sms", "voice"], "/messages/voice/10507"),
        ("https://tms.govdelivery.com/messages/sms/1?page=2", ["sms", "voice"], "/messages/sms/1"),
        ("/messages/sms/1/recipients/3", ["sms"], "/messages/sms/1/recipients/3"),
    ],
)
def test_a_message_is_named_by_id_or_path(text, channels, path):
    settings = GovDeliverySettings(type="govdelivery", token=TOKEN, channels=channels, messages=[text])
    assert GovDelivery("x", settings, Clock()).resource(text) == path


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"messages": ["10507"]}, "give its path, such as /messages/voice/10507"),
        ({"messages": ["/messages/voice/1"], "channels": ["sms"]}, "is not of the channels sms"),
        ({"messages": ["hello world"]}, "not the path of a message"),
        ({"messages": ["http://[::1/messages/sms/1"]}, "not the path of a message"),
        ({"url": "tms.govdelivery.com"}, "is not an address"),
        ({"url": "https://me:pw@tms.govdelivery.com"}, "has neither a user nor a query"),
        ({"url": "http://[::1"}, "is not an address"),
        ({"statuses": {"x": "y"}}, "'y' is not one of blacklisted, "),
        ({"channels": []}, "at least 1"),
        ({"channels": ["email"]}, "'sms' or 'voice'"),
        ({"page_size": 101}, "less than or equal to 100"),
        ({"tokens": "x"}, "Extra inputs"),
    ],
)
def test_a_setting_that_makes_no_sense_is_said_so(settings, words):
    with pytest.raises(ValidationError, match=words):
        GovDeliverySettings(type="govdelivery", token=TOKEN, **settings)


def test_statuses_outlast_their_followed_message():
    settings = GovDeliverySettings(type="govdelivery", token=TOKEN)
    assert settings.follow_for == 72 * HOUR
    assert GovDelivery("x", settings, Clock()).retention >= settings.follow_for + 30 * 24 * HOUR


@pytest.mark.parametrize(
    "links",
    [
        {"self": "/", "sms_messages": "/messages/sms", "voice_messages": "https://tms.example/messages/voice/"},
        [{"self": "/"}, {"sms_messages": "/messages/sms"}, {"voice_messages": "/messages/voice"}, None],
    ],
)
async def test_the_probe_tells_the_channels_and_the_price(tms, open_bridge, links):
    tms.at["/"] = {"_links": links}
    probe = await open_bridge(discover=True).source.probe()
    assert probe.summary == "127.0.0.1 takes the token; channels sms, voice"
    assert probe.requests_per_day == 2 * 2 * 2880


async def test_probe_names_a_channel_missing_from_the_account(tms, open_bridge):
    tms.at["/"] = {"_links": {"sms": "/messages/sms"}}
    assert "it names no voice: take it out of channels" in (await open_bridge().source.probe()).summary


async def test_the_probe_does_without_a_root(tms, open_bridge):
    tms.at["/messages/sms"] = []
    assert "channels sms, voice" in (await open_bridge().source.probe()).summary
    tms.at["/messages/sms"] = 403
    with pytest.raises(errors.Unauthorized):
        await open_bridge().source.probe()


async def test_rotated_token_is_used_at_once_and_loss_reported(tms, time, tmp_path):
    file = tmp_path / "token"
    file.write_text("one\n")
    settings = GovDeliverySettings.model_validate(
        {"type": "govdelivery", "url": tms.url, "token_file": str(file), "discover": False, "messages": [S1]}
    )
    source = GovDelivery("x", settings, time.clock)
    tms.message(S1)
    tms.people(S1)
    await Bridge(tms, source).poll()
    file.write_text("another\n")
    await Bridge(tms, source).poll()
    assert set(tms.tokens) == {"one", "another"}
    await source.close()
    settings = GovDeliverySettings.model_validate(
        {"type": "x", "url": tms.url, "token_file": str(file), "messages": [S1]}
    )
    assert GovDelivery("y", settings, time.clock).account == source.account
    object.__setattr__(settings.token, "_stamp", None)
    file.unlink()
    lost = GovDelivery("y", settings, time.clock).account
    assert lost == GovDelivery("z", settings, time.clock).account != source.account
    with pytest.raises(errors.Unauthorized, match="the token's file cannot be read"):
        await Bridge(tms, GovDelivery("x", settings, time.clock)).poll()


@pytest.mark.parametrize("discover", [True, False])
async def test_govdelivery_stops_asking_after_losing_its_lease(tms, open_bridge, discover):
    lease_deadline = LeaseDeadline("source/city", 1e9)

    what = {"/": {"_links": [{"sms": "/messages/sms"}]}, "/messages/sms": [], "/messages/sms/1": tms.message("/x")}

    def ends():
        lease_deadline.until = -1e9
        return what[tms.asked[-1].partition("?")[0]]

    tms.at |= dict.fromkeys(what, ends)
    named = ["/messages/sms/1", "/messages/sms/2"]
    bridge = open_bridge(channels=["sms", "voice"], discover=discover, messages=named, concurrency=1)
    held = bind(lease=lease_deadline)
    try:
        with pytest.raises(errors.LeaseLost):
            await bridge.poll()
    finally:
        reset(held)
    assert len(tms.asked) == 1
