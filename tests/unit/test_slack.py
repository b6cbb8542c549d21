"""The Slack sink: valid messages, bursts as digests, the pace, and what Slack's answers mean."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from blockkit import check_message
from catalogue import CATALOGUE
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bridge.domain.catalogue import SourceData, SourceStalled
from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unauthorized
from bridge.domain.event import Data, Event, Transition
from bridge.sources.govdelivery.events import MessageCompleted, MessageData, RecipientData, RecipientFailed
from bridge.sources.marketingcloud.events import SendData, SMSNotSent
from bridge.sources.spacivox.events import DropData, VoicemailRejected
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.sink_suite import outgoing, sample
from bridge_slack import SlackSettings, plugin
from bridge_slack.api import BlocksRefused
from bridge_slack.blocks import digest, escape, fit, group_of, single
from bridge_slack.digests import Digests
from bridge_slack.rate_limiter import ChannelRateLimiter

AT = datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)


def shown(message: dict) -> str:
    return json.dumps(message["blocks"], ensure_ascii=False)


# --- messages ---------------------------------------------------------------------------------------------------------


def made(cls: type[Event], data: Data, subject: str = "/messages/voice/10507/recipients/1", at: datetime = AT) -> Event:
    return cls.of(id="e" * 32, source="/govdelivery/city-voice", subject=subject, time=at, recordedtime=at, data=data)


def failed(number: int = 1, message: str = "/messages/voice/10507", **fields) -> Event:
    data = RecipientData(channel="voice", status="failed", previous="sending", transition=Transition.ADVANCE,
                         message=message, **{"detail": "busy", "phone": "…1000", **fields})  # fmt: skip
    event = made(RecipientFailed, data, f"{message}/recipients/{number}", AT + timedelta(seconds=number))
    return event.model_copy(update={"id": f"{number:032x}"})


def test_failed_call_is_a_readable_message():
    message = check_message(single(failed(error="line <b> & cut")))
    assert (
        message["text"]
        == "voice recipient failed: busy · /messages/voice/10507/recipients/1 · line &lt;b&gt; &amp; cut"
    )
    header, facts, error, context = message["blocks"]
    assert header["text"]["text"] == ":red_circle: Voice recipient failed: busy"
    assert [field["text"] for field in facts["fields"]] == [
        "*When*\n<!date^1363381863^{date_short_pretty} {time_secs}|2013-03-15 21:11:03 UTC>",
        "*Resource*\n/messages/voice/10507/recipients/1",
        "*Source*\n/govdelivery/city-voice",
        "*Phone*\n…1000",
    ]
    assert error["text"]["text"] == "*Error*\nline &lt;b&gt; &amp; cut"
    assert context["elements"][0]["text"] == "sending → failed (advance)".replace(">", "&gt;")


@pytest.mark.parametrize(
    ("event", "header", "words"),
    [
        (made(MessageCompleted, MessageData(channel="sms", status="completed", transition="advance",
              recipient_counts={"total": 2, "sent": 2, "failed": 0}), "/messages/sms/1"),
         ":large_green_circle: Sms message completed", ["total 2 · sent 2"]),
        (made(VoicemailRejected, DropData(channel="voicemail", status="rejected", transition="first", campaign=7, job=3,
              reference="…4711", state=3), "/j/voicemail_drop_records/1"),
         ":red_circle: Voicemail drop rejected", ["*Campaign*\\n7", "*Job*\\n3", "*Reference*\\n…4711"]),
        (made(SMSNotSent, SendData(channel="sms", status="not_sent", transition="first", code=24, definition="reset",
              reason="ListDetectiveExclusion", contact_key="tok_1")),
         ":red_circle: Sms message not sent", ["*Code*\\n24", "*Definition*\\nreset", "*Error*\\nListDetectiveExclusion"]),
        (made(SourceStalled, SourceData(channel="bridge", status="stalled", transition="first", failures=9,
              reason="503")), ":red_circle: Source stalled", ["*Failures in a row*\\n9", "*Error*\\n503"]),
        (made(Event, Data(channel="fax", status="jammed", transition="first", error="paper")),
         ":large_blue_circle: Fax resource", ["*Error*\\npaper"]),
    ],
)  # fmt: skip
def test_each_kind_of_event_shows_what_it_knows(event, header, words):
    message = check_message(single(event))
    assert message["blocks"][0]["text"]["text"].startswith(header)
    assert [word for word in words if word not in shown(message)] == []


@pytest.mark.parametrize("cls", CATALOGUE)
def test_every_catalogue_event_can_be_shown_alone_and_grouped(cls):
    said = {"message": "/messages/sms/1", "what": "missing"}  # what some classes cannot do without
    data = {"channel": cls.channels[0], "status": cls.status, "transition": "first", **said}
    event = made(cls, cls.model_fields["data"].annotation.model_validate(data))
    check_message(single(event))
    check_message(digest([event, event]))


def test_a_digest_says_how_many_of_what_why_and_when():
    events = [failed(n, detail="busy" if n % 3 else "no_answer", error=f"code {n % 7}") for n in range(1, 300)]
    message = check_message(digest(events))
    header, facts, details, errors, first, _ = message["blocks"]
    assert header["text"]["text"] == ":red_circle: 299 more: voice recipients failed"
    assert [field["text"].partition("\n")[0] for field in facts["fields"]] == [
        "*Message*",
        "*Source*",
        "*From*",
        "*To*",
    ]
    assert "1363381863" in facts["fields"][2]["text"]
    assert str(1363381862 + 299) in facts["fields"][3]["text"]
    assert details["text"]["text"] == "*Details*\nbusy: 200\nno answer: 99"
    assert errors["text"]["text"].splitlines()[0] == "*Errors*"
    assert len(errors["text"]["text"].splitlines()) == 7
    assert errors["text"]["text"].endswith("other: 84")
    assert "/messages/voice/10507/recipients/1 (…1000)" in first["text"]["text"]
    assert first["text"]["text"].endswith("and 294 more")


ANY = st.text(max_size=300) | st.text("<>&", max_size=4000) | st.text("\U0001f600a&", min_size=1400, max_size=3200)


@given(ANY, ANY, ANY, st.sampled_from([1, 2, 12]))
def test_no_provider_text_makes_an_invalid_slack_message(error, subject, detail, several):
    events = [
        made(RecipientFailed, RecipientData(channel="voice", status="failed", previous=detail, transition="first",
             message=subject, phone=error, error=f"{error}{n}", detail=detail or None), f"/{subject}")
        for n in range(several)
    ]  # fmt: skip
    check_message(single(events[0]))
    if several > 1:
        check_message(digest(events))


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20) | st.integers() | st.none(), max_size=15), ANY)
def test_unknown_event_type_is_shown_with_any_content(extra, kind):
    data = Data.model_validate({**extra, "channel": "x", "status": "y", "transition": "first", "detail": None})
    event = made(Event, data).model_copy(update={"type": kind})
    check_message(single(event))
    check_message(digest([event, event]))


@pytest.mark.parametrize(
    ("text", "limit", "fitted"),
    [("", 5, "-"), (" \n\t ", 5, "-"), ("a\x00b\nc", 9, "a b c"), ("<!channel>", 40, "&lt;!channel&gt;"),
     ("abcdef", 6, "abcdef"), ("abcdefg", 6, "abcde…"), ("abc&def", 7, "abc…"), ("a&b&c", 9, "a&amp;b…"),
     ("ab\U0001f600cd", 4, "ab…")],
)  # fmt: skip
def test_a_text_is_cut_to_its_place_without_halving_anything(text, limit, fitted):
    assert fit(text, limit) == fitted


def test_three_characters_are_escaped_and_no_other():
    assert escape("<a> & \"b\" 'c'") == "&lt;a&gt; &amp; \"b\" 'c'"


@pytest.mark.parametrize(
    ("event", "group"),
    [(failed(1), "/messages/voice/10507"),
     (made(MessageCompleted, MessageData(channel="sms", status="completed", transition="first"), "/messages/sms/1"),
      "/messages/sms/1"),
     (made(SMSNotSent, SendData(channel="sms", status="not_sent", transition="first", definition="reset")), "reset"),
     (made(VoicemailRejected, DropData(channel="voicemail", status="rejected", transition="first", campaign=7, job=3)),
      "campaign 7, job 3"),
     (made(SourceStalled, SourceData(channel="bridge", status="stalled", transition="first")), "/govdelivery/city-voice")],
)  # fmt: skip
def test_events_are_grouped_by_parent_and_status(event, group):
    assert group_of(event) == (event.source, group, event.type)


# --- time -------------------------------------------------------------------------------------------------------------


class Time:
    """A clock that stands still until it is moved on, and lets all that became due be done in between."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.idle = asyncio.Event()
        self.idle.set()
        self._busy = 0
        self._due: list = []
        self._order = count()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (self.now + seconds, next(self._order), woken))
        await woken

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self.sleep)

    @contextmanager
    def under_way(self):
        """Stand still for as long as something takes real time."""
        self._busy += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self.idle.set()

    async def settled(self) -> None:
        async with asyncio.timeout(60):
            for _ in range(30):
                await asyncio.sleep(0)
                await self.idle.wait()

    async def move(self, seconds: float) -> None:
        until = self.now + seconds
        await self.settled()
        while self._due and self._due[0][0] <= until:
            self.now = self._due[0][0]
            while self._due and self._due[0][0] == self.now:
                *_, woken = heapq.heappop(self._due)
                if not woken.done():
                    woken.set_result(None)
            await self.settled()
        self.now = until


