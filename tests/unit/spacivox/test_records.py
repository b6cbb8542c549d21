"""Spacivox: the vendor's own page, statuses, and how records are read."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rigs.spacivox import (
    DAY,
    NOW,
    RECORDS,
    TOKEN,
    VOICEMAIL,
    RecordType,
    Unreadable,
    _source,
    describe,
    kind_of,
    observe,
    record,
)
from yarl import URL

from bridge.domain import errors
from bridge.domain.catalogue import UnknownStatus
from bridge.domain.events.spacivox import DropData
from bridge.protocols.source import Page
from bridge.sources.spacivox import SpacivoxSettings

SEED = (Path(__file__).parents[2] / "seeds" / "spacivox-voicemail-drop-records.txt").read_text(encoding="utf-8")


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
