"""Marketing Cloud: statuses, and how events are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rigs.marketingcloud import PATH, SECRET, sent

from bridge.domain import errors
from bridge.domain.catalogue import UnknownStatus
from bridge.sources.marketingcloud import (
    REASONS,
    EmailNotSent,
    EmailQueued,
    EmailSent,
    MarketingCloudSettings,
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
)


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
