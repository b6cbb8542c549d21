"""Spacivox: what is asked, what is read from the answers, and what can never be missed."""

from __future__ import annotations

import asyncio
import json
import random
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from catalogue import CATALOGUE
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import ValidationError
from structlog.testing import capture_logs
from yarl import URL

from bridge.adapters.sqlite.store import SqliteStore
from bridge.domain import errors
from bridge.domain.catalogue import Catalogue, UnknownStatus
from bridge.domain.clock import Clock
from bridge.http.client import HttpClient, HttpLimits
from bridge.http.errors import RequestRejected
from bridge.http.limiter import Limiter
from bridge.http.response import Response
from bridge.ingest.intake import Intake
from bridge.protocols.ledger import Commit, JournalState, Lease
from bridge.protocols.request_context import LeaseDeadline, bind, reset
from bridge.protocols.source import Page
from bridge.reconciliation.comparison import CompareOptions
from bridge.reconciliation.reconciler import Reconciler
from bridge.sources.spacivox import Spacivox, SpacivoxSettings, plugin
from bridge.sources.spacivox.events import DropData
from bridge.sources.spacivox.records import RECORDS, RecordType, Unreadable, describe, kind_of, observe
from bridge.sources.spacivox.window import CursorKeys, Progress, Slice, due, period, slices

SEED = (Path(__file__).parents[1] / "seeds" / "spacivox-voicemail-drop-records.txt").read_text(encoding="utf-8")
TOKEN = "0a1b2c3d4e5f"
NOW = datetime(2015, 1, 6, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
VOICEMAIL = RECORDS["voicemail_drop"]


@dataclass
class Time:
    """A clock that moves only when somebody sleeps, or a test says so."""

    now: datetime = NOW

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=max(0.0, seconds))
        await asyncio.sleep(0)

    def passes(self, **span) -> None:
        self.now += timedelta(**span)

    @cached_property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.monotonic, self.sleep, random.Random(7))

    def monotonic(self) -> float:
        return (self.now - NOW).total_seconds()


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
        for name in [name for name, value in commit.cursor.items() if value is None]:
            self.entries.pop(name, None)
        return len(self.bodies)

    @property
    def events(self):
        catalogue = Catalogue((*CATALOGUE, *plugin.events))
        return [catalogue.read(body) for body in self.bodies]

    @property
    def said(self):
        return [(event.subject.rpartition("/")[2], event.topic, str(event.data.transition)) for event in self.events]


@dataclass
class Vendor:
    """Spacivox as its page has it, with what each test makes of it."""

    records: list = field(default_factory=list)
    inclusive: bool = True
    widest: timedelta | None = None
    refusal: int = 504
    broken: set[str] = field(default_factory=set)
    """Days of which nothing can be had."""
    forbidden: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    """Days of which nothing is answered at all."""
    wait: str | None = None
    """The `Retry-After` of a refusal."""
    throttled_at: int = 0
    """The request, counted from 1, that is answered with a wish for fewer."""
    throttled: set[str] = field(default_factory=set)
    """Days of which each request is answered with a wish for fewer."""
    answer: web.Response | None = None
    raw: bytes | None = None
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" or request.path in self.forbidden:
            return web.json_response({"error": "forbidden"}, status=403)
        if self.answer is not None:
            return web.Response(body=self.answer.body, status=self.answer.status, headers=self.answer.headers)
        if not {"start", "end"} <= set(request.query):
            return web.Response(status=400)
        since, until = (datetime.fromisoformat(request.query[name]) for name in ("start", "end"))
        if self._within(self.silent, since, until):
            request.transport.close()
        if self._within(self.throttled, since, until) or len(self.requests) == self.throttled_at:
            return web.Response(status=429)
        return await self._refusal(since, until) or self._listing(request, since, until)

    async def _refusal(self, since, until) -> web.Response | None:
        if self.widest is not None and until - since > self.widest:
            if not self.refusal:
                await asyncio.sleep(30)
            headers = {} if self.wait is None else {"Retry-After": self.wait}
            return web.Response(status=self.refusal, text="<html>too much</html>", headers=headers)
        return web.Response(status=500) if self._within(self.broken, since, until) else None

    @staticmethod
    def _within(days, since, until) -> bool:
        return any(since < datetime.fromisoformat(f"{day}T12:00:00Z") < until for day in days)

    def _listing(self, request, since, until) -> web.Response:
        if self.raw is not None:
            return web.Response(body=self.raw, content_type="application/json")
        return web.json_response([poller for poller in self.records if self._fits(poller, since, until, request.query)])

    def _fits(self, record, since, until, query) -> bool:
        if "team" in query and str(record.get("team")) != query["team"]:
            return False
        when = datetime.fromisoformat(record["timestamp"])
        return since <= when <= until if self.inclusive else since < when < until

    def spans(self) -> list[timedelta]:
        return [
            datetime.fromisoformat(poller.query["end"]) - datetime.fromisoformat(poller.query["start"])
            for poller in self.requests
        ]