@pytest.fixture
async def receiver():
    async with FakeEndpoint(default=reply(200, b"ok")) as receiver:
        yield receiver


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def slack(receiver, time):
    values = {"type": "slack", "topics": ["#"], "webhook_url": f"{receiver.url}/services/T0/B0/canary",
              "allow_private": True}  # fmt: skip
    sink = plugin.build("ops", SlackSettings.model_validate(values), time.clock())
    await sink.open()
    post = sink._outbound.post

    async def counted(*arguments):
        with time.under_way():
            return await post(*arguments)

    sink._outbound.post = counted
    yield sink
    await sink.close()


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


# --- Slack's answers --------------------------------------------------------------------------------------------------


def bot_of(receiver, clock=None):
    values = {"type": "slack", "topics": ["#"], "bot_token": "xoxb-canary", "channel": "C024BE91L",
              "api_url": f"{receiver.url}/api/", "allow_private": True}  # fmt: skip
    return plugin.build("ops", SlackSettings.model_validate(values), clock or Clock())


@pytest.fixture
async def bot(receiver):
    sink = bot_of(receiver)
    await sink.open()
    yield sink
    await sink.close()


async def test_a_bot_posts_to_its_channel_with_its_token(receiver, bot):
    receiver.answer(reply(200, b'{"ok": true, "ts": "1"}'))
    await bot.send(outgoing(sample(1)))
    (request,) = receiver.requests
    assert request.path == "/api/chat.postMessage"
    assert request.headers["authorization"] == "Bearer xoxb-canary"
    body = json.loads(request.body)
    assert body.pop("channel") == "C024BE91L"
    check_message(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(200, b'{"ok": false, "error": "ratelimited"}', Transient), (200, b'{"ok": false, "error": "fatal_error"}', Transient),
     (200, b'{"ok": false, "error": "invalid_auth"}', Unauthorized), (200, b'{"ok": false, "error": "not_in_channel"}', Unauthorized),
     (200, b'{"ok": false, "error": "channel_not_found"}', EndpointGone), (200, b'{"ok": false, "error": "is_archived"}', EndpointGone),
     (200, b'{"ok": false, "error": "invalid_blocks"}', BlocksRefused), (200, b'{"ok": false, "error": "a canary"}', Transient),
     (200, b'{"ok": false, "error": {"canary": 1}}', Transient), (200, b"canary", Transient), (200, b"[]", Transient),
     (200, b"", Transient), (401, b'{"ok": false, "error": "invalid_auth"}', Unauthorized), (400, b"canary", Permanent),
     (500, b'{"ok": false, "error": "the canary"}', Transient)],
)  # fmt: skip
async def test_a_bots_refusals_say_what_to_do_next(receiver, bot, status, body, kind):
    receiver.default = reply(status, body)
    with pytest.raises(kind) as caught:
        await bot.send(outgoing(sample(1)))
    assert type(caught.value) is kind
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(404, b"no_service", EndpointGone), (410, b"channel_is_archived", EndpointGone), (404, b"channel_not_found", EndpointGone),
     (403, b"action_prohibited", Unauthorized), (403, b"invalid_token", Unauthorized), (400, b"invalid_payload", Permanent),
     (400, b"a canary", Permanent), (404, b"\xff", Transient), (429, b"rate_limited", Transient), (500, b"rollup_error", Transient)],
)  # fmt: skip
async def test_a_webhooks_refusals_say_what_to_do_next(receiver, slack, status, body, kind):
    receiver.answer(reply(status, body, {"Retry-After": "7"}))
    with pytest.raises(kind) as caught:
        await slack.send(outgoing(sample(1)))
    assert type(caught.value) is kind
    assert "canary" not in str(caught.value)
    assert getattr(caught.value, "retry_after", 7) in (7, None)


