"""Slack: when messages are posted, and how they are grouped."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import pairwise

import pytest
from blockkit import check_message
from rigs.slack import failed, made

from bridge.domain.clock import Clock
from bridge.domain.errors import Permanent, Transient
from bridge.domain.event import Event
from bridge.domain.events.govdelivery import MessageCompleted, MessageData
from bridge.plugin import Digests
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.sink_suite import outgoing
from bridge_slack import SlackSettings, plugin
from bridge_slack.rate_limiter import ChannelRateLimiter


class Sends:
    """What delivery would have under way."""

    def __init__(self, slack) -> None:
        self._slack = slack
        self.tasks: list[asyncio.Task] = []

    def __call__(self, *events: Event) -> None:
        self.tasks += [asyncio.ensure_future(self._slack.send(outgoing(event))) for event in events]

    def results(self) -> list:
        return [task.exception() if not task.cancelled() else "cancelled" for task in self.tasks if task.done()]


@pytest.fixture
async def send(slack):
    sends = Sends(slack)
    yield sends
    for task in sends.tasks:
        task.cancel()
    await asyncio.gather(*sends.tasks, return_exceptions=True)


def posts(receiver) -> list[dict]:
    return [check_message(json.loads(request.body)) for request in receiver.requests]


def titles(receiver) -> list[str]:
    return [post["blocks"][0]["text"]["text"].split(": ", 1)[1] for post in posts(receiver)]


async def test_an_event_alone_is_posted_at_once(receiver, slack, send, time):
    send(failed(1))
    await time.move(0)
    assert send.results() == [None]
    assert titles(receiver) == ["Voice recipient failed: busy"]
    assert receiver.requests[0].headers["content-type"].startswith("application/json")


async def test_300_failures_in_a_minute_are_few_posts(receiver, slack, send, time):
    for number in range(1, 301):
        send(failed(number))
        await time.move(0.2)
    await time.move(60)
    assert send.results() == [None] * 300
    assert len(posts(receiver)) <= 6
    gathered = [int(title.split()[0]) for title in titles(receiver)[1:]]
    assert 1 + sum(gathered) == 300


async def test_a_burst_at_once_is_one_message_and_one_digest(receiver, slack, send, time):
    send(*(failed(number) for number in range(1, 301)))
    await time.move(4.9)
    assert send.results() == [None]
    await time.move(0.2)
    assert send.results() == [None] * 300
    assert titles(receiver) == ["Voice recipient failed: busy", "299 more: voice recipients failed"]


async def test_messages_and_statuses_are_gathered_apart(receiver, slack, send, time):
    blacklisted = made(MessageCompleted, MessageData(channel="voice", status="completed", transition="first"))
    send(failed(1), failed(2, "/messages/voice/2"), blacklisted, failed(3), failed(4, "/messages/voice/2"))
    await time.move(20)
    assert send.results() == [None] * 5
    assert len(posts(receiver)) == 5


async def test_two_events_in_a_window_are_shown_each_as_itself(receiver, slack, send, time):
    send(failed(1), failed(2, detail="no_answer"))
    await time.move(6)
    assert titles(receiver) == ["Voice recipient failed: busy", "Voice recipient failed: no answer"]


async def test_event_after_a_quiet_window_is_posted_at_once(receiver, slack, send, time):
    send(failed(1))
    await time.move(6)
    send(failed(2))
    await time.move(0)
    assert send.results() == [None, None]


async def test_window_grows_during_a_burst_to_its_limit(receiver, slack, send, time):
    moments = []
    for number in range(1, 1200):
        seen = len(receiver.requests)
        send(failed(number))
        await time.move(0.1)
        if len(receiver.requests) > seen:
            moments.append(round(time.now - 1000))
    assert moments == [0, 5, 15, 35, 65, 95]


async def arrivals(receiver: FakeEndpoint, time, seconds: int = 10) -> list[int]:
    """Return how many messages had arrived at each second."""
    counts = []
    for _ in range(seconds):
        await time.move(0)
        counts.append(len(receiver.requests))
        await time.move(1)
    return counts


async def test_no_more_than_one_message_a_second_is_posted(receiver, slack, send, time):
    send(*(failed(number, f"/messages/voice/{number}") for number in range(1, 11)))
    assert await arrivals(receiver, time) == list(range(1, 11))


async def test_event_with_too_long_a_wait_returns_to_store(receiver, slack, send, time):
    send(*(failed(number, f"/messages/voice/{number}") for number in range(1, 101)))
    await time.move(0)
    refused = [error for error in send.results() if error]
    assert len(refused) == 100 - 76
    assert all(isinstance(error, Transient) and not error.counts_as_attempt for error in refused)
    assert [error.retry_after for error in refused] == [76 + place for place in range(24)]
    await time.move(80)
    assert send.results().count(None) == 76


async def test_2000_messages_are_posted_within_35_minutes_without_attempts(time):
    rate_limiter, posted, spent = ChannelRateLimiter(time.clock(), 75), [], []

    async def deliver():
        while True:
            try:
                await rate_limiter.acquire()
            except Transient as error:
                spent.append(error.counts_as_attempt)
                await time.sleep(error.retry_after)
            else:
                posted.append(time.now)
                return

    tasks = [asyncio.ensure_future(deliver()) for _ in range(2000)]
    await time.move(35 * 60)
    assert len(posted) == len(tasks)
    assert not any(spent)
    assert min(after - before for before, after in pairwise(posted)) >= 1


async def test_those_sent_away_never_come_back_all_in_one_second(time):
    rate_limiter, waits = ChannelRateLimiter(time.clock(), 0), []
    await rate_limiter.acquire()
    for _ in range(5000):
        with pytest.raises(Transient) as caught:
            await rate_limiter.acquire()
        waits.append(caught.value.retry_after)
    assert max(waits) <= 15 * 60
    assert max(Counter(waits).values()) <= 6


async def test_two_sinks_of_one_webhook_share_its_rate(receiver, slack, send, time, tmp_path):
    path = tmp_path / "url"
    path.write_text(f"{receiver.url}/services/T0/B0/canary\n")
    values = {"type": "slack", "topics": ["#"], "webhook_url_file": str(path), "allow_private": True}
    twin = plugin.build("twin", SlackSettings.model_validate(values), slack._limiter._clock)
    twin._outbound = slack._outbound
    both = (slack, twin)
    send.tasks += [
        asyncio.ensure_future(both[number % 2].send(outgoing(failed(number, f"/messages/voice/{number}"))))
        for number in range(10)
    ]
    assert await arrivals(receiver, time) == list(range(1, 11))


async def test_a_retry_after_holds_every_sink_of_the_webhook(receiver, slack, send, time):
    twin = ChannelRateLimiter(time.clock(), 75, slack._limiter._queue)
    receiver.answer(reply(429, headers={"Retry-After": "20"}))
    send(failed(1))
    await time.move(0)
    turn = asyncio.ensure_future(twin.acquire())
    await time.move(19)
    assert not turn.done()
    await time.move(1)
    assert turn.done()


@pytest.mark.parametrize(
    ("changes", "shared"), [({}, True), ({"channel": "C2"}, False), ({"bot_token": "xoxb-other"}, False)]
)
def test_bots_share_a_rate_per_identity_and_channel(changes, shared):
    clock, values = Clock(), {"type": "slack", "topics": ["#"], "bot_token": "xoxb-canary", "channel": "C1"}
    first, other = (
        plugin.build("ops", SlackSettings.model_validate(settings), clock) for settings in (values, values | changes)
    )
    assert (first._limiter._queue is other._limiter._queue) is shared


async def test_cancelled_posts_pass_their_slots_on(receiver, slack, send, time):
    send(*(failed(number, f"/messages/voice/{number}") for number in range(1, 61)))
    await time.move(0.5)
    for task in send.tasks[1:]:
        task.cancel()
    await time.move(1)
    send(failed(100, "/messages/voice/100"))
    await time.move(0)
    assert send.results().count(None) == 2


async def test_post_queue_keeps_its_order_during_retry_after(time):
    rate_limiter, posted = ChannelRateLimiter(time.clock(), 75), []

    async def post(number):
        await rate_limiter.acquire()
        posted.append((number, time.now - 1000))

    tasks = [asyncio.ensure_future(post(number)) for number in range(5)]
    await time.move(1.5)
    rate_limiter.pause(10)
    await time.move(20)
    assert posted == [(0, 0), (1, 1), (2, 11.5), (3, 12.5), (4, 13.5)]
    assert all(task.done() for task in tasks)


async def test_no_post_waits_beyond_send_timeout_for_retry_after(receiver, slack, send, time):
    receiver.answer(reply(200, b"ok"), reply(429, headers={"Retry-After": "60"}))
    send(*(failed(number, f"/messages/voice/{number}") for number in range(1, 77)))
    await time.move(3)
    away = [error for error in send.results() if error and not error.counts_as_attempt]
    assert len(away) == 58
    assert len({round(error.retry_after) for error in away}) > 55
    await time.move(74)
    assert send.results().count(None) == 17
    assert len(send.results()) == 76


async def test_retry_after_holds_the_whole_webhook(receiver, slack, send, time):
    receiver.answer(reply(429, b"rate_limited", {"Retry-After": "20"}))
    send(failed(1))
    await time.move(0)
    (error,) = send.results()
    assert error.retry_after == 20
    send(failed(2, "/messages/voice/2"), failed(3, "/messages/voice/3"))
    await time.move(19)
    assert len(receiver.requests) == 1
    await time.move(3)
    assert send.results()[1:] == [None, None]


async def test_waiting_posts_wait_for_a_later_retry_after_too(receiver, slack, send, time):
    receiver.answer(reply(200, b"ok"), reply(503, headers={"Retry-After": "30"}))
    send(*(failed(number, f"/messages/voice/{number}") for number in range(1, 5)))
    await time.move(29)
    assert len(receiver.requests) == 2
    await time.move(10)
    assert [type(result) for result in send.results()].count(Transient) == 1
    assert len(receiver.requests) == 4


async def test_long_retry_after_returns_events_to_the_store(receiver, slack, send, time):
    receiver.answer(reply(429, headers={"Retry-After": "600"}))
    send(failed(1))
    await time.move(10)
    send(failed(2, "/messages/voice/2"))
    await time.move(0)
    assert [error.retry_after for error in send.results()] == [600, 590]
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("asked", ["99999999999", "9" * 400])
async def test_absurd_retry_after_silences_the_channel_one_day(receiver, slack, send, time, asked):
    receiver.answer(reply(429, headers={"Retry-After": asked}))
    send(failed(1))
    await time.move(24 * 3600 + 1)
    send(failed(2, "/messages/voice/2"))
    await time.move(0)
    assert [type(result) for result in send.results()] == [Transient, type(None)]


async def test_failed_digest_fails_each_event_and_retry_regroups(receiver, slack, send, time):
    receiver.answer(reply(200, b"ok"), reply(500))
    send(*(failed(number) for number in range(1, 11)))
    await time.move(5)
    errors = [error for error in send.results() if error]
    assert len(errors) == 9
    assert len({id(error) for error in errors}) == 9
    assert all(type(error) is Transient for error in errors)
    send(*(failed(number) for number in range(2, 11)))
    await time.move(10)
    assert titles(receiver)[1:] == ["9 more: voice recipients failed"] * 2
    assert send.results().count(None) == 10


async def test_digest_with_refused_blocks_is_posted_as_text(receiver, slack, send, time):
    receiver.answer(reply(200, b"ok"), reply(400, b"invalid_blocks"))
    send(*(failed(number) for number in range(1, 11)))
    await time.move(5.5)
    assert len(receiver.requests) == 2
    await time.move(1)
    assert send.results() == [None] * 10
    refused, text = (json.loads(request.body) for request in receiver.requests[1:])
    assert "blocks" in refused
    assert "blocks" not in text
    assert text["text"] == "9 more: voice recipients failed · /messages/voice/10507"


async def test_message_refused_as_text_is_abandoned(receiver, slack, send, time):
    receiver.answer(reply(200, b"ok"), reply(400, b"invalid_blocks"), reply(400, b"invalid_blocks"))
    send(*(failed(number) for number in range(1, 4)))
    await time.move(30)
    assert [isinstance(result, Permanent) for result in send.results()] == [False, True, True]
    assert len(receiver.requests) == 3


async def test_cancelled_event_is_not_in_the_digest(receiver, slack, send, time):
    send(*(failed(number) for number in range(1, 6)))
    await time.move(1)
    for task in send.tasks[1:3]:
        task.cancel()
    await time.move(5)
    assert send.results() == [None, "cancelled", "cancelled", None, None]
    assert titles(receiver)[1] == "2 more: voice recipients failed"


async def test_a_window_of_which_all_were_cancelled_posts_nothing(receiver, slack, send, time):
    send(failed(1), failed(2))
    await time.move(1)
    send.tasks[1].cancel()
    await time.move(30)
    assert len(receiver.requests) == 1


async def test_events_arriving_while_a_digest_waits_are_in_it(receiver, slack, send, time):
    send(failed(1), failed(2))
    await time.move(4.5)
    send(*(failed(number, f"/messages/voice/{number}") for number in range(10, 13)))
    await time.move(1)
    send(failed(3))
    await time.move(10)
    assert "2 more: voice recipients failed" in titles(receiver)
    assert send.results() == [None] * 6


async def test_closing_posts_nothing_and_leaves_what_was_gathered_due(receiver, slack, send, time):
    send(failed(1), failed(2), failed(3))
    await time.move(1)
    await slack.close()
    await asyncio.wait(send.tasks, timeout=60)
    assert [type(result) for result in send.results()] == [type(None), Transient, Transient]
    assert len(receiver.requests) == 1


async def test_closing_with_a_waiting_digest_leaves_its_events_due(receiver, slack, send, time):
    send(failed(1), failed(2))
    await time.move(4.9)
    slack._limiter.pause(20)
    await time.move(0.5)
    await slack.close()
    await asyncio.wait(send.tasks, timeout=60)
    assert [type(result) for result in send.results()] == [type(None), Transient]


async def test_message_defect_is_raised_for_every_waiting_event(time):
    async def post(events):
        if len(events) > 1:
            raise KeyError("defect")

    digests = Digests(time.clock(), 30, post=post, acquire=ChannelRateLimiter(time.clock(), 60).acquire)
    tasks = [asyncio.ensure_future(digests.add("k", failed(n))) for n in range(3)]
    await time.move(6)
    assert [type(task.exception()) for task in tasks] == [type(None), KeyError, KeyError]
    await digests.close()


async def test_events_beyond_the_group_limit_are_posted_singly(time):
    posted = []

    async def post(events):
        posted.append(len(events))

    digests = Digests(time.clock(), 30, post=post, acquire=ChannelRateLimiter(time.clock(), 60).acquire, limit=2)
    tasks = [asyncio.ensure_future(digests.add(n % 3, failed(n))) for n in range(9)]
    await time.move(30)
    assert sorted(posted) == [1, 1, 1, 1, 1, 2, 2]
    assert len(digests._groups) == 0
    assert [task.exception() for task in tasks] == [None] * 9
    await digests.close()