def stamp(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(number=1, state=0, when=NOW - timedelta(hours=1), /, **more):
    fields = {"campaign": 1, "id": number, "job": 1, "number": "+33612345678", "reference": "123456"}
    return {**fields, "state": state, "team": 1, "timestamp": stamp(when), **more}


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def vendor():
    poller = Vendor()
    app = web.Application()
    app.router.add_get("/{tail:.*}", poller.handle)
    async with TestServer(app) as server:
        poller.url = str(server.make_url("/"))
        yield poller


@dataclass
class Bridge:
    """A source, the intake before it, and a memory behind it."""

    source: Spacivox
    memory: Memory
    time: Time

    async def poll(self):
        clock = self.time.clock
        return await Intake("drops", "spacivox", self.source, self.memory, clock).poll(Lease("drops", "me", 1, 30))

    async def pages(self) -> list[Page]:
        own = {key: value for key, value in self.memory.entries.items() if not key.startswith("~")}
        return [page async for page in self.source.pages(own, [])]


@pytest.fixture
async def bridge(vendor, time):
    made = []

    def make(memory: Memory | None = None, **options) -> Bridge:
        values = {"type": "spacivox", "url": vendor.url, "token": TOKEN, "rate": "1000/s", **options}
        source = plugin.build("drops", SpacivoxSettings.model_validate(values), time.clock)
        made.append(source)
        return Bridge(source, memory or Memory(), time)

    yield make
    for source in made:
        await source.close()


# --- the vendor's own page --------------------------------------------------------------------------------------------


async def test_vendors_example_becomes_one_complete_event(vendor, bridge) -> None:
    vendor.raw = re.search(r"^\[\n.*?^\]\n", SEED, re.MULTILINE | re.DOTALL)[0].encode()
    poller = bridge()
    await poller.poll()
    (event,) = poller.memory.events
    assert event.topic == "voicemail.drop.sent"
    assert event.type == "bridge.voicemail.drop.sent"
    assert event.source == "/spacivox/drops"
    assert event.subject == "/j/voicemail_drop_records/1"
    data = json.loads(poller.memory.bodies[0])
    assert data["time"] == "2015-01-06T10:21:14.243Z"
    assert data["data"].pop("observed")["after"] is None
    assert data["data"] == {
        "channel": "voicemail", "status": "sent", "previous": None, "detail": None, "transition": "first",
        "phone": "+33612345678", "campaign": 1, "job": 1, "team": 1, "reference": "123456", "state": 0,
        "timestamp": "2015-01-06T10:21:14.243Z",
    }  # fmt: skip


async def test_what_is_asked_is_what_the_vendors_page_shows(vendor, bridge) -> None:
    await bridge(team=1).poll()
    example = next(line for line in SEED.splitlines() if line.startswith("GET /j/voicemail_drop_records?"))
    shown = URL("http://x" + example.split()[1])
    for asked in vendor.requests:
        assert asked.path == shown.path
        assert set(asked.query) == set(shown.query)
        assert asked.query["team"] == shown.query["team"]
        assert all(re.fullmatch(r"2015-01-0\dT\d\d:\d\d:\d\d\.\d{3}Z", asked.query[name]) for name in ("start", "end"))
    assert f"Authorization: {vendor.requests[0].headers['Authorization']}" in SEED


async def test_window_reaches_from_lookback_to_shortly_after_now(vendor, bridge) -> None:
    await bridge().poll()
    starts = [datetime.fromisoformat(poller.query["start"]) for poller in vendor.requests]
    ends = [datetime.fromisoformat(poller.query["end"]) for poller in vendor.requests]
    assert min(starts) == NOW - timedelta(hours=72, seconds=1)
    assert NOW < max(ends) < NOW + timedelta(minutes=10)
    assert all(end > start for end, start in zip(ends, starts[1:], strict=False))  # they overlap
    assert all(span <= DAY + timedelta(seconds=2) for span in vendor.spans())


async def test_request_names_no_team_or_each_listed_team(vendor, bridge) -> None:
    await bridge().poll()
    assert not any("team" in poller.query for poller in vendor.requests)
    vendor.requests.clear()
    vendor.records = [record(1, team=7), record(2, team=8), record(3, team=9)]
    poller = bridge(team=[7, 8, 7])
    await poller.poll()
    assert {poller.query["team"] for poller in vendor.requests} == {"7", "8"}
    assert [said[0] for said in poller.memory.said] == ["1", "2"]


# --- statuses ---------------------------------------------------------------------------------------------------------

STATES = {0: "sent", 1: "delivered", 2: "failed", 3: "rejected"}


@pytest.mark.parametrize(
    "written", [lambda n: n, str, float, lambda n: f" {n} "], ids=["int", "text", "float", "blanks"]
)
@pytest.mark.parametrize(
    ("sort", "stem"), [("voicemail_drop", "voicemail.drop"), ("text", "sms.text"), ("email", "email.message")]
)
async def test_every_state_spelling_is_a_typed_event(vendor, bridge, sort, stem, written) -> None:
    vendor.records = [record(10 + number, written(number)) for number in STATES]
    poller = bridge(records=[sort])
    await poller.poll()
    assert [event.topic for event in poller.memory.events] == [f"{stem}.{status}" for status in STATES.values()]
    assert [type(event) for event in poller.memory.events] == list(RECORDS[sort].events)
    assert all(type(event.data) is DropData for event in poller.memory.events)
    assert {asked.path for asked in vendor.requests} == {RECORDS[sort].path}


async def test_drop_moves_from_sent_to_end_and_can_reopen(vendor, bridge, time) -> None:
    poller = bridge()
    for state in (0, 0, 1, 2, 0, 3):
        vendor.records = [record(1, state)]
        await poller.poll()
        time.passes(minutes=1)
    assert poller.memory.said == [
        ("1", "voicemail.drop.sent", "first"),
        ("1", "voicemail.drop.delivered", "advance"),
        ("1", "voicemail.drop.failed", "reopen"),
        ("1", "voicemail.drop.sent", "reopen"),
        ("1", "voicemail.drop.rejected", "advance"),
    ]
    assert len({event.id for event in poller.memory.events}) == 5


@pytest.mark.parametrize(
    ("state", "status"),
    [(9, 9), ("parked", "parked"), (-1, -1), (0.5, "0.5"), (True, "true"), ([1], "[1]"), ({"a": 1}, '{"a": 1}')],
)
async def test_unknown_state_is_still_an_event(vendor, bridge, state, status) -> None:
    vendor.records = [record(1, state), record(2, 1)]
    poller = bridge()
    await poller.poll()
    unknown, known = poller.memory.events
    assert isinstance(unknown, UnknownStatus)
    assert unknown.topic == "voicemail.drop.unknown"
    assert unknown.data.provider_status == status
    assert unknown.data.phone == "+33612345678"
    assert known.topic == "voicemail.drop.delivered"


async def test_an_operator_can_teach_it_a_state(vendor, bridge) -> None:
    vendor.records = [record(1, 9), record(2, "parked")]
    poller = bridge(statuses={"9": "delivered", "parked": "sent"})
    await poller.poll()
    assert [topic for _, topic, _ in poller.memory.said] == ["voicemail.drop.delivered", "voicemail.drop.sent"]


def test_undefined_status_is_refused_with_the_defined_ones() -> None:
    with pytest.raises(ValidationError, match=r"'9': 'gone' is not one of sent, delivered, failed, rejected"):
        SpacivoxSettings(type="spacivox", url="https://x.example", token=TOKEN, statuses={"9": "gone"})


@pytest.mark.parametrize(
    "url",
    [
        "spacivox.example.com",
        "ftp://x.example",
        "https://",
        "https://u:p@x.example",
        "https://x.example?a=1",
        "https://x:99999",
    ],
)
def test_an_address_that_cannot_be_asked_is_a_configuration_error(url) -> None:
    with pytest.raises(ValidationError, match="address"):
        SpacivoxSettings(type="spacivox", url=url, token=TOKEN)


# --- reading records --------------------------------------------------------------------------------------------------


async def test_records_that_cannot_be_read_are_counted_and_stop_nobody(vendor, bridge) -> None:
    vendor.raw = json.dumps(
        [
            None,
            7,
            "x",
            [],
            {},
            record(None),
            record(True),
            record(1, None),
            record(2, ""),
            {"id": 3},
            record(4, 1),
        ]
    ).encode()
    poller = bridge(slice="96h", lookback="1h")
    result = await poller.poll()
    assert poller.memory.said == [("4", "voicemail.drop.delivered", "first")]
    assert result.problems == [
        "7 records of voicemail_drop without an id: passed over",
        "3 records of voicemail_drop without a state that can be read: passed over",
    ]
    assert "336" not in "".join(result.problems)


async def test_absent_null_or_new_fields_lose_no_record(vendor, bridge) -> None:
    vendor.records = [
        {"id": 1, "state": 0},
        record(2, 1, number=None, campaign=None, job=None, reference=None, team=None),
        record(
            3, 2, number=33612345678, campaign="c-1", job="7", reference=17, carrier={"name": "x"}, timestamp="soon"
        ),
        record("a/b c", 3, campaign={"id": 1}, job=[1], team=True),
    ]
    vendor.raw = json.dumps(vendor.records).encode()
    poller = bridge()
    await poller.poll()
    bare, nulls, other, odd = poller.memory.events
    assert (bare.data.phone, bare.data.timestamp, bare.time) == (None, None, bare.data.observed.by)
    assert (nulls.data.campaign, nulls.data.reference, nulls.data.provider) == (None, None, {})
    assert (other.data.phone, other.data.campaign, other.data.job, other.data.reference) == (
        "33612345678",
        "c-1",
        "7",
        "17",
    )
    assert other.data.provider == {"carrier": {"name": "x"}, "timestamp": "soon"}
    assert odd.subject == "/j/voicemail_drop_records/a%2Fb%20c"
    assert odd.data.provider == {"campaign": {"id": 1}, "job": [1], "team": True}


@pytest.mark.parametrize(
    ("addresses", "phone", "rest"),
    [
        ({"number": "+33612345678", "email": "jo@x.example"}, "+33612345678", {"email": "jo@x.example"}),
        ({"number": "0612345678", "email": "jo@x.example"}, "0612345678", {"email": "jo@x.example"}),
        ({"number": None, "email": "jo@x.example"}, "jo@x.example", {}),
        ({"number": {"e164": "+1"}, "email": "jo@x.example"}, "jo@x.example", {"number": {"e164": "+1"}}),
        ({"number": "jo@x.example", "email": " jo@x.example "}, "jo@x.example", {}),
    ],
)
async def test_of_an_e_mail_with_a_number_both_are_told(vendor, bridge, addresses, phone, rest) -> None:
    vendor.records = [record(1, 0, **addresses)]
    poller = bridge(records=["email"])
    await poller.poll()
    (event,) = poller.memory.events
    assert (event.data.phone, event.data.provider) == (phone, rest)


async def test_records_with_one_reference_are_told_apart_by_id(vendor, bridge) -> None:
    vendor.records = [record(1, reference="same"), record(2, reference="same")]
    poller = bridge()
    await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["1", "2"]


async def test_ids_of_different_sorts_do_not_meet(vendor, bridge) -> None:
    vendor.records = [record(1)]
    poller = bridge(records=["voicemail_drop", "text", "email", "text"])
    await poller.poll()
    assert [event.subject for event in poller.memory.events] == [
        "/j/voicemail_drop_records/1",
        "/j/text_records/1",
        "/j/email_records/1",
    ]
    assert len(poller.memory.histories) == 3


async def test_record_keeps_its_identity_when_its_day_changes(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0, NOW - DAY)]
    poller = bridge(timestamp_is="updated")
    await poller.poll()
    time.passes(minutes=20)
    vendor.records = [record(1, 1, NOW)]
    await poller.poll()
    assert poller.memory.said == [("1", "voicemail.drop.sent", "first"), ("1", "voicemail.drop.delivered", "advance")]