async def test_bot_check_verifies_the_token_and_posts_nothing(receiver):
    bot = bot_of(receiver)
    receiver.answer(reply(200, b'{"ok": true}'), reply(200, b'{"ok": false, "error": "token_revoked"}'))
    assert await bot.probe() == "posts to channel C024BE91L; Slack accepts the token"
    with pytest.raises(Unauthorized, match="token_revoked"):
        await bot.probe()
    await bot.close()
    assert [request.path for request in receiver.requests] == ["/api/auth.test"] * 2


async def test_a_webhook_in_a_file_can_be_rotated(receiver, tmp_path):
    path = tmp_path / "url"
    path.write_text(f"{receiver.url}/services/old\n")
    values = {"type": "slack", "topics": ["#"], "webhook_url_file": str(path), "allow_private": True}
    sink = plugin.build("ops", SlackSettings.model_validate(values), Clock(sleep=Time().sleep))
    await sink.open()
    await sink.send(outgoing(sample(1)))
    path.write_text(f"{receiver.url}/services/newer\n")
    assert "newer" not in await sink.probe()
    sink._limiter._queue.free = 0.0
    await sink.send(outgoing(sample(2)))
    path.write_text("no longer a URL")
    sink._limiter._queue.free = 0.0
    with pytest.raises(Transient, match="correct its file"):
        await sink.send(outgoing(sample(3)))
    await sink.close()
    assert [request.path for request in receiver.requests] == ["/services/old", "/services/newer"]


HOOK = "https://hooks.slack.com/services/T0/B0/canary"


@pytest.mark.parametrize(
    ("values", "problem"),
    [({}, "give webhook_url, or bot_token and channel"), ({"bot_token": "xoxb-canary"}, "give webhook_url, or bot_token"),
     ({"channel": "C1"}, "give webhook_url, or bot_token"), ({"webhook_url": HOOK, "channel": "C1"}, "give either"),
     ({"webhook_url": "canary"}, "is not a URL"), ({"webhook_url": HOOK, "api_url": "canary"}, "is not a URL"),
     ({"webhook_url": HOOK, "window": "2m"}, "at least 30s more than window")],
)  # fmt: skip
def test_slack_refuses_unusable_settings_without_showing_secrets(values, problem):
    with pytest.raises(ValidationError) as caught:
        SlackSettings.model_validate({"type": "slack", "topics": ["#"], **values})
    messages = " ".join(error["msg"] for error in caught.value.errors())
    assert problem in messages
    assert "canary" not in messages


def test_settings_show_no_secret_and_mask_phones_by_default():
    settings = SlackSettings.model_validate({"type": "slack", "topics": ["#"], "webhook_url": HOOK})
    assert "canary" not in f"{settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.privacy == "last4"
