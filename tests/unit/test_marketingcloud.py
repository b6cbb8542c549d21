"""Marketing Cloud: its tokens, its feed's watermark, its odd clock, and every event read once."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from catalogue import CATALOGUE
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from yarl import URL

from bridge.domain import errors
from bridge.domain.catalogue import Catalogue, UnknownStatus
from bridge.domain.clock import Clock
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Commit, JournalState, Lease
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.protocols.source import Page
from bridge.sources.marketingcloud import (
    REASONS,
    EmailNotSent,
    EmailQueued,
    EmailSent,
    MarketingCloud,
    MarketingCloudSettings,
    plugin,
)
from bridge.sources.marketingcloud.events import (
    FEEDS,
    SendData,
    SMSNotSent,
    SMSQueued,
    SMSSent,
    describe,
    happened,
    observe,
    watermark,
)
from bridge.sources.marketingcloud.feed_cursor import FeedCursor
from bridge.sources.marketingcloud.tokens import Token

SEED = (Path(__file__).parents[1] / "seeds" / "marketingcloud-sms-not-sent.txt").read_text(encoding="utf-8")
EXAMPLE = """{"lastEventID": 35774, "count": 1, "messages": [{"statusCode": 24, "statusMessage": "…",
       "eventCategoryType": "TransactionalSendEvents.SMSNotSent", "timestamp": "2018-12-17T13:05:40.947",
       "definitionKey": "account-reset", "eventID": 35760, "info": {"messageKey": "…", "contactKey": "…"}}]}"""
SECRET = "cl13nt-s3cr3t"
NOW = datetime(2018, 12, 17, 20, 0, tzinfo=UTC)
PATH = "/messaging/v1/sms/messages/"


@dataclass
class Time:
    """A clock that moves only when somebody sleeps, or a test says so."""

    now: datetime = NOW

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=max(0.0, seconds))
        await asyncio.sleep(0)

    def passes(self, **span) -> None:
        self.now += timedelta(**span)

    def monotonic(self) -> float:
        return (self.now - NOW).total_seconds()

    @cached_property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.monotonic, self.sleep, random.Random(7))


@dataclass
class Memory:
    """A ledger for one source that remembers as long as the test lasts."""

    entries: dict[str, str] = field(default_factory=dict)
    histories: dict = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)

    async def cursor(self, source):
        return dict(self.entries)

    async def watched(self, source):
        return []

    async def journal(self, source):
        return JournalState()

    async def read(self, source, after, limit):
        return []

    async def last_seen(self, source, keys, retention):
        return [self.histories.get(key) for key in keys]

    async def commit(self, lease, commit: Commit) -> int:
        self.histories |= {change.key: change.history for change in commit.statuses}
        self.bodies += [event.body for event in commit.events]
        self.entries |= {name: value for name, value in commit.cursor.items() if value is not None}
        return len(self.bodies)

    @property
    def events(self):
        catalogue = Catalogue((*CATALOGUE, *plugin.events))
        return [catalogue.read(body) for body in self.bodies]

    @property
    def numbers(self) -> list[int]:
        return [event.data.event_id for event in self.events]


def sent(number, category="SMSNotSent", when="2018-12-17T13:05:40.947", **more):
    info = {"messageKey": f"m-{number}", "contactKey": f"c-{number}", "to": "+16515551000"}
    return {
        "statusCode": 24,
        "statusMessage": "on a list",
        "eventCategoryType": f"TransactionalSendEvents.{category}",
        "timestamp": when,
        "definitionKey": "account-reset",
        "eventID": number,
        "info": info,
        **more,
    }


@dataclass
class Vendor:
    """Marketing Cloud as its pages have it, with what each test makes of it."""

    events: list = field(default_factory=list)
    inclusive: bool = False
    watermark: str = "beyond"
    """`beyond` the page's events, `echo` of the question, `absent`, `zero`, or `held` at `low`."""
    low: int = 0
    page: int | None = None
    """The most events on a page, whatever is asked."""
    empty: str = "list"
    feed: list[web.Response | bytes] = field(default_factory=list)
    """Answers to give before any other."""
    refused: set[str] = field(default_factory=set)
    token: dict | None = None
    token_answer: tuple[int, str] | None = None
    hold: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    tokens: list[dict] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def give_token(self, request: web.Request) -> web.Response:
        self.tokens.append(await request.json())
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.token_answer is not None:
            return web.Response(status=self.token_answer[0], text=self.token_answer[1])
        text = f"token-{len(self.tokens)}"
        self.valid.add(f"Bearer {text}")
        granted = {"access_token": text, "token_type": "Bearer", "expires_in": 1079, "rest_instance_url": self.url}
        return web.json_response(granted | (self.token or {}))

    async def give_events(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        if request.headers.get("Authorization") not in self.valid:
            return web.Response(status=401, text='{"message": "Not Authorized", "errorcode": 0}')
        if request.path in self.refused:
            return web.Response(status=403)
        if self.feed:
            answer = self.feed.pop(0)
            return answer if isinstance(answer, web.Response) else web.Response(body=answer)
        return self.answer(request)

    def answer(self, request: web.Request) -> web.Response:
        after = int(request.query.get("lastEventId", 0))
        size = min(int(request.query["$pageSize"]), self.page or 10_000)
        rest = [event for event in self.events if event["eventID"] > after - self.inclusive]
        shown = rest[:size]
        if not shown and self.empty != "list":
            return {
                "null": lambda: web.json_response({"lastEventID": None, "count": 0, "messages": None}),
                "absent": lambda: web.json_response({"count": 0}),
                "none": lambda: web.Response(status=204),
                "zero": lambda: web.json_response({"lastEventID": 0, "count": 0, "messages": []}),
            }[self.empty]()
        highest = max((event["eventID"] for event in shown), default=after)
        state = {
            "beyond": {"lastEventID": highest if len(rest) > size else max(highest, after)},
            "echo": {"lastEventID": after},
            "absent": {},
            "zero": {"lastEventID": 0},
            "held": {"lastEventID": self.low},
        }[self.watermark]
        return web.json_response({"count": len(shown), "messages": shown, **state})

    def places(self) -> list[int | None]:
        return [
            int(request.query["lastEventId"]) if "lastEventId" in request.query else None for request in self.requests
        ]


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def vendor():
    vendor = Vendor()
    app = web.Application()
    app.router.add_post("/v2/token", vendor.give_token)
    app.router.add_get("/{tail:.*}", vendor.give_events)
    async with TestServer(app) as server:
        vendor.url = str(server.make_url("/"))
        yield vendor


@dataclass
class Bridge:
    """A source, the intake before it, and a memory behind it."""

    source: MarketingCloud
    memory: Memory
    time: Time

    async def poll(self):
        clock = self.time.clock
        intake = Intake("journeys", "marketingcloud", self.source, self.memory, clock)
        return await intake.poll(Lease("journeys", "me", 1, 30))


@pytest.fixture
async def bridge(vendor, time):
    made = []

    def make(memory: Memory | None = None, **options) -> Bridge:
        values = {"type": "marketingcloud", "auth_url": vendor.url, "client_id": "id", "client_secret": SECRET}
        checked = MarketingCloudSettings.model_validate({**values, "rate": "1000/s", **options})
        source = plugin.build("journeys", checked, time.clock)
        made.append(source)
        return Bridge(source, memory or Memory(), time)

    yield make
    for source in made:
        await source.close()


# --- the vendor's own pages -------------------------------------------------------------------------------------------


async def test_the_vendors_example_becomes_one_event_with_everything_in_it(vendor, bridge) -> None:
    vendor.feed = [EXAMPLE.encode()]
    poller = bridge()
    await poller.poll()
    (event,) = poller.memory.events
    assert type(event) is SMSNotSent
    assert event.topic == "sms.message.not_sent"
    assert event.type == "bridge.sms.message.not_sent"
    assert event.source == "/marketingcloud/journeys"
    assert event.subject == "/messaging/v1/sms/messages/%E2%80%A6"
    data = json.loads(poller.memory.bodies[0])
    assert data["time"] == "2018-12-17T19:05:40.947Z"
    assert data["data"].pop("observed")["after"] is None
    assert data["data"] == {
        "channel": "sms", "status": "not_sent", "previous": None, "detail": None, "transition": "first",
        "event_id": 35760, "code": 24, "reason": "…", "definition": "account-reset", "message_key": "…",
        "contact_key": "…", "phone": None, "provider_time": "2018-12-17T13:05:40.947",
    }  # fmt: skip
    assert poller.memory.entries["sms.last"] == "35774"


def test_documented_fields_are_read_at_the_top_level() -> None:
    rows = re.findall(r"^\s(\w+?)(integer|string)(?=[A-Z])", SEED, re.MULTILINE)
    samples = {
        "statusCode": 5, "statusMessage": "why", "eventCategoryType": "SMSNotSent", "timestamp": "2018-12-17T13:05:40.94",
        "definitionKey": "d", "eventID": 7, "messageKey": "m", "contactKey": "c", "to": "+16515551000",
    }  # fmt: skip
    names = {name for name, _ in rows}
    assert names == {*samples, "lastEventID"}
    observation = observe("sms", FEEDS["sms"].kind({}), samples)
    facts = observation.kind.describe(observation)
    assert all(value is not None for value in facts.fields.values())
    assert facts.fields["provider"] == {}
    assert watermark({"lastEventID": 7}) == 7


async def test_request_matches_the_vendors_page_with_readable_dollar(vendor, bridge) -> None:
    vendor.events = [sent(number) for number in (1, 2, 3)]
    await bridge(page_size=2).poll()
    assert SEED.splitlines()[0] == f"GET {PATH}?type=notSent"
    assert [request.raw_path for request in vendor.requests] == [
        f"{PATH}?type=notSent&$pageSize=2",
        f"{PATH}?type=notSent&$pageSize=2&lastEventId=2",
        f"{PATH}?type=notSent&$pageSize=2&lastEventId=3",
    ]
    assert all(f"{name}" in SEED for name in ("$pageSize", "lastEventId"))


async def test_rest_address_path_and_its_override_are_used(vendor, bridge) -> None:
    vendor.token = {"rest_instance_url": f"{vendor.url}base/"}
    await bridge().poll()
    assert vendor.requests[-1].path == f"/base{PATH}"
    vendor.token = {"rest_instance_url": "http://127.0.0.1:1/"}
    await bridge(rest_url=f"{vendor.url}other").poll()
    assert vendor.requests[-1].path == f"/other{PATH}"


# --- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "account_id"),
    [({}, {}), ({"account_id": 1234567}, {"account_id": "1234567"}), ({"account_id": "12"}, {"account_id": "12"})],
)
async def test_the_token_request_is_the_documented_one(vendor, bridge, account, account_id) -> None:
    await bridge(**account).poll()
    expected = {"grant_type": "client_credentials", "client_id": "id", "client_secret": SECRET}
    assert vendor.tokens == [expected | account_id]