@pytest.mark.parametrize(("dated", "hours"), [("created", 12), ("updated", 11)])
async def test_what_the_timestamp_means_decides_whose_time_an_event_has(vendor, bridge, time, dated, hours) -> None:
    vendor.records = [record(1, 0)]
    poller = bridge(timestamp_is=dated)
    await poller.poll()
    vendor.records = [record(1, 1)]
    await poller.poll()
    first, second = poller.memory.events
    assert first.time == NOW - timedelta(hours=1)
    assert second.time.hour == hours


@pytest.mark.parametrize(
    ("key", "timestamp", "scope"),
    [
        ("1", None, "voicemail_drop/0"),
        ("999", "2015-01-06T10:00:00Z", "voicemail_drop/0"),
        ("1000", None, "voicemail_drop/1"),
        ("a1", "2015-01-06T23:30:00-02:00", "voicemail_drop/2015-01-07"),
        ("a1", "soon", "voicemail_drop/undated"),
        ("9223372036854775807", None, "voicemail_drop/9223372036854775"),
        ("9" * 41, None, "voicemail_drop/undated"),
        ("-1", None, "voicemail_drop/undated"),
        ("٣", None, "voicemail_drop/undated"),
    ],
)
def test_records_of_about_one_age_are_kept_and_forgotten_together(key, timestamp, scope) -> None:
    kind = kind_of(VOICEMAIL, {}, "created")
    assert observe("voicemail_drop", VOICEMAIL, kind, {"id": key, "state": 0, "timestamp": timestamp}).scope == scope


