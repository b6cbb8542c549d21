"""The GovDelivery source against a server that answers what each test says."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from pydantic import ValidationError

from bridge.domain import errors
from bridge.domain.clock import Clock
from bridge.domain.event import Observed
from bridge.domain.lifecycle import classify
from bridge.http.errors import Throttled
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.protocols.source import Observation
from bridge.sources.govdelivery import GovDelivery, GovDeliverySettings, plugin
from bridge.sources.govdelivery.api import Outage

SEEDS = Path(__file__).parent.parent / "seeds"
TOKEN = "s3cr3t"
START = datetime(2014, 10, 7, 18, 0, tzinfo=UTC)


def example(name: str) -> str:
    """Cut the first JSON example out of a vendor's page, byte for byte."""
    text = (SEEDS / name).read_text()
    start = text.index("\n{") + 1
    return text[start : text.index("\n}", start) + 2]


SMS = example("govdelivery-sms-message.txt")
VOICE = example("govdelivery-voice-message.txt")


@dataclass
class Time:
    """A clock that moves only when somebody sleeps or a test says so."""

    seconds: float = 0.0
    set_to: float = 0.0
    """By how much the wall clock was set, which what counts seconds does not know of."""

    async def sleep(self, seconds: float) -> None:
        self.seconds += max(0.0, seconds)
        await asyncio.sleep(0)

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds + self.set_to)

    @cached_property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, monotonic=lambda: self.seconds, sleep=self.sleep, random=random.Random(7))