async def test_a_token_is_used_until_shortly_before_it_expires(vendor, bridge, time) -> None:
    poller = bridge()
    await poller.poll()
    time.passes(seconds=1000)
    await poller.poll()
    assert len(vendor.tokens) == 1
    time.passes(seconds=20)
    await poller.poll()
    assert len(vendor.tokens) == 2
    assert vendor.requests[-1].headers["Authorization"] == "Bearer token-2"


@pytest.mark.parametrize("expires_in", [None, "soon", 0, -5, "1e9", 10**9, {}, True])
async def test_token_without_expiry_is_renewed_every_few_minutes(vendor, bridge, time, expires_in) -> None:
    vendor.token = {"expires_in": expires_in}
    poller = bridge()
    await poller.poll()
    time.passes(seconds=500)
    await poller.poll()
    assert len(vendor.tokens) == 1
    time.passes(seconds=100)
    await poller.poll()
    assert len(vendor.tokens) == 2


async def test_one_token_request_is_in_flight_for_all(vendor, bridge) -> None:
    vendor.hold = asyncio.Event()
    tokens = bridge().source._rest._tokens
    waiting = [asyncio.ensure_future(tokens.get()) for _ in range(5)]
    await asyncio.wait_for(vendor.asked.wait(), 60)
    vendor.hold.set()
    assert len({id(token) for token in await asyncio.gather(*waiting)}) == 1
    assert len(vendor.tokens) == 1