def test_call_records_are_a_table_row_away() -> None:
    calls = RecordType("/j/call_records", VOICEMAIL.events, addresses=("callee",), state="error")
    poller = observe("call", calls, kind_of(calls, {}, "created"), {"id": 5, "error": 2, "callee": "+33612345678"})
    facts = poller.kind.describe(poller)
    assert (poller.status, facts.subject, facts.fields["phone"]) == ("2", "/j/call_records/5", "+33612345678")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["id", "state", "number", "campaign", "job", "team", "reference", "timestamp", "odd"]
ITEMS = JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON | st.integers(0, 9)))


@given(item=ITEMS, dated=st.sampled_from(["created", "updated"]))
def test_no_record_breaks_the_reader(item, dated) -> None:
    poller = observe("voicemail_drop", VOICEMAIL, kind_of(VOICEMAIL, {}, dated), item)
    if isinstance(poller, Unreadable):
        return
    facts = describe(VOICEMAIL, dated, poller)
    data = DropData(channel="voicemail", status="sent", transition="first", **facts.fields)
    json.loads(data.model_dump_json())
    assert facts.subject.startswith("/j/voicemail_drop_records/")
    assert facts.subject.count("/") == 3
    kept = set(facts.fields["provider"]) | {"id"}
    assert all(name in kept or name in FIELDS for name in item)


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=50)
def test_spacivox_raises_only_announced_errors_for_any_answer(body) -> None:
    async def poll() -> None:
        with suppress(errors.Transient):
            async for page in _source(lambda _start, _end: body).pages({}, []):
                assert isinstance(page, Page)

    asyncio.run(poll())


# --- the window -------------------------------------------------------------------------------------------------------


async def test_a_late_change_of_an_old_record_is_seen(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0, NOW - timedelta(hours=60))]
    poller = bridge()
    await poller.poll()
    vendor.records = [record(1, 1, NOW - timedelta(hours=60))]
    time.passes(minutes=10)
    await poller.poll()
    assert poller.memory.said == [("1", "voicemail.drop.sent", "first"), ("1", "voicemail.drop.delivered", "advance")]


async def test_first_start_ignores_records_before_the_lookback(vendor, bridge) -> None:
    vendor.records = [
        record(1, 0, NOW - timedelta(hours=72, seconds=5)),
        record(2, 0, NOW - timedelta(hours=71, minutes=59)),
    ]
    poller = bridge()
    await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["2"]


async def test_after_an_outage_longer_than_the_lookback_nothing_is_missing(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0, NOW - timedelta(hours=1))]
    memory = Memory()
    await bridge(memory).poll()
    time.passes(days=9)
    vendor.records = [record(1, 1, NOW - timedelta(hours=1)), record(2, 3, NOW + timedelta(days=3))]
    poller = bridge(memory)
    await poller.poll()
    assert memory.said[1:] == [("1", "voicemail.drop.delivered", "advance"), ("2", "voicemail.drop.rejected", "first")]
    vendor.requests.clear()
    time.passes(minutes=20)
    await poller.poll()
    assert min(datetime.fromisoformat(asked.query["start"]) for asked in vendor.requests) > time.now - timedelta(
        hours=73
    )


async def test_an_outage_beyond_the_bound_is_cut_and_said(vendor, bridge, time) -> None:
    memory = Memory()
    await bridge(memory).poll()
    vendor.records = [record(1, 0, NOW + DAY)]
    time.passes(days=60)
    vendor.requests.clear()
    with capture_logs() as logs:
        await bridge(memory).poll()
    (line,) = [line for line in logs if line["event"] == "source.outage_too_long"]
    assert "catch_up" in line["consequence"]
    assert min(datetime.fromisoformat(asked.query["start"]) for asked in vendor.requests) > time.now - timedelta(
        days=30, minutes=1
    )
    reads = [name for name in memory.entries if ".read." in name]
    assert all(datetime.fromisoformat(name.split(".read.")[1].split("+")[0]) > time.now - 32 * DAY for name in reads)


async def test_a_clock_that_once_ran_ahead_hides_nothing(vendor, bridge, time) -> None:
    memory = Memory()
    time.passes(days=400)
    await bridge(memory).poll()
    time.now = NOW
    vendor.records = [record(1)]
    await bridge(memory).poll()
    assert [subject for subject, _, _ in memory.said] == ["1"]


async def test_changed_slice_size_starts_new_slices(vendor, bridge) -> None:
    memory = Memory()
    await bridge(memory).poll()
    await bridge(memory, slice="12h").poll()
    assert memory.entries
    assert not any(name.endswith("+86400s") for name in memory.entries)
    assert sum(name.endswith("+43200s") for name in memory.entries) == 7


async def test_the_cursor_does_not_grow(vendor, bridge, time) -> None:
    poller = bridge(lookback="24h", interval="1h")
    sizes = []
    for _ in range(100):
        await poller.poll()
        time.passes(hours=3)
        sizes.append(len(poller.memory.entries))
    assert max(sizes[20:]) <= max(sizes[:20])