@dataclass
class Tms:
    """The provider: what stands at each path, as JSON or as a response."""

    time: Time
    at: dict[str, object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""
    dated: bool = True
    takes: dict[str, float] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.tokens.append(request.headers.get("X-AUTH-TOKEN", ""))
        self.time.seconds += self.takes.get(request.path, 0.0)
        what = self.at.get(request.path_qs, self.at.get(request.path))
        if callable(what):
            what = what()
        match what:
            case None:
                response = web.json_response({"error": "Not Found"}, status=404)
            case int() as status:
                response = web.json_response({"error": "no"}, status=status)
            case tuple((body, link)):
                response = web.json_response(body, headers={"Link": link})
            case web.Response():
                response = what
            case str() as text:
                response = web.Response(text=text, content_type="application/json")
            case body:
                response = web.json_response(body)
        if self.dated:
            response.headers["Date"] = format_datetime(self.time.now, usegmt=True)
        return response

    def message(self, path: str, status: str = "sending", **fields) -> dict[str, object]:
        """Put a message at its path, with counts of nobody."""
        value = {"status": status, "created_at": stamp(START), "_links": {"self": path}} | fields
        self.at[path] = value
        return value

    def people(self, message: str, *people: dict[str, object]) -> None:
        """Put recipients below a message, and their counts into it."""
        self.at[f"{message}/recipients"] = list(people)
        counts: dict[str, int] = {"total": len(people)}
        for person in people:
            counts[person["status"]] = counts.get(person["status"], 0) + 1
        self.at[message]["recipient_counts"] = counts

    def count(self, path: str) -> int:
        return sum(asked.partition("?")[0] == path for asked in self.asked)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def person(message: str, number: int, status: str = "new", **fields) -> dict[str, object]:
    return {
        "phone": f"651555{number:04}",
        "formatted_phone": f"+1651555{number:04}",
        "status": status,
        "created_at": stamp(START),
        "_links": {"self": f"{message}/recipients/{number}"},
    } | fields


@dataclass
class Bridge:
    """What the intake does with a source, as far as these tests need it."""

    tms: Tms
    source: GovDelivery
    cursor: dict[str, str] = field(default_factory=dict)
    histories: dict[tuple[str, str], str] = field(default_factory=dict)
    events: list[tuple] = field(default_factory=list)
    observed: int = 0
    pages: int = 0
    baseline: bool = False
    started: bool = False

    async def poll(self, *watched: str) -> list[tuple]:
        """Poll once; return the events that came of it as (topic, subject)."""
        before = len(self.events)
        async with aclosing(self.source.pages(dict(self.cursor), watched)) as pages:
            async for page in pages:
                self.pages += 1
                await self._commit(page)
        self.started = True
        return [event[:2] for event in self.events[before:]]

    async def _commit(self, page) -> None:
        news = []
        for observation in page.observations:
            self.observed += 1
            key = (observation.scope, observation.key)
            silent = self.baseline and (not self.started or (page.backlog and key not in self.histories))
            change = classify(observation.kind.lifecycle, self.histories.get(key), observation.status)
            if change is not None:
                news += [] if silent else [(observation, change)]
                self.histories[key] = change.history
        awaiting = [observation for observation, _ in news if observation.awaits_detail]
        completed = dict(zip(map(id, awaiting), await self.source.complete(awaiting), strict=True))
        for observation, change in news:
            self._publish(completed.get(id(observation), observation), change, page)
        for key, value in page.cursor.items():
            if value is None:
                self.cursor.pop(key)
            else:
                self.cursor[key] = value

    def _publish(self, observation, change, page) -> None:
        facts = observation.kind.describe(observation)
        words = [
            observation.kind.channel,
            observation.kind.entity,
            change.status,
            *([observation.detail] if observation.detail else []),
        ]
        data = facts.model(
            channel=observation.kind.channel,
            status=change.status,
            previous=change.previous,
            detail=observation.detail,
            transition=change.transition,
            observed=Observed(after=page.after, by=page.by),
            **facts.fields,
        )
        if change.status != "unknown":
            cls = observation.kind.events[change.status]
            event = cls.of(
                id="x", source="/govdelivery/x", subject=facts.subject, time=facts.time or page.by,
                recordedtime=page.by, data=data,
            )  # fmt: skip
            assert event.topic == ".".join(words)
            assert TOKEN not in event.model_dump_json()
        self.events.append((".".join(words), facts.subject, facts, data))

    def later(self, seconds: float) -> None:
        self.tms.time.seconds += seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def tms(time):
    tms = Tms(time)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", tms.handle)
    async with TestServer(app) as server:
        tms.url = str(server.make_url("/"))
        yield tms


@pytest.fixture
async def open_bridge(tms, time):
    opened = []

    def make(**settings) -> Bridge:
        values = {"type": "govdelivery", "url": tms.url, "token": TOKEN, "rate": "5000/s", "discover": False} | settings
        source = plugin.build("city", plugin.settings.model_validate(values), time.clock)
        opened.append(source)
        return Bridge(tms, source)

    yield make
    for source in opened:
        await source.close()


S1, S2, V1 = "/messages/sms/1", "/messages/sms/2", "/messages/voice/1"


# --- the vendor's own examples ----------------------------------------------------------------------------------------


async def test_the_documented_sms_message_is_read_byte_for_byte(tms, open_bridge):
    path = "/messages/sms/165532"
    tms.at |= {path: SMS, f"{path}/recipients": [person(path, 1, "sent"), person(path, 2, "sent")]}
    bridge = open_bridge(messages=[path])
    assert await bridge.poll() == [
        ("sms.message.completed", path),
        ("sms.recipient.sent", f"{path}/recipients/1"),
        ("sms.recipient.sent", f"{path}/recipients/2"),
    ]
    _, _, facts, data = bridge.events[0]
    assert facts.time == datetime(2014, 10, 7, 17, 27, 15, tzinfo=UTC)
    assert data.created_at == datetime(2014, 10, 7, 17, 27, 12, tzinfo=UTC)
    assert data.recipient_counts == {
        "total": 2, "new": 0, "sending": 0, "inconclusive": 0, "blacklisted": 0, "canceled": 0, "sent": 2, "failed": 0,
    }  # fmt: skip
    assert data.recipient_detail_counts is None
    assert data.provider == {}
    assert bridge.source.problems == []
    assert set(tms.tokens) == {TOKEN}


async def test_documented_inconsistent_voice_message_is_read_byte_for_byte(tms, open_bridge):
    path = "/messages/voice/153"
    sent = stamp(START - timedelta(minutes=30))
    first, two = (person(path, number, "sent", completed_at=sent) for number in (1, 2))
    tms.at |= {
        path: VOICE,
        f"{path}/recipients": [first, two],
        f"{path}/recipients/machine": [first],
        f"{path}/recipients/human": [],
    }
    bridge = open_bridge(messages=[path])
    assert await bridge.poll() == [
        ("voice.message.completed", path),
        ("voice.recipient.sent.machine", f"{path}/recipients/1"),
        ("voice.recipient.sent", f"{path}/recipients/2"),
    ]
    _, _, _, data = bridge.events[0]
    assert data.recipient_detail_counts == {"busy": 0, "no_answer": 0, "human": 0, "machine": 1}
    assert data.provider == {"from_number": "+15551234567"}
    assert bridge.source.problems == []
    # The example's own links lead to message 15282, which is another one.
    assert not any("15282" in asked for asked in tms.asked)
    await bridge.poll()
    assert len(bridge.events) == 3


async def test_the_documented_recipient_keeps_every_field(tms, open_bridge):
    schema = (SEEDS / "govdelivery-voice-recipients.txt").read_text()
    schema = json.loads(schema[schema.index("{\n") : schema.index("}Body") + 1])
    item = {name: about.get("example") for name, about in schema["items"]["properties"].items()}
    item |= {"_links": json.loads(item["_links"]), "status": "failed", "error_message": "busy signal", "odd": [1]}
    path = "/messages/voice/10507"
    tms.message(path, recipient_counts={"total": 1, "failed": 1}, recipient_detail_counts={"busy": 0, "no_answer": 0})
    tms.at |= {f"{path}/recipients": [item], f"{path}/recipients/could_not_connect": [item]}
    bridge = open_bridge(messages=[path])
    await bridge.poll()
    topic, subject, facts, data = bridge.events[-1]
    assert (topic, subject) == ("voice.recipient.failed.could_not_connect", f"{path}/recipients/364898")
    assert facts.time == datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)
    assert data.model_dump(exclude={"observed"}) == {
        "channel": "voice", "status": "failed", "previous": None, "detail": "could_not_connect", "transition": "first",
        "message": path, "phone": "+16515551000", "error": "busy signal", "provider": {"odd": [1]},
        "created_at": datetime(2013, 3, 15, 21, 10, 30, tzinfo=UTC),
        "completed_at": datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC),
    }  # fmt: skip
    assert "6515551000" not in json.dumps(data.provider)


