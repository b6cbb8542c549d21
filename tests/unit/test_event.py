"""Events are CloudEvents 1.0 whose ids are functions of the occurrence."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from catalogue import CATALOGUE
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from hypothesis import given
from hypothesis import strategies as st

from bridge.domain.catalogue import Catalogue, UnknownData, UnknownStatus, unknown_status
from bridge.domain.errors import Permanent
from bridge.domain.event import CONTENT_TYPE, Data, Event, Observed, Position, event_id, kebab
from bridge.domain.events.govdelivery import RecipientData, RecipientFailed
from bridge.domain.times import rfc3339, rfc3339_millis, truncate_to_millis

NOW = datetime(2013, 3, 15, 21, 11, 20, 114_567, UTC)


def failed() -> RecipientFailed:
    data = RecipientData(
        channel="voice",
        status="failed",
        previous="sending",
        detail="could_not_connect",
        transition="advance",
        observed=Observed(after=NOW - timedelta(seconds=30), by=NOW),
        message="/messages/voice/10507",
        phone="+16515551000",
        error="No route",
        created_at=datetime(2013, 3, 15, 21, 10, 30, tzinfo=UTC),
        completed_at=datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC),
    )
    return RecipientFailed.of(
        id="5f0c",
        source="/govdelivery/city-voice",
        subject="/messages/voice/10507/recipients/364898",
        time=datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC),
        recordedtime=NOW,
        data=data,
    )


@pytest.mark.parametrize("time", [datetime.min.replace(tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 58, tzinfo=UTC)])
def test_time_before_1970_is_kept_without_a_broker_timestamp(time: datetime) -> None:
    data = Data(channel="sms", status="failed", transition="first")
    event = Event.of(id="5f0c", source="/x/y", subject="/z", time=time, recordedtime=NOW, data=data)
    wire = event.to_wire()
    assert wire.time == 0
    assert Event.model_validate_json(wire.body).time == time


def test_the_wire_form_has_every_attribute_by_its_documented_name() -> None:
    assert json.loads(failed().to_wire().body) == {
        "specversion": "1.0",
        "id": "5f0c",
        "source": "/govdelivery/city-voice",
        "type": "bridge.voice.recipient.failed",
        "subject": "/messages/voice/10507/recipients/364898",
        "time": "2013-03-15T21:11:02Z",
        "recordedtime": "2013-03-15T21:11:20.114Z",
        "partitionkey": "/messages/voice/10507/recipients/364898",
        "datacontenttype": "application/json",
        "dataschema": "urn:bridge:schemas/recipient-failed/1",
        "data": {
            "channel": "voice",
            "status": "failed",
            "previous": "sending",
            "detail": "could_not_connect",
            "transition": "advance",
            "observed": {"after": "2013-03-15T21:10:50.114567Z", "by": "2013-03-15T21:11:20.114567Z"},
            "message": "/messages/voice/10507",
            "phone": "+16515551000",
            "error": "No route",
            "created_at": "2013-03-15T21:10:30Z",
            "completed_at": "2013-03-15T21:11:02Z",
        },
    }


def test_the_topic_has_the_detail_and_the_type_has_not() -> None:
    wire = failed().to_wire()
    assert wire.topic == "voice.recipient.failed.could_not_connect"
    assert wire.type == "bridge.voice.recipient.failed"


def test_another_implementation_of_cloudevents_reads_the_wire_form() -> None:
    event = from_http_event(HTTPMessage({"content-type": CONTENT_TYPE}, failed().to_wire().body))
    assert event.get_type() == "bridge.voice.recipient.failed"
    assert event.get_extension("partitionkey") == "/messages/voice/10507/recipients/364898"


def test_event_is_read_back_with_the_same_bytes() -> None:
    body = failed().to_wire().body
    event = Catalogue(CATALOGUE).read(body)
    assert type(event) is RecipientFailed
    assert event.to_wire().body == body


def test_fields_of_a_later_version_survive_reading() -> None:
    raw = json.loads(failed().to_wire().body)
    raw["data"]["carrier"] = "new"
    event = Catalogue(CATALOGUE).read(json.dumps(raw))
    assert json.loads(event.to_wire().body)["data"]["carrier"] == "new"


def test_a_type_from_elsewhere_is_read_as_a_plain_event() -> None:
    raw = json.loads(failed().to_wire().body) | {"dataschema": "urn:bridge:schemas/from-elsewhere/1"}
    assert Catalogue(CATALOGUE).read(json.dumps(raw)).subject == failed().subject


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"id": "+16515551000"}', b"\xff", b"null"])
def test_what_is_no_event_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(Permanent) as refused:
        Catalogue(CATALOGUE).read(body)
    assert "+1651" not in str(refused.value)
    assert refused.value.__suppress_context__


def test_unknown_status_keeps_raw_value_and_other_fields() -> None:
    data = UnknownData(
        channel="sms", status="unknown", transition="unknown", provider_status="paused", message="/messages/sms/1"
    )
    event = unknown_status("recipient").of(id="1", source="/s", subject="/r", time=NOW, recordedtime=NOW, data=data)
    wire = event.to_wire()
    assert wire.topic == "sms.recipient.unknown"
    read = Catalogue(CATALOGUE).read(wire.body)
    assert isinstance(read, UnknownStatus)
    assert json.loads(wire.body)["data"]["provider_status"] == "paused"
    assert json.loads(wire.body)["data"]["message"] == "/messages/sms/1"


@pytest.mark.parametrize("cls", CATALOGUE, ids=lambda cls: cls.__name__)
def test_every_class_of_the_catalogue_says_what_it_means(cls: type) -> None:
    assert cls.__doc__
    assert cls.status
    assert cls.channels


def test_schema_names_are_unique_and_readable() -> None:
    names = [cls.schema_name() for cls in CATALOGUE]
    assert len(set(names)) == len(names)
    assert kebab("SMSNotSent") == "sms-not-sent"
    assert kebab("RecipientFailed") == "recipient-failed"


def test_id_is_reproducible_and_differs_by_each_part() -> None:
    parts = ("/govdelivery/a", "/messages/sms/1/recipients/2", "failed", 0)
    assert event_id(*parts) == "50e704b7d4d1a49326e4ccbe6a453833"
    others = {
        event_id("/govdelivery/b", *parts[1:]),
        event_id(parts[0], "/messages/sms/1/recipients/3", *parts[2:]),
        event_id(*parts[:2], "sent", 0),
        event_id(*parts[:3], 1),
        event_id(*parts),
    }
    assert len(others) == 5


@given(st.text(max_size=20), st.integers(0, 2**60))
def test_a_position_is_read_back_as_it_was_written(source: str, seq: int) -> None:
    if source:
        assert Position.parse(str(Position(source, seq))) == Position(source, seq)


@pytest.mark.parametrize("text", ["", "5", ":5", "a:", "a:b"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Position.parse(text)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2018, 12, 17, 13, 5, 40, 947_000, timezone(timedelta(hours=-6))), "2018-12-17T19:05:40.947Z"),
        (datetime(2018, 12, 17, 13, 5, 40, tzinfo=UTC), "2018-12-17T13:05:40Z"),
        (datetime(2018, 12, 17, 13, 5, 40, 1, UTC), "2018-12-17T13:05:40.000001Z"),
    ],
)
def test_times_are_written_in_utc_with_their_precision(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text


@given(st.lists(st.datetimes(timezones=st.just(UTC)), min_size=2, max_size=8))
def test_recorded_times_sort_as_text_as_they_do_in_time(moments) -> None:
    texts = [rfc3339_millis(truncate_to_millis(moment)) for moment in moments]
    assert sorted(texts) == [rfc3339_millis(moment) for moment in sorted(map(truncate_to_millis, moments))]
    assert [datetime.fromisoformat(text) for text in texts] == [truncate_to_millis(moment) for moment in moments]


def test_a_recorded_time_at_a_full_second_has_its_milliseconds() -> None:
    data = RecipientData(channel="sms", status="failed", transition="first", message="/messages/sms/1")
    event = RecipientFailed.of(
        id="1", source="/x/y", subject="/z", time=NOW.replace(microsecond=0), recordedtime=NOW.replace(microsecond=999),
        data=data,
    )  # fmt: skip
    body = json.loads(event.to_wire().body)
    assert (body["time"], body["recordedtime"]) == ("2013-03-15T21:11:20Z", "2013-03-15T21:11:20.000Z")