@pytest.mark.parametrize("inclusive", [True, False])
async def test_record_on_a_slice_border_is_read_once(vendor, bridge, inclusive) -> None:
    vendor.inclusive = inclusive
    border = datetime(2015, 1, 6, tzinfo=UTC)
    vendor.records = [record(number, 0, border + timedelta(milliseconds=number - 2)) for number in range(1, 4)]
    poller = bridge()
    pages = await poller.pages()
    assert sorted(seen.key for page in pages for seen in page.observations) == ["1", "2", "3"]


async def test_record_changing_between_overlapping_requests_shows_both_states(vendor, bridge) -> None:
    border = NOW.replace(hour=0)
    vendor.records = [record(1, 0, border)]
    poller = bridge()

    async def changes(since, until) -> None:
        vendor.records = [record(1, int(since > border - DAY), border)]

    vendor._refusal = changes
    await poller.poll()
    assert [topic for _, topic, _ in poller.memory.said] == ["voicemail.drop.sent", "voicemail.drop.delivered"]


async def test_record_in_two_states_of_one_answer_is_published_once(vendor, bridge, time) -> None:
    vendor.records = [record(1, 1), record(2, 0), record(1, 0)]
    poller = bridge()
    for _ in range(3):
        await poller.poll()
        time.passes(minutes=1)
    assert poller.memory.said == [("1", "voicemail.drop.sent", "first"), ("2", "voicemail.drop.sent", "first")]


async def test_baseline_records_of_a_failed_slice_stay_unpublished(vendor, bridge, time) -> None:
    poller = bridge(first_sight="baseline", lookback="3d")
    intake = Intake("drops", "spacivox", poller.source, poller.memory, time.clock, baseline=True)

    async def poll() -> list[tuple[str, str | None]]:
        before = len(poller.memory.events)
        time.passes(hours=1)
        await intake.poll(Lease("drops", "me", 1, 30))
        return [(event.subject.rpartition("/")[2], event.data.status) for event in poller.memory.events[before:]]

    yesterday, today = NOW - timedelta(days=1), NOW
    vendor.records = [record(1, 0, yesterday), record(2, 1, today)]
    vendor.broken = {f"{yesterday:%Y-%m-%d}"}
    assert await poll() == []
    assert poller.source.problems
    vendor.records += [record(3, 0, NOW + timedelta(hours=1, minutes=30))]
    vendor.broken = set()
    assert await poll() == [("3", "sent")], "what came since is news, and what was there is not"
    vendor.records[0] |= {"state": 2}
    vendor.records += [record(4, 0, yesterday)]
    assert await poll() == [("1", "failed"), ("4", "sent")], (
        "a change is news, and so is what turns up where all was read"
    )
    assert "voicemail_drop.begun" in poller.memory.entries
    time.passes(days=4)
    await poll()
    await poll()
    assert "voicemail_drop.begun" not in poller.memory.entries


async def test_big_answer_is_committed_in_pages_before_the_cursor(vendor, bridge) -> None:
    vendor.records = [record(number) for number in range(1, 1202)]
    poller = bridge(lookback="1h")
    pages = [page for page in await poller.pages() if page.observations]
    assert [len(page.observations) for page in pages] == [500, 500, 201]
    assert [bool(page.cursor) for page in pages] == [False, False, True]


async def test_the_event_says_between_which_two_polls_the_change_happened(vendor, bridge, time) -> None:
    vendor.records = [record(1, 0)]
    poller = bridge()
    await poller.poll()
    time.passes(minutes=1)
    vendor.records = [record(1, 1)]
    await poller.poll()
    first, second = poller.memory.events
    assert first.data.observed.after is None
    assert NOW <= second.data.observed.after < NOW + timedelta(seconds=5)
    assert NOW + timedelta(minutes=1) <= second.data.observed.by < NOW + timedelta(minutes=1, seconds=5)


async def test_late_record_of_a_new_day_is_still_read(vendor, bridge, time) -> None:
    time.now = NOW.replace(hour=23, minute=50)
    poller = bridge()
    await poller.poll()
    time.passes(minutes=11)
    vendor.records = [record(1, 0, time.now - timedelta(seconds=10))]
    await poller.poll()
    (event,) = poller.memory.events
    assert event.data.observed.after.date() == NOW.date()


async def test_newest_records_are_read_most_often(vendor, bridge, time) -> None:
    poller = bridge()
    counts = []
    for _ in range(12):
        vendor.requests.clear()
        await poller.poll()
        counts.append(len(vendor.requests))
        time.passes(seconds=60)
    assert counts[0] == 4
    assert counts.count(1) == 10
    assert counts[10] == 4


@pytest.mark.parametrize(
    ("age", "expected"),
    [(-300, 60), (0, 60), (1800, 60), (3600, 60), (7200, 120), (18000, 300), (36000, 600), (250000, 600)],
)
def test_how_often_a_slice_is_read_depends_on_its_age(age, expected) -> None:
    assert period(age, 60.0, 600.0) == expected


def test_slice_is_due_after_its_period_or_when_unread() -> None:
    part = Slice(NOW - 2 * DAY, NOW - 2 * DAY, NOW - DAY)
    assert due(part, None, NOW, 60.0, 600.0)
    assert not due(part, NOW - timedelta(minutes=9), NOW, 60.0, 600.0)
    assert due(part, NOW - timedelta(minutes=9, seconds=40), NOW, 60.0, 600.0)


@given(
    start=st.timedeltas(timedelta(0), timedelta(days=9)).map(lambda span: NOW + span),
    span=st.timedeltas(timedelta(0), timedelta(days=5)),
    size=st.timedeltas(timedelta(hours=1), timedelta(days=3)),
)
def test_slices_cover_the_window_on_a_fixed_grid(start, span, size) -> None:
    parts = list(slices(start, start + span, size))
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    assert not parts or (parts[0].start, parts[-1].end) == (start, start + span)
    later = {part.grid for part in slices(start + size, start + span, size)}
    assert later == {part.grid for part in parts if part.grid + size > start + size}


