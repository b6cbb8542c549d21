"""Marketing Cloud: the position in the feed, and failures."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from rigs.marketingcloud import EXAMPLE, NOW, PATH, SECRET, Memory, sent
from yarl import URL

from bridge.domain import errors
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Lease
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.protocols.source import Page
from bridge.sources.marketingcloud import (
    MarketingCloudSettings,
)
from bridge.sources.shapes.feed_cursor import FeedCursor


@pytest.mark.parametrize("empty", ["list", "null", "absent", "none", "zero"])
@pytest.mark.parametrize("inclusive", [True, False], ids=["inclusive", "exclusive"])
@pytest.mark.parametrize("state", ["beyond", "echo", "absent", "zero", "held"])
async def test_every_event_is_read_once_whatever_the_watermark_means(vendor, bridge, state, inclusive, empty) -> None:
    vendor.watermark, vendor.inclusive, vendor.empty, vendor.page = state, inclusive, empty, 3
    vendor.events = [sent(number) for number in range(10, 80, 7)]
    poller = bridge()
    for known in (10, 10, 12):
        for number in range(10 + 7 * len(vendor.events), 10 + 7 * known, 7):
            vendor.events.append(sent(number))
        await poller.poll()
        assert poller.memory.numbers == list(range(10, 10 + 7 * known, 7))
    assert len(vendor.requests) < 30


async def test_short_pages_are_not_the_end(vendor, bridge) -> None:
    vendor.page = 1
    vendor.events = [sent(number) for number in range(1, 8)]
    poller = bridge(page_size=50)
    await poller.poll()
    assert poller.memory.numbers == list(range(1, 8))


async def test_an_object_with_nothing_in_it_is_empty(vendor, bridge) -> None:
    vendor.feed = [b"{}"]
    poller = bridge()
    await poller.poll()
    assert "sms.polled" in poller.memory.entries


async def test_the_watermark_is_carried_forward_and_not_the_highest_event(vendor, bridge) -> None:
    vendor.feed = [EXAMPLE.encode()]
    await bridge().poll()
    assert vendor.places() == [None, 35774]


@pytest.mark.parametrize("stated", [None, 0, "absent", 5, -1, "soon", {}, True])
async def test_an_empty_answer_never_moves_the_cursor_back(vendor, bridge, stated) -> None:
    memory = Memory(entries={"sms.last": "35774"})
    page = {"count": 0, "messages": []} | ({} if stated == "absent" else {"lastEventID": stated})
    vendor.feed = [json.dumps(page).encode()]
    poller = bridge(memory)
    result = await poller.poll()
    assert memory.entries["sms.last"] == "35774"
    assert vendor.places() == [35774]
    assert bool(result.problems) == (stated == 5)


async def test_an_empty_answer_may_move_the_cursor_on(vendor, bridge) -> None:
    memory = Memory(entries={"sms.last": "7"})
    vendor.feed = [b'{"lastEventID": "9", "messages": []}']
    await bridge(memory).poll()
    assert memory.entries["sms.last"] == "9"
    assert vendor.places() == [7]


async def test_stuck_watermark_keeps_the_cursor_and_hides_nothing(vendor, bridge) -> None:
    vendor.watermark, vendor.low = "held", 2
    vendor.events = [sent(number) for number in (1, 2, 5, 6)]
    poller = bridge(page_size=2)
    await poller.poll()
    assert poller.memory.numbers == [1, 2, 5, 6]
    assert poller.memory.entries["sms.last"] == "2"
    vendor.events.insert(2, sent(3))
    await poller.poll()
    assert poller.memory.numbers == [1, 2, 5, 6, 3]


async def test_repeated_events_of_one_message_are_published_once(vendor, bridge) -> None:
    vendor.watermark, vendor.low = "held", 1
    vendor.events = [sent(number, info={"messageKey": "same"}) for number in range(1, 301)]
    poller = bridge(page_size=100)
    for _ in range(3):
        await poller.poll()
    assert poller.memory.numbers == list(range(1, 301))


async def test_provider_repeating_one_page_is_left_alone(vendor, bridge) -> None:
    page = json.dumps({"lastEventID": 3, "messages": [sent(2), sent(3)]}).encode()
    vendor.feed = [page] * 100
    poller = bridge()
    await poller.poll()
    assert poller.memory.numbers == [2, 3]
    assert len(vendor.requests) == 2


async def test_endless_feed_continues_at_next_poll(vendor, bridge, monkeypatch) -> None:
    monkeypatch.setattr("bridge.sources.marketingcloud.source._MAX_PAGES", 3)
    vendor.events = [sent(number) for number in range(1, 11)]
    poller = bridge(page_size=2)
    await poller.poll()
    assert poller.memory.numbers == [1, 2, 3, 4, 5, 6]
    assert "sms.polled" not in poller.memory.entries
    assert poller.source.behind
    await poller.poll()
    assert poller.memory.numbers == list(range(1, 11))
    assert "sms.polled" in poller.memory.entries
    assert not poller.source.behind


async def test_unfinished_range_read_says_so(vendor, bridge, monkeypatch) -> None:
    monkeypatch.setattr("bridge.sources.marketingcloud.source._MAX_PAGES", 3)
    vendor.events = [sent(number) for number in range(1, 11)]
    source = bridge(page_size=2).source
    start = datetime(2018, 1, 1, tzinfo=UTC)
    seen = [
        observation
        for page in [page async for page in source.backfill(start, NOW)]
        for observation in page.observations
    ]
    assert [observation.occurrence_id for observation in seen] == ["1", "2", "3", "4", "5", "6"]
    assert source.problems == [
        "sms: the feed goes on after 3 pages of 2, which were read: a larger page_size reads more of it"
    ]
    with pytest.raises(errors.Transient, match="a larger page_size"):
        assert [page async for page in source.members(PATH.rstrip("/"), {})]
    whole = bridge(page_size=5).source
    assert [page async for page in whole.backfill(start, NOW)]
    assert whole.problems == []


@pytest.mark.parametrize("state", ["beyond", "echo", "absent", "zero", "held"])
@pytest.mark.parametrize("page_size", [1, 2])
async def test_an_inclusive_start_is_passed_whatever_the_page_size(vendor, bridge, state, page_size) -> None:
    vendor.inclusive, vendor.watermark = True, state
    vendor.events = [sent(number) for number in (1, 2, 3)]
    poller = bridge(page_size=page_size)
    await poller.poll()
    assert poller.memory.numbers == [1, 2, 3]
    vendor.events.append(sent(9))
    await poller.poll()
    assert poller.memory.numbers == [1, 2, 3, 9]


@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_garbage_id_moves_no_cursor_and_hides_nothing(vendor, bridge, start) -> None:
    page = {"messages": [sent(2), sent(3), sent(10**17)]}
    vendor.feed = [json.dumps(page).encode(), b'{"messages": []}']
    poller = bridge(start=start)
    await poller.poll()
    assert poller.memory.entries["sms.last"] == "3"
    vendor.events = [sent(4), sent(5)]
    await poller.poll()
    assert poller.memory.numbers == ([2, 3, 10**17] if start == "earliest" else []) + [4, 5]


@given(
    watermark=st.none() | st.integers(1, 50),
    pages=st.lists(st.tuples(st.none() | st.integers(1, 99), st.integers(0, 99), st.booleans()), max_size=300),
)
def test_the_cursor_only_moves_forward_and_every_walk_ends(watermark, pages) -> None:
    place = FeedCursor.at(watermark)
    asked = []
    for stated, highest, empty in pages:
        before = place.watermark or 0
        has_more = place.advance(stated, 0 if empty else highest, empty=empty)
        assert (place.watermark or 0) >= before
        if not has_more:
            break
        asked.append(place.position)
    assert asked == sorted(set(asked))
    assert len(asked) <= 99


async def test_crash_between_pages_resumes_after_the_last_commit(vendor, bridge) -> None:
    vendor.events = [sent(number) for number in range(1, 7)]
    memory = Memory()
    poller = bridge(memory, page_size=2)
    ok = vendor.answer
    vendor.answer = lambda request: ok(request) if len(vendor.requests) < 3 else web.Response(status=500)
    with pytest.raises(errors.Transient, match="500"):
        await poller.poll()
    assert memory.numbers == [1, 2, 3, 4]
    vendor.answer = ok
    vendor.requests.clear()
    await bridge(memory, page_size=2).poll()
    assert memory.numbers == [1, 2, 3, 4, 5, 6]
    assert vendor.places()[0] == 4


async def test_the_event_says_since_when_it_can_have_been_there(vendor, bridge, time) -> None:
    poller = bridge()
    await poller.poll()
    vendor.events = [sent(1)]
    time.passes(minutes=1)
    await poller.poll()
    (event,) = poller.memory.events
    assert NOW <= event.data.observed.after < NOW + timedelta(seconds=5)
    assert event.data.observed.by >= NOW + timedelta(minutes=1)


@pytest.mark.parametrize("inclusive", [True, False], ids=["inclusive", "exclusive"])
@pytest.mark.parametrize("state", ["beyond", "echo", "absent", "held"])
async def test_latest_tells_only_what_comes_after_the_first_start(vendor, bridge, state, inclusive) -> None:
    vendor.watermark, vendor.inclusive = state, inclusive
    vendor.events = [sent(number) for number in range(1, 8)]
    poller = bridge(page_size=3, start="latest")
    await poller.poll()
    assert poller.memory.numbers == []
    await poller.poll()
    assert poller.memory.numbers == []
    vendor.events += [sent(8), sent(9)]
    await poller.poll()
    assert poller.memory.numbers == [8, 9]


@pytest.mark.parametrize("first", [10**18 + 7, 2**63 - 10])
@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_ids_of_64_bits_are_followed_like_any_others(vendor, bridge, start, first) -> None:
    vendor.events = [sent(first), sent(first + 1)]
    poller = bridge(start=start)
    await poller.poll()
    vendor.events += [sent(first + 2)]
    for _ in range(2):
        await poller.poll()
    assert poller.memory.numbers == ([first, first + 1] if start == "earliest" else []) + [first + 2]
    assert vendor.places()[-1] == first + 2


async def test_latest_on_an_empty_feed_tells_the_very_first_event(vendor, bridge) -> None:
    poller = bridge(start="latest")
    await poller.poll()
    vendor.events = [sent(1)]
    await poller.poll()
    assert poller.memory.numbers == [1]


async def test_latest_that_is_killed_half_way_goes_on_passing_over(vendor, bridge) -> None:
    vendor.events = [sent(number) for number in range(1, 8)]
    memory = Memory()
    ok = vendor.answer
    vendor.answer = lambda request: ok(request) if len(vendor.requests) < 2 else web.Response(status=500)
    with pytest.raises(errors.Transient):
        await bridge(memory, page_size=3, start="latest").poll()
    vendor.answer = ok
    await bridge(memory, page_size=3, start="latest").poll()
    assert memory.numbers == []
    vendor.events.append(sent(8))
    await bridge(memory, page_size=3, start="latest").poll()
    assert memory.numbers == [8]


async def test_latest_is_of_no_effect_once_the_feed_is_followed(vendor, bridge) -> None:
    vendor.events = [sent(1)]
    memory = Memory()
    await bridge(memory).poll()
    vendor.events.append(sent(2))
    await bridge(memory, start="latest").poll()
    assert memory.numbers == [1, 2]


async def test_a_wish_for_quiet_is_handed_on(vendor, bridge) -> None:
    vendor.feed = [web.Response(status=429, text='{"errorcode": 50100}', headers={"Retry-After": "5"})]
    poller = bridge()
    with pytest.raises(errors.Transient, match="50100") as caught:
        await poller.poll()
    assert caught.value.retry_after == 5
    assert len(vendor.requests) == 1


async def test_temporarily_blocked_is_waited_out_for_minutes(vendor, bridge, time) -> None:
    vendor.feed = [web.Response(status=429, text='{"message": "Temporarily Blocked", "errorcode": 50200}')]
    poller = bridge()
    with pytest.raises(errors.Transient, match="blocked for a while") as caught:
        await poller.poll()
    assert caught.value.retry_after == 300
    with pytest.raises(errors.Transient) as caught:
        await poller.poll()
    assert caught.value.retry_after > 200
    assert len(vendor.requests) == 1
    time.passes(seconds=300)
    await poller.poll()
    assert len(vendor.requests) == 2


async def test_temporary_block_of_the_token_is_honoured(vendor, bridge, time) -> None:
    vendor.token_answer = (429, '{"message": "Temporarily Blocked", "errorcode": 50200}')
    poller = bridge()
    for ask in (poller.poll, poller.source.probe):
        with pytest.raises(errors.Transient, match="blocked for a while") as caught:
            await ask()
        assert caught.value.retry_after == 300
        with pytest.raises(errors.Transient, match="asked for quiet"):
            await ask()
        time.passes(seconds=301)
    assert len(vendor.tokens) == 2


async def test_marketingcloud_stops_asking_after_losing_its_lease(vendor, bridge) -> None:
    lease_deadline = LeaseDeadline("source/journeys", 1e9)

    def ends(request):
        lease_deadline.until = -1e9
        return web.json_response({"messages": []})

    vendor.answer = ends
    held = bind(lease=lease_deadline)
    try:
        with pytest.raises(errors.LeaseLost):
            await bridge(kinds=["sms", "email"]).poll()
    finally:
        reset(held)
    assert len(vendor.requests) == 1


async def test_another_429_is_the_services_to_wait_out(vendor, bridge) -> None:
    vendor.feed = [web.Response(status=429)]
    with pytest.raises(errors.Transient) as caught:
        await bridge().poll()
    assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "body",
    [b"[]", b'{"error": "later"}', b"7", b"null", b'{"messages": {}}', b'{"messages": "none"}', b"<html>", b"", b"{"],
)
async def test_invalid_answer_is_not_read_as_empty(vendor, bridge, body) -> None:
    vendor.feed = [body]
    poller = bridge()
    with pytest.raises(errors.Transient, match=PATH):
        await poller.poll()
    assert "sms.polled" not in poller.memory.entries


async def test_a_feed_that_fails_does_not_stop_the_other(vendor, bridge) -> None:
    vendor.refused = {PATH}
    vendor.events = [sent(1, "EmailNotSent")]
    poller = bridge(kinds=["sms", "email"])
    result = await poller.poll()
    assert [event.topic for event in poller.memory.events] == ["email.message.not_sent"]
    (problem,) = result.problems
    assert problem.startswith(f"sms: GET {PATH}: 403")
    vendor.refused.add("/messaging/v1/email/messages/")
    with pytest.raises(errors.Unauthorized):
        await poller.poll()


async def test_connections_are_given_up_before_the_vendor_closes_them(bridge, vendor) -> None:
    poller = bridge()
    await poller.poll()
    assert poller.source._rest._rest.client._session.connector._keepalive_timeout < 5


async def test_marketingcloud_past_range_leaves_the_cursor_alone(vendor, bridge) -> None:
    vendor.events = [sent(number, when=f"2018-12-{number:02}T10:00:00") for number in range(1, 31)]
    vendor.events.append(sent(31, when=None))
    poller = bridge(page_size=7)
    pages = [
        page
        async for page in poller.source.backfill(
            datetime(2018, 12, 5, 16, tzinfo=UTC), datetime(2018, 12, 8, 16, tzinfo=UTC)
        )
    ]
    assert [seen.occurrence_id for page in pages for seen in page.observations] == ["5", "6", "7"]
    assert all(isinstance(page, Page) and not page.cursor for page in pages)


async def test_the_check_says_what_a_year_of_it_costs(vendor, bridge) -> None:
    vendor.events = [sent(1), sent(2)]
    probe = await bridge(kinds=["sms", "email"], interval="60s", idle_slowdown=1).source.probe()
    renewals = 86400 / (17 * 60)
    assert probe.requests_per_day == pytest.approx(2 * 1440 + renewals)
    assert "an idle year costs about 1,082,118 calls, 54% of the yearly allowance of 2,000,000" in probe.summary
    assert probe.warning is None
    assert [request.query["$pageSize"] for request in vendor.requests] == ["1", "1"]
    assert "token-" not in probe.summary


async def test_year_beyond_the_allowance_is_a_warning(vendor, bridge) -> None:
    vendor.events = [sent(1)]
    probe = await bridge(interval="5s", idle_slowdown=1).source.probe()
    assert probe.warning is not None
    assert re.match(r"an idle year costs about 6,3\d\d,\d\d\d calls, 31[5-9]% of the allowance", probe.warning)
    assert "make interval or idle_slowdown longer" in probe.warning
    larger = await bridge(interval="5s", idle_slowdown=1, yearly_calls=200_000_000).source.probe()
    assert larger.warning is None


async def test_the_check_needs_no_more_tokens_than_polls(vendor, bridge) -> None:
    probe = await bridge(interval="2h", idle_slowdown=1).source.probe()
    assert probe.requests_per_day == pytest.approx(24)
    slowed = await bridge(interval="2h").source.probe()
    assert slowed.requests_per_day == pytest.approx(24 / 5)


async def test_marketingcloud_has_nothing_to_watch(bridge) -> None:
    source = bridge().source
    with pytest.raises(ValueError, match="follows every message of its feeds by itself"):
        source.resource("m-1")
    assert list(await source.complete([])) == []
    assert source.retention >= 35 * 86400
    await source.close()


def test_marketingcloud_defaults_are_the_documented_ones() -> None:
    values = MarketingCloudSettings(
        type="marketingcloud", auth_url="https://sub.auth.marketingcloudapis.com", client_id="id", client_secret=SECRET
    )
    assert (values.page_size, values.start, values.interval, values.kinds) == (50, "earliest", 60.0, ["sms"])
    assert URL(values.auth_url).host == "sub.auth.marketingcloudapis.com"
    assert SECRET not in repr(values)


async def test_baseline_backlog_of_a_failed_feed_stays_unpublished(vendor, bridge, time):
    vendor.events = [sent(number) for number in range(1, 6)]
    poller = bridge(kinds=["sms", "email"])
    intake = Intake("journeys", "marketingcloud", poller.source, poller.memory, time.clock, baseline=True)
    vendor.refused = {PATH}
    await intake.poll(Lease("journeys", "me", 1, 30))
    vendor.refused = set()
    await intake.poll(Lease("journeys", "me", 1, 30))
    assert poller.memory.numbers == []
    vendor.events.append(sent(6))
    await intake.poll(Lease("journeys", "me", 1, 30))
    assert poller.memory.numbers == [6, 6], "one of each feed"