async def test_refused_token_is_renewed_and_retried_once(vendor, bridge) -> None:
    vendor.events = [sent(1)]
    poller = bridge()
    await poller.poll()
    vendor.valid.clear()
    vendor.events.append(sent(2))
    await poller.poll()
    assert poller.memory.numbers == [1, 2]
    assert len(vendor.tokens) == 2


async def test_second_token_refusal_needs_an_operator(vendor, bridge) -> None:
    vendor.refused = {PATH}
    poller = bridge()
    with pytest.raises(errors.Unauthorized, match="403") as caught:
        await poller.poll()
    assert len(vendor.tokens) == 2
    assert len(vendor.requests) == 2
    assert "token-" not in str(caught.value)


async def test_dropping_an_old_token_leaves_the_new_one_alone(vendor, bridge) -> None:
    tokens = bridge().source._rest._tokens
    old = await tokens.get()
    tokens.drop(old)
    new = await tokens.get()
    tokens.drop(old)
    assert await tokens.get() is new


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            401,
            '{"error": "invalid_client", "error_description": "cl13nt-s3cr3t"}',
            errors.Unauthorized,
            "check client_id, client_secret",
        ),
        (403, "", errors.Unauthorized, "check client_id"),
        (
            400,
            '{"error": "invalid_request", "error_description": "cl13nt-s3cr3t"}',
            errors.Unauthorized,
            "400 .code invalid_request.*account_id",
        ),
        (400, "cl13nt-s3cr3t", errors.Unauthorized, "refused with 400: check"),
        (
            301,
            "cl13nt-s3cr3t",
            errors.Unauthorized,
            "301, a redirect: not followed, the token stays here: check auth_url",
        ),
        (404, "<html>cl13nt-s3cr3t", errors.Permanent, "check auth_url"),
        (500, "cl13nt-s3cr3t", errors.Transient, "POST /v2/token: 500"),
        (200, "<html>cl13nt-s3cr3t", errors.Transient, "HTML"),
        (200, '{"token": "cl13nt-s3cr3t"}', errors.Transient, "no access_token"),
        (200, '["cl13nt-s3cr3t"]', errors.Transient, "no access_token"),
    ],
)
async def test_missing_token_is_explained_without_quoting_the_answer(vendor, bridge, status, body, kind, words) -> None:
    vendor.token_answer = status, body
    with pytest.raises(kind, match=words) as caught:
        await bridge().poll()
    assert SECRET not in str(caught.value)
    assert not vendor.requests
    assert len(vendor.tokens) == 1