def test_unreadable_cursor_keys_are_dropped_and_foreign_ones_kept() -> None:
    entries = CursorKeys("text", DAY)
    good = entries.read(NOW.replace(hour=0))
    cursor = {
        good: stamp(NOW - DAY),
        "text.read.soon+86400s": stamp(NOW),
        entries.read(NOW.replace(hour=0) - DAY): "soon",
        entries.read(NOW.replace(hour=0) - 2 * DAY): stamp(NOW + DAY),
        "voicemail_drop.read.2015-01-06T00:00:00Z+86400s": stamp(NOW),
        "text.floor": "soon",
    }
    progress, stale = entries.load(cursor, NOW, 3 * DAY)
    assert progress == Progress(NOW - 3 * DAY, {NOW.replace(hour=0): NOW - DAY})
    assert len(stale) == 3


def _source(respond, time: Time | None = None, **options) -> Spacivox:
    """Return a source whose answers are made without a server: for thousands of polls."""
    time = time or Time()
    values = {"type": "spacivox", "url": "http://x.example", "token": TOKEN, **options}

    class Direct(Spacivox):
        async def _ask(self, listing, start, end):
            body = respond(start, end)
            what = f"GET {listing.record.path}"
            if isinstance(body, Exception):
                raise body
            return Response(
                what, 200, body, time.now, time.now, URL("http://x.example"), CIMultiDictProxy(CIMultiDict())
            )

    return Direct("drops", SpacivoxSettings.model_validate(values), time.clock)


@dataclass
class Life:
    """One record, what becomes of it, and a provider that fails now and then."""

    created: datetime
    changes: list[int]
    """Hours after its creation."""
    time: Time = field(default_factory=Time)
    mode: str = "up"
    cursor: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)

    def respond(self, start: datetime, end: datetime):
        if self.mode == "down" or (self.mode == "half" and start.day % 2):
            return errors.Transient("GET /j/voicemail_drop_records: 500")
        shown = start <= self.created <= end and self.created <= self.time.now
        state = sum(self.time.now >= self.created + timedelta(hours=hour) for hour in self.changes)
        return json.dumps([record(1, state, self.created)] if shown else []).encode()

    async def poll(self, source: Spacivox) -> None:
        with suppress(errors.Transient):
            async for page in source.pages(dict(self.cursor), []):
                self.known.extend(poller.status for poller in page.observations)
                self.cursor |= {name: value for name, value in page.cursor.items() if value is not None}
                for name in [name for name, value in page.cursor.items() if value is None]:
                    self.cursor.pop(name, None)

    async def live(self, steps) -> None:
        source = _source(self.respond, self.time, lookback="48h", interval="1m", catch_up="2000d")
        await self.poll(source)
        for minutes, self.mode in steps:
            self.time.passes(minutes=minutes * 7)
            await self.poll(source)
        self.mode = "up"
        self.time.now = max(self.time.now, self.created + timedelta(hours=48))
        await self.poll(source)
        self.time.passes(minutes=10)
        await self.poll(source)


@given(
    steps=st.lists(st.tuples(st.integers(1, 400), st.sampled_from(["up", "up", "up", "down", "half"])), max_size=40),
    born=st.integers(-47, 60),
    changes=st.lists(st.integers(0, 47), max_size=3),
)
@settings(max_examples=60)
def test_no_failure_loses_a_record_before_its_time(steps, born, changes) -> None:
    life = Life(NOW + timedelta(hours=born), changes)
    asyncio.run(life.live(steps))
    assert life.known
    assert life.known[-1] == str(len(changes))


# --- too much at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [400, 408, 413, 504, 524])
async def test_oversized_slice_is_halved_until_accepted(vendor, bridge, refusal) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=4), refusal
    vendor.records = [record(number, 0, NOW - timedelta(hours=number)) for number in range(1, 71)]
    poller = bridge()
    result = await poller.poll()
    assert result.problems == []
    assert sorted(int(subject) for subject, _, _ in poller.memory.said) == list(range(1, 71))
    assert len(vendor.requests) < 60


async def test_oversized_slice_is_halved_also_after_retry_after(vendor, bridge, time) -> None:
    vendor.widest, vendor.wait = timedelta(hours=4), "10"
    vendor.records = [record(1), record(2, 0, NOW - timedelta(hours=70))]
    poller = bridge()
    result = await poller.poll()
    assert result.problems == []
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]
    assert time.now - NOW >= timedelta(seconds=30)


async def test_long_retry_after_ends_poll_and_next_asks_less(vendor, bridge, time) -> None:
    vendor.widest, vendor.wait = timedelta(hours=2), "120"
    vendor.records = [record(1, 0, NOW - timedelta(hours=23)), record(2)]
    poller = bridge(lookback="24h")
    with pytest.raises(errors.Transient) as caught:
        await poller.poll()
    assert caught.value.retry_after == pytest.approx(120, abs=5)
    assert time.now - NOW < timedelta(seconds=60)
    for _ in range(6):
        time.passes(seconds=120)
        with suppress(errors.Transient):
            await poller.poll()
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]


async def test_a_wish_for_fewer_requests_does_not_undo_the_halving(vendor, bridge, time) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=8), 413
    vendor.throttled_at = 2
    poller = bridge(lookback="24h")
    with pytest.raises(errors.Transient):
        await poller.poll()
    time.passes(minutes=1)
    result = await poller.poll()
    assert result.problems == []
    assert [span > vendor.widest for span in vendor.spans()[:3]] == [True, False, False]


async def test_silence_is_too_much_as_well(vendor, bridge, time) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=8), 0
    vendor.records = [record(1, 0, NOW - timedelta(hours=30)), record(2)]
    poller = bridge(lookback="36h")
    await hurry(poller)
    result = await poller.poll()
    assert result.problems == []
    assert [subject for subject, _, _ in poller.memory.said] == ["1", "2"]