# --- statuses and details ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["new", "sending", "inconclusive", "blacklisted", "canceled", "sent", "failed"])
@pytest.mark.parametrize("channel", ["sms", "voice"])
async def test_every_recipient_status_is_an_event(tms, open_bridge, channel, status):
    path = f"/messages/{channel}/1"
    tms.message(path)
    tms.people(path, person(path, 7, status, completed_at=stamp(START - timedelta(minutes=1))))
    bridge = open_bridge(messages=[path])
    assert (f"{channel}.recipient.{status}", f"{path}/recipients/7") in await bridge.poll()
    final = status in {"sent", "failed", "blacklisted", "canceled"}
    expected = START - timedelta(minutes=1) if final else START if status == "new" else None
    assert bridge.events[-1][2].time == expected


@pytest.mark.parametrize("status", ["new", "queued", "sending", "completed", "canceled"])
@pytest.mark.parametrize("channel", ["sms", "voice"])
async def test_every_message_status_is_an_event(tms, open_bridge, channel, status):
    path = f"/messages/{channel}/1"
    tms.message(path, status, completed_at=None)
    tms.people(path)
    assert await open_bridge(messages=[path]).poll() == [(f"{channel}.message.{status}", path)]


@pytest.mark.parametrize(
    ("detail", "status"),
    [
        ("human", "sent"),
        ("machine", "sent"),
        ("busy", "failed"),
        ("no_answer", "failed"),
        ("could_not_connect", "failed"),
    ],
)
async def test_call_details_are_in_topic_without_a_second_event(tms, open_bridge, detail, status):
    tms.message(V1)
    recipient = person(V1, 7, status, completed_at=stamp(START - timedelta(minutes=1)))
    tms.people(V1, recipient)
    tms.at[f"{V1}/recipients/{detail}"] = [recipient]
    bridge = open_bridge(messages=[V1], interval="10s")
    assert (f"voice.recipient.{status}.{detail}", f"{V1}/recipients/7") in await bridge.poll()
    assert len(bridge.events) == 2


async def test_call_in_two_collections_gets_detail_of_its_status(tms, open_bridge):
    tms.message(V1, recipient_detail_counts={"human": 1, "machine": 0, "busy": 1, "no_answer": 0})
    recipient = person(V1, 7, "failed", completed_at=stamp(START - timedelta(minutes=1)))
    tms.people(V1, recipient)
    tms.at |= {f"{V1}/recipients/human": [recipient], f"{V1}/recipients/busy": [recipient]}
    bridge = open_bridge(messages=[V1])
    assert ("voice.recipient.failed.busy", f"{V1}/recipients/7") in await bridge.poll()
    assert len(bridge.events) == 2