@pytest.mark.parametrize(
    "rest_url", [None, "", "rest.example.com", "ftp://x.example/", "https://u:p@x.example/", 7, {}]
)
async def test_unusable_rest_address_names_the_helpful_setting(vendor, bridge, rest_url) -> None:
    vendor.token = {"rest_instance_url": rest_url}
    with pytest.raises(errors.Permanent, match="set rest_url"):
        await bridge().poll()


def tokens_of(auth_url: str, time: Time):
    values = {"type": "marketingcloud", "auth_url": auth_url, "client_id": "id", "client_secret": SECRET}
    return MarketingCloud("journeys", MarketingCloudSettings.model_validate(values), time.clock)._rest._tokens


def test_encrypted_token_is_not_sent_in_the_open(time) -> None:
    tokens = tokens_of("https://sub.auth.marketingcloudapis.com", time)
    with pytest.raises(errors.Permanent, match="not encrypted"):
        tokens._rest("http://sub.rest.marketingcloudapis.com/")
    assert tokens._rest("https://sub.rest.marketingcloudapis.com/") == "https://sub.rest.marketingcloudapis.com/"


def test_token_without_host_uses_the_vendors_naming(time) -> None:
    assert (
        tokens_of("https://sub.auth.marketingcloudapis.com", time)._rest(None)
        == "https://sub.rest.marketingcloudapis.com"
    )


async def test_a_token_for_another_host_moves_the_client_there(vendor, bridge, time) -> None:
    poller = bridge()
    await poller.poll()
    vendor.token = {"rest_instance_url": f"{vendor.url}stack2/"}
    time.passes(hours=1)
    await poller.poll()
    assert [asked.path for asked in vendor.requests] == [PATH, f"/stack2{PATH}"]


async def test_renewed_token_goes_to_its_own_host_only(vendor, bridge, monkeypatch) -> None:
    source = bridge(kinds=["sms", "email"]).source
    numbers = itertools.count()

    async def renewed() -> Token:
        number = next(numbers)
        vendor.valid.add(f"Bearer stack{number % 2}-{number}")
        return Token(f"stack{number % 2}-{number}", f"{vendor.url}stack{number % 2}/", 600.0, 0.0)

    monkeypatch.setattr(source._rest._tokens, "get", renewed)
    assert [page async for page in source.pages({}, [])]
    sent_to = [(asked.path[1:7], asked.headers["Authorization"][7:13]) for asked in vendor.requests]
    assert sent_to == [("stack1", "stack1"), ("stack0", "stack0")]