async def test_answer_over_the_size_limit_is_too_large(vendor, bridge) -> None:
    vendor.records = [record(number, 0, NOW - timedelta(minutes=number)) for number in range(1, 200)]
    poller = bridge(lookback="12h")
    await hurry(poller, body=8000)
    await poller.poll()
    assert len(poller.memory.said) == 199


async def hurry(poller: Bridge, **limits) -> None:
    """Give the source a client with less patience."""
    source = poller.source
    client = source.client
    await client.close()
    source.client = HttpClient(
        str(client.origin),
        limiter=Limiter(1000.0, poller.time.clock),
        clock=poller.time.clock,
        headers=source.headers,
        limits=HttpLimits(read=0.3, retries=0, **limits),
    )


async def test_accepted_span_is_remembered_and_rarely_enlarged(vendor, bridge, time) -> None:
    vendor.widest, vendor.refusal = timedelta(hours=4), 413
    poller = bridge()
    await poller.poll()
    for _ in range(3):
        vendor.requests.clear()
        time.passes(minutes=10)
        await poller.poll()
        refused = [span for span in vendor.spans() if span > vendor.widest]
        assert len(refused) <= 2 < 20 <= len(vendor.spans()) - len(refused)
    vendor.widest = None
    time.passes(minutes=10)
    await poller.poll()
    vendor.requests.clear()
    time.passes(minutes=10)
    await poller.poll()
    assert round(max(vendor.spans()) / timedelta(hours=1)) == 24


async def test_single_failure_does_not_shrink_the_span_for_long(vendor, bridge, time) -> None:
    poller = bridge()
    await poller.poll()
    vendor.widest, vendor.refusal = timedelta(seconds=1), 413
    time.passes(minutes=10)
    with pytest.raises(RequestRejected):
        await poller.poll()
    vendor.widest = None
    vendor.requests.clear()
    time.passes(minutes=10)
    await poller.poll()
    assert len(vendor.requests) < 40


async def test_request_refused_for_one_minute_is_wrong_itself(vendor, bridge) -> None:
    vendor.answer = web.Response(status=400, text="team?")
    with pytest.raises(errors.Permanent, match=r"400.*even for 60 s of records: check url and team") as caught:
        await bridge().poll()
    assert caught.value.__cause__ is None
    assert min(vendor.spans()) <= timedelta(minutes=1, seconds=2)


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_failed_slice_does_not_stop_others_and_is_reread(vendor, bridge, time) -> None:
    vendor.records = [record(number, 0, NOW - timedelta(hours=24 * number - 18)) for number in (1, 2, 3)]
    vendor.broken = {"2015-01-05"}
    poller = bridge()
    result = await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["3", "1"]
    assert result.problems == [
        f"voicemail_drop from 2015-01-05T00:00:00.000Z: GET {VOICEMAIL.path}: 500, the provider failed; read again at the next poll"
    ]
    vendor.broken = set()
    time.passes(seconds=60)
    result = await poller.poll()
    assert [subject for subject, _, _ in poller.memory.said] == ["3", "1", "2"]
    assert result.problems == []
    assert poller.memory.events[-1].data.observed.after is None


async def test_pages_of_a_half_failed_slice_are_kept(vendor, bridge) -> None:
    vendor.widest = timedelta(hours=13)
    vendor.broken = {"2015-01-05"}
    vendor.records = [record(1, 0, NOW - timedelta(hours=59))]
    poller = bridge(slice="96h")
    pages = await poller.pages()
    assert [seen.key for page in pages for seen in page.observations] == ["1"]
    assert not any(page.cursor for page in pages[:1])


async def test_when_nothing_can_be_read_the_poll_has_failed(vendor, bridge) -> None:
    vendor.answer = web.Response(status=500)
    poller = bridge()
    with pytest.raises(errors.Transient, match="500"):
        await poller.poll()
    assert poller.memory.entries == {}
    assert len(vendor.requests) == 4


async def test_unreachable_server_is_not_asked_for_every_slice(vendor, bridge) -> None:
    poller = bridge(url=f"http://127.0.0.1:{unused_port()}", lookback="720h")
    with pytest.raises(errors.Transient, match="cannot connect"):
        await poller.poll()
    assert len(poller.source.problems) == 3


async def test_unreadable_old_records_do_not_block_newer_ones(vendor, bridge) -> None:
    vendor.silent = {"2015-01-03", "2015-01-04"}
    vendor.records = [record(1), record(2, 0, NOW - timedelta(hours=30))]
    poller = bridge(lookback="84h")
    result = await poller.poll()
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]
    assert [problem[:30] for problem in result.problems] == [
        f"voicemail_drop from 2015-01-{day}" for day in ("03", "04")
    ]


async def test_rate_limited_old_records_do_not_block_newer_ones(vendor, bridge, time) -> None:
    vendor.throttled = {"2015-01-04"}
    vendor.records = [record(1), record(2, 0, NOW - timedelta(hours=30))]
    poller = bridge()
    for _ in range(2):
        with pytest.raises(errors.Transient):
            await poller.poll()
        time.passes(minutes=1)
    assert sorted(subject for subject, _, _ in poller.memory.said) == ["1", "2"]


@pytest.mark.parametrize("backfill", [False, True])
async def test_spacivox_stops_asking_after_losing_its_lease(vendor, bridge, time, backfill) -> None:
    poller = bridge()
    lease_deadline = LeaseDeadline("source/drops", 1e9)

    async def ends(since, until) -> None:
        lease_deadline.until = -1e9

    vendor._refusal = ends
    held = bind(lease=lease_deadline)
    try:
        with pytest.raises(errors.LeaseLost):
            await (_backfill(poller) if backfill else poller.poll())
    finally:
        reset(held)
    assert len(vendor.requests) == 1


