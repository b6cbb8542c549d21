"""GovDelivery: answers that fail, lists that end nowhere, and items that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from rigs.govdelivery import (
    HOUR,
    S1,
    S2,
    START,
    V1,
    Tms,
    made,
    person,
    put,
    stamp,
    topics,
)

from bridge.domain import errors
from bridge.http.errors import Throttled
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.protocols.source import Observation
from bridge.sources.govdelivery.api import Outage


@pytest.mark.parametrize(
    "broken",
    [
        500,
        400,
        404,
        "[{",
        "<html>",
        "",
        "{}",
        lambda: web.Response(status=302, headers={"Location": "/"}),
    ],
)
async def test_a_page_that_failed_half_way_is_not_the_end(tms, open_bridge, broken):
    tms.message(S1, recipient_counts={"total": 2})
    tms.message(S2)
    tms.people(S2, person(S2, 1))
    tms.at[f"{S1}/recipients"] = ([person(S1, 1)], '<?page=2>; rel="next"')
    tms.at[f"{S1}/recipients?page=2"] = broken
    bridge = open_bridge(messages=[S1, S2], interval="10s", concurrency=1)
    assert sorted(await bridge.poll()) == [
        ("sms.message.sending", S1),
        ("sms.message.sending", S2),
        ("sms.recipient.new", f"{S1}/recipients/1"),
        ("sms.recipient.new", f"{S2}/recipients/1"),
    ]
    assert len(bridge.source.problems) == 1
    assert f"{S1}/recipients" in bridge.source.problems[0]
    assert "swept" not in json.loads(bridge.cursor[S1])
    tms.at[f"{S1}/recipients?page=2"] = [person(S1, 2)]
    bridge.later(10)
    assert await bridge.poll() == [("sms.recipient.new", f"{S1}/recipients/2")]
    assert "swept" in json.loads(bridge.cursor[S1])
    assert bridge.source.problems == []


async def test_a_failing_message_is_tried_ever_more_seldom_and_recovers(tms, open_bridge):
    tms.at[S1] = 500
    tms.message(S2)
    tms.people(S2)
    bridge = open_bridge(messages=[S1, S2], interval="10s")
    for _ in range(60):
        await bridge.poll()
        bridge.later(10)
    assert 5 <= tms.count(S1) <= 12
    tms.message(S1)
    tms.people(S1)
    bridge.later(900)
    await bridge.poll()
    assert "failures" not in json.loads(bridge.cursor[S1])


async def test_new_process_tries_a_failing_message_at_once(tms, open_bridge):
    tms.at[S1] = 401
    tms.message(S2)
    tms.people(S2)
    before = open_bridge(messages=[S1, S2], interval="10s")
    for _ in range(30):
        await before.poll()
        before.later(10)
    tms.message(S1)
    tms.people(S1)
    settings = open_bridge(messages=[S1, S2], interval="10s")
    settings.cursor = before.cursor
    await settings.poll()
    assert "failures" not in json.loads(settings.cursor[S1])


async def test_missing_message_is_reported_and_finally_left_alone(tms, open_bridge):
    tms.message(S1)
    tms.people(S1)
    tms.at |= {"/messages/sms": [tms.at[S1]], "/messages/voice": []}
    bridge = open_bridge(discover=True, interval="10s")
    await bridge.poll()
    del tms.at[S1]
    count_response = []
    for _ in range(300):
        bridge.later(10)
        await bridge.poll()
        count_response += bridge.source.problems
    assert len(count_response) == 7
    assert "no longer followed" in count_response[-1]
    assert tms.count(S1) == 7


async def test_missing_named_message_is_never_abandoned(tms, open_bridge):
    tms.message(S2)
    tms.people(S2)
    bridge = open_bridge(messages=[S1, S2], interval="10s")
    for _ in range(20):
        await bridge.poll()
        bridge.later(900)
    assert bridge.source.problems
    tms.message(S1)
    tms.people(S1)
    bridge.later(900)
    assert await bridge.poll() == [("sms.message.sending", S1)]


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_end_the_poll_at_once(tms, open_bridge, status):
    tms.at |= {"/messages/sms": status, S1: status}
    for bridge in (open_bridge(discover=True), open_bridge(messages=[S1])):
        with pytest.raises(errors.Unauthorized):
            await bridge.poll()
        assert bridge.cursor == {}


@pytest.mark.parametrize("wish", ["40", format_datetime(START + timedelta(seconds=40), usegmt=True)])
async def test_a_provider_that_asks_for_quiet_gets_it(tms, open_bridge, wish):
    tms.at |= {S1: lambda: web.Response(status=429, headers={"Retry-After": wish}), S2: 500}
    bridge = open_bridge(messages=[S1, S2], concurrency=1)
    with pytest.raises(Throttled) as caught:
        await bridge.poll()
    assert caught.value.retry_after == pytest.approx(40, abs=1)
    assert tms.asked == [S1]
    with pytest.raises(Throttled):
        await bridge.poll()
    assert tms.asked == [S1]


async def test_a_provider_that_fails_as_a_whole_ends_the_poll(tms, open_bridge):
    paths = [f"/messages/sms/{number}" for number in range(20)]
    tms.at |= dict.fromkeys(paths, 500)
    bridge = open_bridge(messages=paths, concurrency=2)
    with pytest.raises(Outage, match="several requests in a row failed; the last: GET /messages/sms/"):
        await bridge.poll()
    assert len(tms.asked) < 6


async def test_a_poll_in_which_nothing_was_answered_failed(tms, open_bridge):
    tms.at[S1] = 500
    with pytest.raises(errors.Transient, match=f"GET {S1}: 500"):
        await open_bridge(messages=[S1]).poll()
    with pytest.raises(errors.Transient, match="cannot connect"):
        await open_bridge(messages=[S1], url=f"http://127.0.0.1:{unused_port()}").poll()


@pytest.mark.parametrize("refusal", [302, 400])
async def test_a_provider_that_refuses_everything_is_a_failing_source(tms, open_bridge, refusal):
    tms.at |= {S1: refusal, V1: refusal, "/": refusal}
    with pytest.raises(errors.Permanent, match=str(refusal)):
        await open_bridge(messages=[S1, V1]).poll()


async def test_the_token_never_follows_a_link_to_another_server(tms, time, open_bridge):
    evil = Tms(time)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", evil.handle)
    async with TestServer(app) as server:
        foreign = str(server.make_url("/messages/sms/1/recipients?page=2"))
        tms.message(S1)
        tms.people(S1, person(S1, 1))
        tms.at[f"{S1}/recipients"] = ([person(S1, 1)], f'<{foreign}>; rel="next"')
        tms.at |= {"/messages/sms": ([], f'<{foreign}>; rel="next"'), "/messages/voice": []}
        bridge = open_bridge(messages=[S1], discover=True)
        assert ("sms.recipient.new", f"{S1}/recipients/1") in await bridge.poll()
    assert evil.asked == []
    assert "/messages/sms/1/recipients?page=2" in tms.asked


async def test_circular_links_end_where_they_began(tms, open_bridge):
    tms.message(S1, recipient_counts={"total": 3})
    tms.at[f"{S1}/recipients"] = ([person(S1, 1)], '<?page=2>; rel="next"')
    tms.at[f"{S1}/recipients?page=2"] = ([person(S1, 2)], '<?page=2>; rel="next"')
    bridge = open_bridge(messages=[S1])
    assert len(await bridge.poll()) == 3
    assert len(tms.asked) == 3
    assert bridge.source.problems == [
        f"{S1}: the list's next link leads back to a page that was read; treated as its end",
        f"{S1}: 2 recipients are listed, 3 are counted",
    ]


async def test_items_that_cannot_be_read_are_passed_over_and_reported(tms, open_bridge):
    tms.message(S1, "", recipient_counts={"total": 9})
    tms.at[f"{S1}/recipients"] = [
        None, 5, "x", [], {}, person(S1, 1, None), person(S1, 2) | {"_links": None}, person(S1, 3) | {"_links": {"self": 5}},
        person(S1, 4) | {"_links": {}, "id": 4},
        person(S1, 5) | {"_links": {"self": f"{tms.url}messages/sms/1/recipients/5/"}},
        person("/messages/sms/15282", 6),
        person(S1, 7),
    ]  # fmt: skip
    bridge = open_bridge(messages=[S1])
    assert [subject for _, subject in await bridge.poll()] == [
        f"{S1}/recipients/4", f"{S1}/recipients/5", "/messages/sms/15282/recipients/6", f"{S1}/recipients/7",
    ]  # fmt: skip
    assert bridge.source.problems == [
        f"{S1}: the message has no status, so nothing is said of it",
        f"{S1}: 8 recipients of a page have no status or no identity: passed over",
    ]


@pytest.mark.parametrize("shape", [[], 5, "null", '"x"'])
async def test_message_that_is_no_object_fails_alone(tms, open_bridge, shape):
    tms.at[S1] = shape if shape != 5 else "5"
    tms.message(S2)
    tms.people(S2)
    bridge = open_bridge(messages=[S1, S2])
    assert await bridge.poll() == [("sms.message.sending", S2)]
    assert bridge.source.problems[0].startswith(f"GET {S1}: the provider answered no JSON object")


async def test_lists_without_end_are_given_up(tms, open_bridge, monkeypatch):
    monkeypatch.setattr("bridge.sources.govdelivery.discovery.MAX_PAGES", 5)
    monkeypatch.setattr("bridge.sources.govdelivery.recipients.MAX_PAGES", 5)
    page_numbers = iter(range(100, 1000))

    def endless() -> web.Response:
        number = next(page_numbers)
        put(tms, made(number, HOUR))
        return web.json_response([made(number, HOUR)], headers={"Link": f'<?page={number}>; rel="next"'})

    def people() -> web.Response:
        return web.json_response([], headers={"Link": f'<?page={next(page_numbers)}>; rel="next"'})

    tms.at |= {"/messages/sms": endless, f"{S2}/recipients": people}
    tms.message(S2)
    bridge = open_bridge(messages=[S2], discover=True, channels=["sms"])
    await bridge.poll()
    assert bridge.source.problems == [
        "/messages/sms: the list has more than 5 pages; the rest is not read",
        f"{S2}: the list's next link leads beyond 5 pages; treated as its end",
    ]


async def test_a_missing_collection_of_calls_costs_the_detail_alone(tms, open_bridge):
    tms.message(V1, recipient_detail_counts={"human": 1})
    tms.people(V1, person(V1, 1, "sent", completed_at=stamp(START - timedelta(minutes=5))))
    bridge = open_bridge(messages=[V1])
    assert ("voice.recipient.sent", f"{V1}/recipients/1") in await bridge.poll()
    assert all("stay without this detail" in problem for problem in bridge.source.problems)
    assert "swept" in json.loads(bridge.cursor[V1])


async def test_a_defect_is_not_hidden_behind_a_problem(tms, open_bridge, monkeypatch):
    tms.message(S1)
    tms.people(S1, person(S1, 1))
    bridge = open_bridge(messages=[S1])
    bridge.source._kinds = {}
    with pytest.raises(KeyError):
        await bridge.poll()


@pytest.mark.parametrize(
    "odd",
    [
        {"status": "completed", "completed_at": "9999-12-31T23:59:59Z"},
        {"created_at": "9999-12-31T23:59:59Z"},
        {"recipient_counts": {"total": 10**320, "new": -5, "sent": 1e308}},
    ],
)
async def test_absurd_number_or_time_stops_no_message(tms, open_bridge, odd):
    tms.message(S1, **odd)
    tms.at[f"{S1}/recipients"] = [person(S1, 1)]
    tms.message(S2)
    tms.people(S2, person(S2, 1))
    tms.at |= {"/messages/sms": [tms.at[S1], tms.at[S2]]}
    bridge = open_bridge(discover=True, channels=["sms"], concurrency=1, follow_for="1h")
    published = await bridge.poll()
    assert {subject for _, subject in published} == {S1, S2, f"{S1}/recipients/1", f"{S2}/recipients/1"}
    assert bridge.source.problems == []
    bridge.later(30)
    tms.people(S2, person(S2, 1, "sent"))
    assert await bridge.poll() == [("sms.recipient.sent", f"{S2}/recipients/1")]


async def test_message_completing_in_far_future_is_not_followed_forever(tms, open_bridge):
    tms.message(S1, "completed", completed_at="9999-12-31T23:59:59Z")
    tms.people(S1)
    tms.at["/messages/sms"] = [tms.at[S1]]
    bridge = open_bridge(discover=True, channels=["sms"], follow_for="1h")
    await bridge.poll()
    bridge.later(2 * 3600)
    await bridge.poll()
    assert json.loads(bridge.cursor[S1])["over"] is not None


async def test_unreadable_message_is_reported_and_others_are_read(tms, open_bridge, monkeypatch):
    tms.message(S1, recipient_counts={"odd": 1})
    tms.message(S2)
    tms.people(S2)

    def odd(value: Mapping[str, int] | None) -> Mapping[str, int] | None:
        if value and "odd" in value:
            raise OverflowError(f"too much: {value}")
        return value

    monkeypatch.setattr("bridge.sources.govdelivery.sweep.counts", odd)
    bridge = open_bridge(messages=[S1, S2], concurrency=1)
    assert await bridge.poll() == [("sms.message.sending", S2)]
    (count_response,) = bridge.source.problems
    assert count_response.startswith(f"{S1}: its answer cannot be read (OverflowError); failure 1, tried again in")
    assert json.loads(bridge.cursor[S1])["failures"] == 1


@pytest.mark.parametrize("channels", [["sms"], ["sms", "voice"]])
async def test_credentials_refused_for_one_message_cost_that_message_alone(tms, open_bridge, channels):
    tms.at |= {"/": {"_links": {}}, S1: 403, "/messages/voice": 403}
    tms.message(S2)
    tms.people(S2, person(S2, 1))
    for settings in ({"discover": True, "channels": channels}, {"messages": [S1, S2]}):
        tms.at["/messages/sms"] = [{"_links": {"self": S1}}, tms.at[S2]]
        bridge = open_bridge(concurrency=1, interval="10s", **settings)
        for _ in range(3):
            await bridge.poll()
            bridge.later(10)
        assert [topic for topic, *_ in bridge.events] == ["sms.message.sending", "sms.recipient.new"]
        assert json.loads(bridge.cursor[S1])["failures"] >= 2


async def test_credentials_withdrawn_during_a_poll_end_it(tms, open_bridge):
    paths = [f"/messages/sms/{number}" for number in range(20)]
    tms.at |= dict.fromkeys(paths, 401) | {"/": 401, "/messages/sms": [{"_links": {"self": path}} for path in paths]}
    bridge = open_bridge(discover=True, channels=["sms"], concurrency=2)
    with pytest.raises(errors.Unauthorized):
        await bridge.poll()
    assert len(tms.asked) <= 6


@pytest.mark.parametrize("root", [{"_links": {}}, 404])
async def test_many_messages_that_fail_keep_no_other_from_being_read(tms, open_bridge, root):
    bad = [f"/messages/sms/{number}" for number in range(100, 140)]
    tms.at |= dict.fromkeys(bad, 500) | {"/": root}
    tms.message(S1)
    tms.people(S1, person(S1, 1))
    tms.at["/messages/sms"] = [{"_links": {"self": path}, "created_at": stamp(START)} for path in (*bad, S1)]
    bridge = open_bridge(discover=True, channels=["sms"])
    assert await bridge.poll() == [("sms.message.sending", S1), ("sms.recipient.new", f"{S1}/recipients/1")]
    assert len(bridge.source.problems) == 40


@pytest.mark.parametrize("broken", [500, 202, 403, "<html>"])
async def test_unresponsive_call_collection_delays_no_event(tms, open_bridge, broken):
    bridge = open_bridge(messages=[V1])
    kind = bridge.source._kinds["voice"][1]
    others = [f"/messages/voice/{number}" for number in range(2, 7)]
    tms.at |= {"/": {"_links": {}}} | {f"{path}/recipients/busy": broken for path in others}
    tms.at[f"{V1}/recipients/busy"] = [person(V1, 1, "failed")]
    news = [Observation(kind, path, "1", "failed", {}, awaits_detail=True) for path in (*others, V1)]
    for _ in range(2):
        with pytest.raises(errors.Transient):
            await bridge.source.complete(news)
    assert [observation.detail for observation in await bridge.source.complete(news)] == [None] * 5 + ["busy"]
    assert len(bridge.source.problems) == 5
    assert all("stay without this detail" in problem for problem in bridge.source.problems)


@pytest.mark.parametrize("refused", [400, 302])
async def test_refused_call_collection_costs_only_the_detail(tms, open_bridge, refused):
    bridge = open_bridge(messages=[V1])
    kind = bridge.source._kinds["voice"][1]
    tms.at |= {f"{V1}/recipients/busy": refused, f"{V1}/recipients/no_answer": [person(V1, 2, "failed")]}
    news = [Observation(kind, V1, key, "failed", {}, awaits_detail=True) for key in ("1", "2")]
    assert [observation.detail for observation in await bridge.source.complete(news)] == [None, "no_answer"]


@pytest.mark.parametrize("broken", [404, 500, 202])
async def test_message_without_readable_recipients_is_left_after_its_time(tms, open_bridge, broken):
    tms.message(S1, "completed", completed_at=stamp(START))
    tms.message(S2)
    tms.people(S2)
    tms.at |= {f"{S1}/recipients": broken, "/messages/sms": [tms.at[S1]]}
    bridge = open_bridge(discover=True, channels=["sms"], messages=[S2], follow_for="4h")
    count_response = []
    for _ in range(36):
        await bridge.poll()
        count_response += bridge.source.problems
        bridge.later(600)
    assert "no longer followed" in count_response[-1]
    asked = tms.count(S1)
    bridge.later(3600)
    await bridge.poll()
    assert tms.count(S1) == asked


async def test_a_total_that_is_too_small_cuts_no_list(tms, open_bridge):
    tms.message(S1, recipient_counts={"total": 0})
    for page in range(1, 41):
        name = f"{S1}/recipients" + (f"?page={page}" if page > 1 else "")
        tms.at[name] = ([person(S1, page)], f'<?page={page + 1}>; rel="next"' if page < 40 else "")
    assert len(await open_bridge(messages=[S1]).poll()) == 41


async def test_endlessly_repeating_recipient_list_ends(tms, open_bridge):
    page_numbers = iter(range(2, 1000))

    def same() -> web.Response:
        return web.json_response([person(S1, 1)], headers={"Link": f'<?page={next(page_numbers)}>; rel="next"'})

    tms.message(S1)
    tms.at[f"{S1}/recipients"] = same
    bridge = open_bridge(messages=[S1])
    assert len(await bridge.poll()) == 2
    assert tms.count(f"{S1}/recipients") == 11
    assert bridge.source.problems == [
        f"{S1}: the list's next link has led to nobody new for 10 pages; treated as its end"
    ]
    assert "swept" in json.loads(bridge.cursor[S1])


@pytest.mark.parametrize(("relation", "read"), [("last", True), ("prev", True), ("next", False)])
async def test_unreadable_link_hides_nobody_on_its_page(tms, open_bridge, relation, read):
    link = f'<http://[::1>; rel="{relation}"'
    tms.message(S1)
    tms.people(S1, person(S1, 1))
    tms.at[f"{S1}/recipients"] = ([person(S1, 1)], link)
    tms.message(S2)
    tms.people(S2)
    tms.at["/messages/sms"] = ([tms.at[S2]], link)
    bridge = open_bridge(messages=[S1], discover=True, channels=["sms"])
    assert topics(await bridge.poll()) == [S1, f"{S1}/recipients/1", S2]
    assert len(bridge.source.problems) == (0 if read else 2)
    assert ("swept" in json.loads(bridge.cursor[S1]), "list:sms" in bridge.cursor) == (read, read)


@pytest.mark.parametrize("broken", [400, 500, 302, 202, 204, 403])
async def test_broken_call_collection_does_not_stop_recipient_reading(tms, open_bridge, broken):
    tms.message(V1, recipient_detail_counts={"human": 1, "machine": 0, "busy": 1, "no_answer": 0})
    ended = stamp(START - timedelta(minutes=1))
    people = [person(V1, 1, "sent", completed_at=ended), person(V1, 2, "failed", completed_at=ended)]
    tms.people(V1, *people)
    tms.at |= {f"{V1}/recipients/{detail}": [] for detail in ("machine", "no_answer", "could_not_connect")}
    tms.at |= {f"{V1}/recipients/human": people[:1], f"{V1}/recipients/busy": lambda: web.Response(status=broken)}
    bridge = open_bridge(messages=[V1], interval="10s")
    count_response = []
    for _ in range(70):
        await bridge.poll()
        count_response += bridge.source.problems
        bridge.later(10)
    assert sorted(topic for topic, *_ in bridge.events) == [
        "voice.message.sending", "voice.recipient.failed", "voice.recipient.sent.human",
    ]  # fmt: skip
    assert any("recipients/busy: " in line and "stay without this detail" in line for line in count_response)


async def test_failing_page_does_not_stop_rereading_earlier_pages(tms, open_bridge):
    tms.message(S1, recipient_counts={"total": 2})
    tms.at[f"{S1}/recipients"] = ([person(S1, 1)], '<?page=2>; rel="next"')
    tms.at[f"{S1}/recipients?page=2"] = 500
    bridge = open_bridge(messages=[S1], interval="10s")
    await bridge.poll()
    tms.at[f"{S1}/recipients"] = ([person(S1, 1, "failed")], '<?page=2>; rel="next"')
    published = []
    for _ in range(20):
        bridge.later(10)
        published += await bridge.poll()
    assert published == [("sms.recipient.failed", f"{S1}/recipients/1")]
    assert "swept" not in json.loads(bridge.cursor[S1])


async def test_a_lost_lease_ends_the_poll_and_blames_no_message(tms, time, open_bridge):
    tms.message(S1)
    tms.people(S1)
    tms.at["/messages/sms"] = [tms.at[S1]]
    for settings, asked in (({"discover": True, "channels": ["sms"]}, "/messages/sms"), ({"messages": [S1]}, S1)):
        tms.takes = {asked: 30.0}
        bridge = open_bridge(**settings)
        held = bind(lease=LeaseDeadline("source/city", time.seconds + 10.0))
        with pytest.raises(errors.LeaseLost):
            await bridge.poll()
        reset(held)
        assert bridge.source.problems == []
        assert all("failures" not in json.loads(entry) for entry in bridge.cursor.values())