# --- statuses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "category", "expected", "topic"),
    [
        ("sms", "TransactionalSendEvents.SMSNotSent", SMSNotSent, "sms.message.not_sent"),
        ("sms", "SMSSent", SMSSent, "sms.message.sent"),
        ("sms", "transactionalsendevents.smsqueued", SMSQueued, "sms.message.queued"),
        ("sms", "A.B.SMSNOTSENT ", SMSNotSent, "sms.message.not_sent"),
        ("sms", None, SMSNotSent, "sms.message.not_sent"),
        ("sms", "TransactionalSendEvents.", SMSNotSent, "sms.message.not_sent"),
        ("sms", {}, SMSNotSent, "sms.message.not_sent"),
        ("email", "TransactionalSendEvents.EmailNotSent", EmailNotSent, "email.message.not_sent"),
        ("email", "EmailSent", EmailSent, "email.message.sent"),
        ("email", "EmailQueued", EmailQueued, "email.message.queued"),
        ("email", None, EmailNotSent, "email.message.not_sent"),
    ],
)
async def test_every_category_is_a_typed_event(vendor, bridge, kind, category, expected, topic) -> None:
    vendor.events = [sent(1, eventCategoryType=category)]
    poller = bridge(kinds=[kind])
    await poller.poll()
    (event,) = poller.memory.events
    assert type(event) is expected
    assert type(event.data) is SendData
    assert event.topic == topic
    assert event.subject == f"/messaging/v1/{kind}/messages/m-1"
    assert vendor.requests[0].path == f"/messaging/v1/{kind}/messages/"


async def test_unknown_category_is_still_an_event(vendor, bridge) -> None:
    vendor.events = [sent(1, "SMSParked"), sent(2)]
    poller = bridge()
    await poller.poll()
    unknown, known = poller.memory.events
    assert isinstance(unknown, UnknownStatus)
    assert unknown.topic == "sms.message.unknown"
    assert unknown.data.provider_status == "TransactionalSendEvents.SMSParked"
    assert unknown.data.event_id == 1
    assert type(known) is SMSNotSent


@pytest.mark.parametrize("name", ["SMSParked", "TransactionalSendEvents.SMSParked", "smsparked"])
async def test_an_operator_can_teach_it_a_category(vendor, bridge, name) -> None:
    vendor.events = [sent(1, "SMSParked")]
    poller = bridge(statuses={name: "queued"})
    await poller.poll()
    assert type(poller.memory.events[0]) is SMSQueued


def test_settings_that_cannot_work_are_refused() -> None:
    values = {"type": "marketingcloud", "auth_url": "https://x.example", "client_id": "id", "client_secret": SECRET}
    MarketingCloudSettings.model_validate(values)
    with pytest.raises(ValidationError, match="'gone' is not one of queued, sent, not_sent"):
        MarketingCloudSettings.model_validate({**values, "statuses": {"SMSParked": "gone"}})
    with pytest.raises(ValidationError, match="address"):
        MarketingCloudSettings.model_validate({**values, "auth_url": "x.example"})
    with pytest.raises(ValidationError):
        MarketingCloudSettings.model_validate({**values, "page_size": 0})


async def test_unsent_message_sent_later_makes_separate_events(vendor, bridge) -> None:
    """Code 25, SubscriberBlackedOut: the vendor sends it again."""
    key = {"messageKey": "m"}
    vendor.events = [
        sent(number, category, info=key)
        for number, category in enumerate(("SMSNotSent", "SMSNotSent", "SMSQueued", "SMSSent", "SMSNotSent"), 1)
    ]
    poller = bridge()
    await poller.poll()
    await poller.poll()
    assert [(event.data.status, event.data.previous, str(event.data.transition)) for event in poller.memory.events] == [
        ("not_sent", None, "first"),
        ("not_sent", "not_sent", "advance"),
        ("queued", "not_sent", "advance"),
        ("sent", "queued", "advance"),
        ("not_sent", "sent", "reopen"),
    ]
    assert len({event.id for event in poller.memory.events}) == 5