async def _backfill(poller: Bridge) -> None:
    async for _ in poller.source.backfill(NOW - timedelta(days=4), NOW):
        pass


async def test_a_wrong_token_is_said_so_and_asked_once(vendor, bridge) -> None:
    with pytest.raises(errors.Unauthorized, match="check the token") as caught:
        await bridge(token="wrong-token").poll()
    assert "wrong-token" not in str(caught.value)
    assert len(vendor.requests) == 1


async def test_forbidden_record_sort_does_not_stop_others(vendor, bridge) -> None:
    vendor.forbidden = {"/j/text_records"}
    vendor.records = [record(1)]
    poller = bridge(records=["text", "voicemail_drop"])
    result = await poller.poll()
    assert [topic for _, topic, _ in poller.memory.said] == ["voicemail.drop.sent"]
    (problem,) = result.problems
    assert problem.startswith("text: GET /j/text_records: 403")


async def test_retry_after_ends_the_poll_and_is_passed_on(vendor, bridge) -> None:
    vendor.answer = web.Response(status=429, headers={"Retry-After": "77"})
    with pytest.raises(errors.Transient) as caught:
        await bridge().poll()
    assert caught.value.retry_after == 77
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    "body", [b'{"error": "later"}', b"null", b"<html>", b"[{", b"7"], ids=["object", "null", "html", "torn", "number"]
)
async def test_answer_without_a_list_is_not_read_as_empty(vendor, bridge, body) -> None:
    vendor.raw = body
    poller = bridge()
    with pytest.raises(errors.Transient, match="/j/voicemail_drop_records"):
        await poller.poll()
    assert poller.memory.entries == {}


async def test_no_content_is_empty(vendor, bridge) -> None:
    vendor.answer = web.Response(status=204)
    poller = bridge()
    result = await poller.poll()
    assert result.problems == []
    assert poller.memory.entries


# --- beside the poll --------------------------------------------------------------------------------------------------


async def test_spacivox_past_range_leaves_the_cursor_alone(vendor, bridge) -> None:
    vendor.records = [record(number, 0, NOW - timedelta(days=number)) for number in range(1, 40)]
    poller = bridge()
    pages = [page async for page in poller.source.backfill(NOW - timedelta(days=20, hours=1), NOW - timedelta(days=10))]
    assert sorted(int(seen.key) for page in pages for seen in page.observations) == list(range(10, 21))
    assert not any(page.cursor for page in pages)
    vendor.broken = {"2014-12-20"}
    pages = [page async for page in poller.source.backfill(NOW - timedelta(days=20, hours=1), NOW - timedelta(days=10))]
    assert "2014-12-20" in poller.source.problems[0]


@pytest.mark.parametrize("meaning", ["created", "updated"])
async def test_records_outside_the_window_are_not_reported_missing(vendor, bridge, time, tmp_path, meaning) -> None:
    vendor.records = [record(number, 1, NOW - timedelta(hours=71)) for number in range(1, 20)]
    poller = bridge(timestamp_is=meaning)
    store = SqliteStore(tmp_path / "ledger.db", clock=time.clock)
    await store.open()
    try:
        intake = Intake("drops", "spacivox", poller.source, store, time.clock)
        lease = await store.acquire("source/drops", "me", 1e9)
        await intake.poll(lease)
        time.passes(hours=5)
        vendor.records[0]["timestamp"] = stamp(time.now - timedelta(minutes=5))
        vendor.records.append(record(50, 1, time.now - timedelta(minutes=3)))
        await intake.poll(lease)
        report = await Reconciler("drops", poller.source, store, time.clock).compare(CompareOptions())
    finally:
        await store.close()
    assert report.differences == []
    assert report.failures == {}


@pytest.mark.parametrize("team", [None, 1, [1, 2]])
async def test_record_missing_inside_the_window_is_reported(vendor, bridge, time, tmp_path, team) -> None:
    vendor.records = [record(number, 1, NOW - timedelta(hours=number)) for number in range(1, 9)]
    poller = bridge(team=team)
    store = SqliteStore(tmp_path / "ledger.db", clock=time.clock)
    await store.open()
    try:
        intake = Intake("drops", "spacivox", poller.source, store, time.clock)
        await intake.poll(await store.acquire("source/drops", "me", 1e9))
        time.passes(hours=1)
        del vendor.records[2]
        report = await Reconciler("drops", poller.source, store, time.clock).compare(CompareOptions())
    finally:
        await store.close()
    assert [(poller.resource, poller.what) for poller in report.differences] == [
        ("/j/voicemail_drop_records/3", "gone")
    ]


async def test_the_check_says_what_the_interval_costs(vendor, bridge) -> None:
    vendor.records = [record(1, 0, NOW - timedelta(seconds=30))]
    probe = await bridge(records=["voicemail_drop", "text"]).source.probe()
    assert "127.0.0.1 answers for voicemail_drop, text (2 in the last minute)" in probe.summary
    assert probe.requests_per_day == pytest.approx(2 * (1440 + 3 * 144))
    assert TOKEN not in probe.summary
    with pytest.raises(errors.Unauthorized):
        await bridge(token="wrong").source.probe()


async def test_spacivox_has_nothing_to_watch(bridge) -> None:
    source = bridge().source
    with pytest.raises(ValueError, match="follows every record for 72h by itself"):
        source.resource("/j/voicemail_drop_records/1")
    assert list(await source.complete([])) == []


def test_spacivox_defaults_are_the_documented_ones() -> None:
    values = SpacivoxSettings(type="spacivox", url="https://x.example", token=TOKEN)
    assert (values.team, values.lookback, values.interval, values.records) == (None, 259200.0, 60.0, ["voicemail_drop"])
    assert (values.slice, values.timestamp_is) == (86400.0, "created")
    source = plugin.build("drops", values, Time().clock)
    assert source.retention > values.catch_up + values.lookback
    assert replace(VOICEMAIL, path="/x").channel == "voicemail"