async def test_a_status_is_read_without_the_blanks_around_it(tms, open_bridge):
    tms.message(S1, " sending ")
    tms.people(S1, person(S1, 7, "sent "), person(S1, 8, " "))
    bridge = open_bridge(messages=[S1])
    assert await bridge.poll() == [("sms.message.sending", S1), ("sms.recipient.sent", f"{S1}/recipients/7")]
    assert bridge.source.problems == [f"{S1}: 1 recipients of a page have no status or no identity: passed over"]


@pytest.mark.parametrize(
    ("given", "error", "provider"),
    [
        (" busy ", "busy", {}),
        (17, "17", {}),
        (None, None, {}),
        (" ", None, {}),
        ({"code": 5}, None, {"error_message": {"code": 5}}),
        (["busy"], None, {"error_message": ["busy"]}),
    ],
)
async def test_an_error_message_is_never_lost(tms, open_bridge, given, error, provider):
    tms.message(S1)
    tms.people(S1, person(S1, 7, "failed", error_message=given))
    bridge = open_bridge(messages=[S1])
    await bridge.poll()
    data = bridge.events[-1][3]
    assert (data.error, data.provider) == (error, provider)


async def test_recipient_may_share_its_messages_ledger_name(tms, open_bridge):
    tms.message(S1)
    tms.people(S1, person(S1, 7, "sent") | {"_links": {"self": f"{S1}/recipients/@"}})
    bridge = open_bridge(messages=[S1])
    assert await bridge.poll() == [("sms.message.sending", S1), ("sms.recipient.sent", f"{S1}/recipients/@")]
    bridge.later(900)
    assert await bridge.poll() == []


async def test_a_status_that_nobody_knows_passes_through(tms, open_bridge):
    tms.message(S1, "paused")
    tms.people(S1, person(S1, 7, "teleported"), person(S1, 8, 4), person(S1, 9, "delivered"))
    bridge = open_bridge(messages=[S1], statuses={"delivered": "sent", "paused": "queued"})
    assert [topic for topic, _ in await bridge.poll()] == [
        "sms.message.queued", "sms.recipient.unknown", "sms.recipient.unknown", "sms.recipient.sent",
    ]  # fmt: skip
    assert [facts.raw_status for _, _, facts, _ in bridge.events[1:3]] == ["teleported", "4"]


async def test_call_ending_during_sweep_gets_detail_at_the_next(tms, time, open_bridge):
    tms.message(V1)
    tms.people(V1, person(V1, 7, "sending"), person(V1, 8, "sending"))
    bridge = open_bridge(messages=[V1], interval="10s")
    await bridge.poll()
    bridge.later(10)
    ended = person(V1, 7, "sent", completed_at=stamp(time.now))
    tms.at[f"{V1}/recipients"] = [ended, person(V1, 8, "sending")]
    tms.at[V1]["recipient_counts"] = {"total": 2, "sending": 2, "sent": 0}
    tms.at[V1]["status"] = "completed"  # moves, so that the recipients are read
    assert await bridge.poll() == [("voice.message.completed", V1)]
    bridge.later(10)
    tms.at[V1]["recipient_counts"] = {"total": 2, "sending": 1, "sent": 1}
    tms.at[V1]["recipient_detail_counts"] = {"human": 1, "machine": 0}
    tms.at[f"{V1}/recipients/human"] = [ended]
    assert await bridge.poll() == [("voice.recipient.sent.human", f"{V1}/recipients/7")]


async def test_detail_without_times_is_looked_up_when_new(tms, open_bridge):
    tms.message(V1, recipient_detail_counts={"human": 0, "machine": 0, "busy": 0, "no_answer": 0})
    people = [person(V1, number, "sent") for number in range(3)]
    tms.people(V1, *people)
    tms.at[f"{V1}/recipients/human"] = (people[:1], f'<{V1}/recipients/human?page=2>; rel="next"')
    tms.at[f"{V1}/recipients/human?page=2"] = people[1:2]
    bridge = open_bridge(messages=[V1], interval="10s")
    assert sorted(topic for topic, _ in await bridge.poll()) == [
        "voice.message.sending", "voice.recipient.sent", "voice.recipient.sent.human", "voice.recipient.sent.human",
    ]  # fmt: skip
    assert tms.count(f"{V1}/recipients/human") == 2