# --- reading events ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2018-12-17T13:05:40.947", "2018-12-17T19:05:40.947"),
        ("2018-07-17T13:05:40.94", "2018-07-17T19:05:40.940"),
        ("2018-07-17T13:05:40.9471", "2018-07-17T19:05:40.947100"),
        ("2018-07-17T13:05:40.9471234", "2018-07-17T19:05:40.947123"),
        ("2018-07-17T13:05:40.9", "2018-07-17T19:05:40.900"),
        ("2018-07-17T13:05:40", "2018-07-17T19:05:40"),
        ("2018-07-17 13:05:40", "2018-07-17T19:05:40"),
        ("2018-12-31T23:59:59.999", "2019-01-01T05:59:59.999"),
        ("2018-03-11T02:30:00", "2018-03-11T08:30:00"),  # does not exist where there is daylight saving
        ("2018-11-04T01:30:00", "2018-11-04T07:30:00"),  # exists twice there
        ("2018-12-17T13:05:40.947Z", "2018-12-17T13:05:40.947"),
        ("2018-12-17T13:05:40-05:00", "2018-12-17T18:05:40"),
    ],
)
def test_times_are_central_standard_time_in_summer_as_well(text, expected) -> None:
    assert happened({"timestamp": text}) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "soon", 1545073540, "2018-13-17T13:05:40", {}])
async def test_unreadable_time_keeps_observation_time_and_raw_text(vendor, bridge, time, text) -> None:
    vendor.events = [sent(1, when=text)]
    poller = bridge()
    await poller.poll()
    (event,) = poller.memory.events
    assert event.time == event.data.observed.by
    assert event.data.provider_time == (str(text) if text and text != {} else None)
    # An event whose time can be read in the next answer is the same event.
    vendor.events, vendor.inclusive = [sent(1)], True
    await poller.poll()
    assert len(poller.memory.events) == 1


async def test_documented_fields_are_read_under_info_or_top_level(vendor, bridge) -> None:
    flat = {"eventID": 2, "messageKey": "m", "contactKey": "c", "to": "16515551000"}
    vendor.events = [
        {"eventID": 1, "info": {"messageKey": "m", "contactKey": "c", "to": "+16515551000", "extra": 1}},
        flat | {"info": None, "colour": "red"},
        flat | {"eventID": 3, "info": {"messageKey": "", "to": None, "contactKey": {"a": 1}}},
        flat | {"eventID": 4, "info": ["odd"], "statusCode": [1]},
    ]
    poller = bridge()
    await poller.poll()
    assert {(event.subject, event.data.contact_key) for event in poller.memory.events} == {(f"{PATH}m", "c")}
    assert [event.data.phone for event in poller.memory.events] == ["+16515551000", *["16515551000"] * 3]
    assert [event.data.provider for event in poller.memory.events] == [
        {"info": {"extra": 1}},
        {"colour": "red"},
        {"info": {"contactKey": {"a": 1}}},
        {"info": ["odd"], "statusCode": [1]},
    ]


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (24, "on a list", (24, "on a list")),
        (25, None, (25, "SubscriberBlackedOut")),
        ("139", "", (139, "TimedoutInQueue")),
        (7777, None, (7777, None)),
        ("E7", None, ("E7", None)),
        (None, "why", (None, "why")),
    ],
)
async def test_reason_is_the_providers_or_the_tables(vendor, bridge, code, message, expected) -> None:
    vendor.events = [sent(1, statusCode=code, statusMessage=message)]
    poller = bridge()
    await poller.poll()
    (event,) = poller.memory.events
    assert (event.data.code, event.data.reason) == expected


def test_the_table_of_reasons_has_all_that_the_vendor_names() -> None:
    assert len(REASONS) == 21
    assert REASONS[118] == "GlobalUnsub"


async def test_subject_escapes_keys_and_keyless_event_has_its_own(vendor, bridge) -> None:
    vendor.events = [sent(1, info={"messageKey": "a/b ?c#é"}), sent(2, info={})]
    poller = bridge()
    await poller.poll()
    assert [event.subject for event in poller.memory.events] == [
        "/messaging/v1/sms/messages/a%2Fb%20%3Fc%23%C3%A9",
        "/messaging/v1/sms/events/2",
    ]


