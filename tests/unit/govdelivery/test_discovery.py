"""GovDelivery: which messages are followed, and from when."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

import pytest
from rigs.govdelivery import (
    HOUR,
    S1,
    START,
    Bridge,
    Tms,
    made,
    person,
    put,
    stamp,
    topics,
)

from bridge.domain import errors
from bridge.http.errors import Throttled


async def test_first_start_follows_new_messages_not_old_ones(tms, open_bridge):
    young, old, stuck = made(3, HOUR), made(2, 100 * HOUR), made(1, 500 * HOUR, "sending")
    put(tms, young, old, stuck)
    tms.at |= {"/messages/sms": [young, old, stuck], "/messages/voice": [made(9, HOUR, "new", "voice")]}
    put(tms, made(9, HOUR, "new", "voice"))
    bridge = open_bridge(discover=True)
    assert topics(await bridge.poll()) == ["/messages/sms/1", "/messages/sms/3", "/messages/voice/9"]
    assert tms.asked[0] == "/messages/sms?page_size=100&sort_by=created_at&sort_order=DESC"
    assert tms.asked[1] == "/messages/voice"
    bridge.later(30)
    assert await bridge.poll() == []
    assert tms.count("/messages/sms/2") == 0


async def test_operator_named_message_is_followed_at_any_age(tms, open_bridge):
    old = made(2, 9000 * HOUR)
    put(tms, old)
    tms.at |= {"/messages/sms": [old], "/messages/voice": []}
    bridge = open_bridge(discover=True)
    assert await bridge.poll() == []
    assert topics(await bridge.poll("/messages/sms/2")) == ["/messages/sms/2"]
    bridge.later(2 * HOUR)
    put(tms, old | {"status": "canceled"})
    assert topics(await bridge.poll("/messages/sms/2")) == ["/messages/sms/2"]


async def test_a_message_named_no_longer_is_followed_no_longer(tms, open_bridge):
    put(tms, made(2, HOUR))
    bridge = open_bridge()
    await bridge.poll("/messages/sms/2", "nonsense!")
    assert bridge.source.problems == [
        "a watched resource is passed over: not the path of a message; give one such as /messages/voice/10507"
    ]
    assert "/messages/sms/2" in bridge.cursor
    await bridge.poll()
    assert bridge.cursor == {}


async def test_messages_created_during_downtime_are_followed(tms, open_bridge):
    first = made(1, HOUR)
    put(tms, first)
    tms.at |= {"/messages/sms": [first], "/messages/voice": []}
    bridge = open_bridge(discover=True, follow_for="1h")
    await bridge.poll()
    bridge.later(200 * HOUR)
    later = made(2, -50 * HOUR)
    put(tms, later)
    tms.at["/messages/sms"] = [later, first]
    assert topics(await bridge.poll()) == ["/messages/sms/2"]
    for _ in range(30):
        bridge.later(HOUR)
        assert await bridge.poll() == []
    assert set(bridge.cursor) == {"list:sms", "list:voice"}


async def test_a_message_that_hides_behind_known_ones_is_found(tms, open_bridge):
    known, hidden = made(3, HOUR), made(2, 2 * HOUR)
    put(tms, known, hidden)
    tms.at |= {"/messages/sms": ([known], '</messages/sms?page=2>; rel="next"'), "/messages/voice": []}
    tms.at["/messages/sms?page=2"] = [known]
    bridge = open_bridge(discover=True)
    await bridge.poll()
    tms.at["/messages/sms?page=2"] = [hidden]
    bridge.later(30)
    assert topics(await bridge.poll()) == ["/messages/sms/2"]


def put_pages(tms: Tms, count: int) -> None:
    """Put a list of as many pages, each with one message that was made ten hours before that of the page before."""
    pages = [[made(100 - page, page * 10 * HOUR)] for page in range(count)]
    put(tms, *(page[0] for page in pages))
    for number, page in enumerate(pages):
        path = f"/messages/sms?page={number}" if number else "/messages/sms"
        tms.at[path] = (page, f'</messages/sms?page={number + 1}>; rel="next"' if number < count - 1 else "")
    tms.at["/messages/voice"] = []


async def test_long_list_is_read_while_news_is_likely(tms, open_bridge):
    put_pages(tms, 40)
    bridge = open_bridge(discover=True)
    await bridge.poll()
    walked = tms.count("/messages/sms")
    assert walked == 27  # 72 h and a week of 10 h a page, and one page more
    bridge.later(30)
    await bridge.poll()
    assert tms.count("/messages/sms") - walked == 3
    walked = tms.count("/messages/sms")
    bridge.later(7 * HOUR)
    await bridge.poll()
    assert tms.count("/messages/sms") - walked == 26  # the page on the very bound is beyond it by now


async def test_clock_ahead_makes_the_list_be_read_far_again(tms, time, open_bridge):
    put_pages(tms, 40)
    bridge = open_bridge(discover=True)
    await bridge.poll()
    time.set_by += 2 * HOUR
    await bridge.poll()
    time.set_by = 0.0
    counts = []
    for _ in range(2):
        tms.asked.clear()
        bridge.later(30)
        await bridge.poll()
        counts.append(tms.count("/messages/sms"))
    assert counts == [26, 3]  # the page on the very bound is beyond it by now


async def test_a_walk_that_broke_off_is_walked_again_as_far(tms, open_bridge):
    first, second, third = made(3, HOUR), made(2, 5 * HOUR), made(1, 9 * HOUR)
    put(tms, first, second, third)
    tms.at |= {
        "/messages/sms": ([first], '<?page=2>; rel="next"'),
        "/messages/sms?page=2": ([second], '<?page=3>; rel="next"'),
        "/messages/sms?page=3": 500,
        "/messages/voice": 202,
    }
    bridge = open_bridge(discover=True)
    assert topics(await bridge.poll()) == ["/messages/sms/2", "/messages/sms/3"]
    assert len(bridge.source.problems) == 1
    assert not any(key.startswith("list:") for key in bridge.cursor)
    tms.at |= {"/messages/sms?page=3": [third], "/messages/voice": []}
    bridge.later(30)
    assert topics(await bridge.poll()) == ["/messages/sms/1"]
    assert {"list:sms", "list:voice"} <= set(bridge.cursor)


@pytest.mark.parametrize("last", [True, False])
async def test_oldest_first_list_is_read_to_its_newest(tms, open_bridge, last):
    pages = [[made(n * 2, (2000 - n * 20) * HOUR, channel="voice"), made(n * 2 + 1, (1990 - n * 20) * HOUR, channel="voice")]
             for n in range(101)]  # fmt: skip
    newest = [made(900, 3 * HOUR, channel="voice"), made(901, HOUR, channel="voice")]
    put(tms, *newest)
    pages.append(newest)
    for number, page in enumerate(pages):
        links = [f'</messages/voice?page={number + 1}>; rel="next"'] * (number < 101)
        links += [f'</messages/voice?page={number - 1}>; rel="prev"'] * (number > 0)
        links += ['</messages/voice?page=101>; rel="last"'] * last
        tms.at[f"/messages/voice?page={number}" if number else "/messages/voice"] = (page, ", ".join(links))
    bridge = open_bridge(discover=True, channels=["voice"])
    await bridge.poll()
    assert {"/messages/voice/900", "/messages/voice/901"} <= set(bridge.cursor)
    assert (tms.count("/messages/voice") < 20) is last


async def test_a_list_that_tells_news_makes_its_message_due(tms, open_bridge):
    message = made(1, 20 * HOUR, "sending")
    put(tms, message)
    tms.at |= {"/messages/sms": [message], "/messages/voice": []}
    bridge = open_bridge(discover=True, interval="10s")
    await bridge.poll()
    bridge.later(10)
    await bridge.poll()
    assert tms.count("/messages/sms/1") == 1
    done = made(1, 20 * HOUR)
    put(tms, done)
    tms.at["/messages/sms"] = [done]
    bridge.later(10)
    assert await bridge.poll() == [("sms.message.completed", "/messages/sms/1")]


async def test_message_beginning_long_after_creation_is_followed(tms, open_bridge):
    tms.message(S1, "queued", created_at=stamp(START - timedelta(days=40)))
    tms.people(S1, person(S1, 1))
    tms.at["/messages/sms"] = [tms.at[S1]]
    bridge = open_bridge(discover=True, channels=["sms"])
    await bridge.poll()
    for status in ("sending", "sent"):
        bridge.later(3600)
        tms.people(S1, person(S1, 1, status))
        assert await bridge.poll() == [(f"sms.recipient.{status}", f"{S1}/recipients/1")]


async def test_message_ended_by_an_operator_status_is_old_too(tms, open_bridge):
    old, young = made(2, 100 * HOUR, "done", completed_at=stamp(START - timedelta(hours=99))), made(3, HOUR, "done")
    put(tms, old, young)
    tms.at["/messages/sms"] = [young, old]
    bridge = open_bridge(discover=True, channels=["sms"], statuses={"done": "completed"})
    assert await bridge.poll() == [("sms.message.completed", "/messages/sms/3")]


async def test_a_list_that_is_being_built_for_ever_is_reported(tms, open_bridge):
    tms.message(S1)
    tms.people(S1)
    tms.at |= {"/messages/sms": 202}
    bridge = open_bridge(discover=True, channels=["sms"], messages=[S1], stall_after="5m")
    count_response = []
    for _ in range(12):
        await bridge.poll()
        count_response.append(len(bridge.source.problems))
        bridge.later(30)
    assert count_response == [0] * 10 + [1] * 2
    assert "still building" in bridge.source.problems[0]
    lonely = open_bridge(discover=True, channels=["sms"], stall_after="5m")
    await lonely.poll()
    bridge.later(300)
    with pytest.raises(errors.NotReady):
        await lonely.poll()


async def test_message_may_be_named_by_an_object_link(tms, open_bridge):
    message = made(3, HOUR)
    put(tms, message)
    tms.at["/messages/sms"] = [message | {"_links": {"self": {"href": "/messages/sms/3"}}}]
    bridge = open_bridge(discover=True, channels=["sms"])
    assert topics(await bridge.poll()) == ["/messages/sms/3"]


async def test_listed_messages_without_identity_are_reported_and_passed_over(tms, open_bridge):
    tms.at |= {
        "/messages/sms": [
            None,
            {},
            {"_links": {"self": "/elsewhere"}},
            {"_links": {"self": "/messages/email/4"}},
            {"id": 5},
        ],
        "/messages/voice": [],
    }
    put(tms, made(5, HOUR))
    bridge = open_bridge(discover=True)
    assert topics(await bridge.poll()) == ["/messages/sms/5"]
    assert bridge.source.problems == ["/messages/sms: 4 messages of a page have no identity: passed over"]


async def test_ended_message_without_times_is_not_followed_again(tms, open_bridge):
    message = {"status": "completed", "_links": {"self": "/messages/sms/1"}}
    put(tms, message)
    tms.at |= {"/messages/sms": [message], "/messages/voice": []}
    bridge = open_bridge(discover=True, follow_for="1m", interval="30s")
    await bridge.poll()
    for _ in range(10):
        bridge.later(30)
        await bridge.poll()
    asked = tms.count("/messages/sms/1")
    for _ in range(100):
        bridge.later(24 * HOUR)
        assert await bridge.poll() == []
    assert tms.count("/messages/sms/1") == asked
    tms.at["/messages/sms"] = []
    bridge.later(31 * 24 * HOUR)
    await bridge.poll()
    await bridge.poll()
    assert "/messages/sms/1" not in bridge.cursor


async def test_govdelivery_past_range_leaves_the_cursor_alone(tms, open_bridge):
    pages = [[made(100 - page, page * 10 * HOUR)] for page in range(20)]
    put(tms, *(page[0] for page in pages))
    for number, page in enumerate(pages):
        path = f"/messages/sms?page={number}" if number else "/messages/sms"
        tms.at[path] = (page, f'</messages/sms?page={number + 1}>; rel="next"' if number < 19 else "")
    tms.people("/messages/sms/95", person("/messages/sms/95", 1, "sent"))
    tms.at |= {
        "/messages/voice": [
            {"_links": {"self": "/messages/voice/1"}},
            made(2, 45 * HOUR, channel="voice"),
            made(3, 45 * HOUR, channel="voice"),
        ],
        "/messages/voice/3": 202,
    }
    bridge = open_bridge(discover=True)
    async with aclosing(bridge.source.backfill(START - timedelta(hours=60), START - timedelta(hours=40))) as filled:
        async for page in filled:
            await bridge._commit(page)
    assert sorted({subject for _, subject, *_ in bridge.events}) == [
        "/messages/sms/94", "/messages/sms/95", "/messages/sms/95/recipients/1", "/messages/sms/96",
    ]  # fmt: skip
    assert sorted(bridge.source.problems) == [
        "GET /messages/voice/2: 404, the provider does not know this resource (any more); run the backfill again for it",
        "GET /messages/voice/3: the provider is still building the answer: asked again later; run the backfill again for it",
    ]
    assert bridge.cursor == {}
    assert tms.count("/messages/sms") == 9


async def first_start(tms: Tms, open_bridge, trouble: str, **settings) -> Bridge:
    """Start with a backlog of five messages, of which the first poll cannot read all, and poll until it is read."""
    people = {
        path: person(path, 1, "sending") for path in (*(f"/messages/sms/{n}" for n in range(1, 6)), "/messages/voice/9")
    }
    for path, shown_people in people.items():
        tms.message(path)
        tms.people(path, shown_people)
    well = {
        "/messages/sms": [tms.at[path] for path in people if "sms" in path],
        "/messages/voice": [tms.at["/messages/voice/9"]],
    }
    well["/messages/sms/3"] = tms.at["/messages/sms/3"]
    tms.at |= well | {path: int(status) for path, status in [trouble.split()]}
    bridge = open_bridge(first_sight="baseline", interval="10s", concurrency=1, **settings)
    bridge.baseline = True
    try:
        await bridge.poll()
    except (Throttled, errors.Transient):
        assert trouble.endswith("429")
        bridge.started = True  # the next poll hands over half-way, and the one after it goes on with what is left
    tms.at |= well
    for _ in range(3):
        bridge.later(30)
        await bridge.poll()
    assert len(bridge.histories) == (12 if "discover" in settings else 10)
    return bridge


@pytest.mark.parametrize(
    "trouble", ["/messages/sms 202", "/messages/voice 500", "/messages/sms/3 500", "/messages/sms/3 429"]
)
async def test_baseline_backlog_stays_unpublished_after_failed_first_poll(tms, open_bridge, trouble):
    bridge = await first_start(tms, open_bridge, trouble, discover=True)
    assert bridge.events == []
    tms.people("/messages/sms/3", person("/messages/sms/3", 1, "sent"), person("/messages/sms/3", 2))
    tms.message("/messages/sms/8")
    tms.people("/messages/sms/8")
    tms.at["/messages/sms"].append(tms.at["/messages/sms/8"])
    bridge.later(30)
    assert topics(await bridge.poll()) == [
        "/messages/sms/3/recipients/1",
        "/messages/sms/3/recipients/2",
        "/messages/sms/8",
    ]


@pytest.mark.parametrize("trouble", ["/messages/sms/3 500", "/messages/sms/3 429"])
async def test_baseline_covers_named_messages_at_first_start_only(tms, open_bridge, trouble):
    bridge = await first_start(
        tms, open_bridge, trouble, messages=[f"/messages/sms/{number}" for number in range(1, 6)]
    )
    assert bridge.events == []
    bridge.later(30)
    assert topics(await bridge.poll("/messages/voice/9")) == ["/messages/voice/9", "/messages/voice/9/recipients/1"]