async def test_looking_up_details_again_and_again_is_spared(tms, time, open_bridge):
    bridge = open_bridge(messages=[V1])
    kind = bridge.source._kinds["voice"][1]

    def news(*numbers: int) -> list[Observation]:
        return [Observation(kind, V1, str(n), "failed", person(V1, n, "failed"), awaits_detail=True) for n in numbers]

    tms.at[f"{V1}/recipients/busy"] = [person(V1, 1, "failed"), person(V1, 2, "failed"), person(V1, 9, "sent")]
    done = await bridge.source.complete(news(3, 1, 9))
    assert [observation.detail for observation in done] == [None, "busy", None]
    assert not any(observation.awaits_detail for observation in done)
    asked = len(tms.asked)
    assert [observation.detail for observation in await bridge.source.complete(news(2, 4))] == ["busy", None]
    assert len(tms.asked) == asked
    time.seconds += 60
    tms.at[f"{V1}/recipients/no_answer"] = [person(V1, 4, "failed")]
    assert [observation.detail for observation in await bridge.source.complete(news(4))] == ["no_answer"]
    assert [observation.detail for observation in await bridge.source.complete([])] == []
    tms.at[f"{V1}/recipients/busy"] = 500
    time.seconds += 60
    with pytest.raises(errors.Transient):
        await bridge.source.complete(news(5))
    for number in range(2, 14):
        await bridge.source.complete(
            [Observation(kind, f"/messages/voice/{number}", "1", "sent", {}, awaits_detail=True)]
        )
    assert len(bridge.source._details._walks) == 8


async def test_calls_after_already_read_ones_keep_their_details(tms, open_bridge):
    bridge = open_bridge(messages=[V1])
    kind = bridge.source._kinds["voice"][1]
    tms.at[f"{V1}/recipients/busy"] = ([person(V1, 1, "failed")], '<?page=2>; rel="next"')
    tms.at[f"{V1}/recipients/busy?page=2"] = [person(V1, 2, "failed")]
    for key in ("1", "2"):
        (observation,) = await bridge.source.complete([Observation(kind, V1, key, "failed", {}, awaits_detail=True)])
        assert observation.detail == "busy"


# --- what is read, and when -------------------------------------------------------------------------------------------


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


# --- failures ---------------------------------------------------------------------------------------------------------


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


# --- discovery --------------------------------------------------------------------------------------------------------


def listing(*messages: Mapping[str, object]) -> list[object]:
    return list(messages)


def made(number: int, ago: float, status: str = "completed", channel: str = "sms", **fields) -> dict[str, object]:
    created = START - timedelta(seconds=ago)
    return {
        "status": status,
        "created_at": stamp(created),
        "completed_at": stamp(created + timedelta(seconds=60)) if status == "completed" else None,
        "_links": {"self": f"/messages/{channel}/{number}"},
    } | fields


def put(tms: Tms, *messages: dict[str, object]) -> None:
    for message in messages:
        path = message["_links"]["self"]
        tms.at[path] = message | {"recipient_counts": {"total": 0}}
        tms.at[f"{path}/recipients"] = []


def topics(events: list[tuple]) -> list[str]:
    return sorted(subject for _, subject in events)


HOUR = 3600.0


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
    time.set_to += 2 * HOUR
    await bridge.poll()
    time.set_to = 0.0
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


# --- size, order and time ---------------------------------------------------------------------------------------------


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
        time.set_to -= 2 * HOUR
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
    time.set_to += hours * HOUR
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
    time.set_to += days * 24 * HOUR
    await bridge.poll()
    assert json.loads(bridge.cursor[S1])["over"] > START.timestamp() + days * 24 * HOUR - 1
    bridge.later(60)
    time.set_to = 0.0
    tms.people(S1, person(S1, 1, "failed"))
    assert await bridge.poll() == [("sms.recipient.failed", f"{S1}/recipients/1")]
    assert "over" not in json.loads(bridge.cursor[S1])


# --- settings, names, the probe ---------------------------------------------------------------------------------------


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