async def test_event_without_id_is_known_by_its_content(vendor, bridge) -> None:
    first, second = (sent(None, info={"messageKey": "m"}, statusMessage=why) for why in "ab")
    vendor.feed = [json.dumps({"messages": [first, second, dict(reversed(first.items()))]}).encode() for _ in range(2)]
    poller = bridge()
    await poller.poll()
    await poller.poll()
    assert [event.data.reason for event in poller.memory.events] == ["a", "b"]


async def test_events_that_say_nothing_are_counted_and_stop_nobody(vendor, bridge) -> None:
    page = {"lastEventID": 9, "messages": [None, 7, {}, [], "x", sent(8)]}
    vendor.feed = [json.dumps(page).encode()]
    poller = bridge()
    result = await poller.poll()
    assert poller.memory.numbers == [8]
    assert result.problems == ["sms: 5 events that say nothing: passed over"]
    assert poller.memory.entries["sms.last"] == "9"


async def test_event_without_id_and_key_is_published_once(vendor, bridge) -> None:
    people = [{"timestamp": "2018-12-17T13:05:40.947", "info": {"contactKey": name, "to": "+1"}} for name in "ab"]
    vendor.feed = [json.dumps({"lastEventID": 9, "messages": [*people, {"eventID": True}]}).encode()] * 2
    poller = bridge()
    for _ in range(2):
        assert (await poller.poll()).problems == []
    assert [event.data.contact_key for event in poller.memory.events] == ["a", "b", None]
    assert all(event.subject.startswith("/messaging/v1/sms/events/") for event in poller.memory.events)


async def test_a_mark_is_written_safely_into_a_subject(vendor, bridge) -> None:
    vendor.feed = [b'{"messages": [{"eventID": "a/b c?"}]}']
    poller = bridge()
    await poller.poll()
    assert [event.subject for event in poller.memory.events] == ["/messaging/v1/sms/events/a%2Fb%20c%3F"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = dict.fromkeys(["messageKey", "contactKey", "to", "odd"], JSON)
FIELDS = {
    **PLACES,
    **dict.fromkeys(["eventID", "eventId", "statusCode", "statusMessage", "timestamp", "eventCategoryType"], JSON),
    "info": JSON | st.fixed_dictionaries({}, optional=PLACES),
}
EVENTS = JSON | st.fixed_dictionaries({}, optional=FIELDS)


@given(item=EVENTS, feed=st.sampled_from(["sms", "email"]))
def test_no_event_breaks_the_reader(item, feed) -> None:
    observation = observe(feed, FEEDS[feed].kind({}), item)
    if observation is None:
        return
    facts = describe(FEEDS[feed], observation)
    data = SendData(channel=feed, status="sent", transition="first", **facts.fields)
    json.loads(data.model_dump_json())
    assert facts.subject.startswith(f"/messaging/v1/{feed}/")
    assert facts.subject.count("/") == 5
    assert observation.occurrence_id
    assert observation.scope.startswith(f"{feed}/")


ANSWERS = st.binary() | (
    JSON | st.fixed_dictionaries({}, optional={"lastEventID": JSON, "messages": JSON | st.lists(EVENTS, max_size=3)})
).map(lambda value: json.dumps(value).encode())


async def test_marketingcloud_raises_only_announced_errors_for_any_answer(vendor, bridge) -> None:
    poller = bridge()
    bodies: list[bytes] = []

    @given(ANSWERS)
    @settings(max_examples=60)
    def collect(body) -> None:
        bodies.append(body)

    collect()
    polls = failures = 0
    for body in bodies:
        vendor.feed = [body]
        try:
            result = await poller.poll()
        except errors.Transient:
            failures += 1
        else:
            polls += 1
            assert all("\n" not in problem for problem in result.problems)
    assert polls
    assert failures


# --- the watermark ----------------------------------------------------------------------------------------------------


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


# --- start: latest ----------------------------------------------------------------------------------------------------


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


# --- failures ---------------------------------------------------------------------------------------------------------


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


# --- beside the poll --------------------------------------------------------------------------------------------------


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
    assert "an idle year costs about 1,082,118 calls, 54% of the smallest yearly allowance" in probe.summary
    assert [request.query["$pageSize"] for request in vendor.requests] == ["1", "1"]
    assert "token-" not in probe.summary


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
