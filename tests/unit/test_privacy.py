"""What a sink may see of phones, addresses and keys."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from catalogue import CATALOGUE
from hypothesis import given
from hypothesis import strategies as st

from bridge.delivery import masking
from bridge.domain.catalogue import Catalogue, UnknownData, UnknownStatus
from bridge.domain.errors import Permanent
from bridge.domain.event import Event, Transition, WireEvent
from bridge.domain.events.govdelivery import MessageCompleted, MessageData, RecipientData, RecipientFailed
from bridge.domain.events.marketingcloud import SendData, SMSNotSent
from bridge.domain.events.spacivox import DropData, VoicemailRejected

KEY = b"a key of this installation"
AT = datetime(2013, 3, 15, 21, 11, 2, tzinfo=UTC)
TOKEN = re.compile(r"tok_[0-9a-f]{16}")


def event_of(cls: type[Event], subject: str, data) -> WireEvent:
    return cls.of(id="f" * 32, source="/x/y", subject=subject, time=AT, recordedtime=AT, data=data).to_wire()


def recipient(**fields) -> WireEvent:
    data = RecipientData(
        channel="voice", status="failed", transition=Transition.ADVANCE, message="/messages/voice/1050712345", **fields
    )
    return event_of(RecipientFailed, "/messages/voice/1050712345/recipients/364898123", data)


def not_sent(key: str, path: str, **fields) -> WireEvent:
    data = SendData(channel="sms", status="not_sent", transition=Transition.FIRST, message_key=key, event_id=3576012345,
                    code=24, provider_time="2018-12-17T13:05:40.947", **fields)  # fmt: skip
    return event_of(SMSNotSent, f"/messaging/v1/sms/messages/{path}", data)


def seen(level, wire, key=KEY):
    return json.loads(masking.apply(level, wire, key).body)


def test_full_is_the_same_event():
    wire = recipient(phone="+16515551000")
    assert masking.apply("full", wire, KEY) is wire


def test_phone_keeps_four_digits_or_becomes_a_token():
    wire = recipient(phone="+16515551000", error="6515551000 is busy; call (651) 555-1000 or mail jane@example.com")
    data = seen("last4", wire)["data"]
    assert data["phone"] == "…1000"
    assert data["error"] == "…1000 is busy; call …1000 or mail ….com"
    data = seen("token", wire)["data"]
    assert TOKEN.fullmatch(data["phone"])
    assert re.fullmatch(rf"{TOKEN.pattern} is busy; call {TOKEN.pattern} or mail {TOKEN.pattern}", data["error"])


@pytest.mark.parametrize("level", ["last4", "token"])
def test_all_that_names_no_person_stays_as_it_is(level):
    wire = recipient(phone="+16515551000", completed_at=AT, created_at=AT)
    before, after = json.loads(wire.body), seen(level, wire)
    assert {**before, "data": {**before["data"], "phone": None}} == {**after, "data": {**after["data"], "phone": None}}
    assert list(before) == list(after)
    masked = masking.apply(level, wire, KEY)
    assert (masked.id, masked.topic, masked.time) == (wire.id, wire.topic, wire.time)


@pytest.mark.parametrize("level", ["last4", "token"])
def test_counts_and_numbers_of_the_provider_stay(level):
    data = MessageData(
        channel="sms", status="completed", transition=Transition.ADVANCE, recipient_counts={"total": 1234567890}
    )
    wire = event_of(MessageCompleted, "/messages/sms/1655321234567", data)
    assert seen(level, wire) == json.loads(wire.body)


@pytest.mark.parametrize("level", ["last4", "token"])
def test_masked_event_is_still_valid_for_its_type(level):
    wire = masking.apply(level, recipient(phone="+16515551000"), KEY)
    assert type(Catalogue(CATALOGUE).read(wire.body)) is RecipientFailed


@pytest.mark.parametrize("level", ["last4", "token"])
@pytest.mark.parametrize("spelled", ["jane@example.com", quote("jane@example.com"), quote("jane@example.com", safe="")])
def test_marketing_cloud_keys_are_masked_in_data_and_paths(level, spelled):
    wire = not_sent("jane@example.com", spelled, contact_key="0035000001AbCdEfG", phone="+16515551000",
                    reason="contact 0035000001AbCdEfG opted out")  # fmt: skip
    after = seen(level, wire)
    body = json.dumps(after)
    for canary in ("jane", "example.com", "0035000001", "AbCdEfG", "651555"):
        assert canary not in body
    assert TOKEN.fullmatch(after["subject"].removeprefix("/messaging/v1/sms/messages/"))
    assert after["partitionkey"] == after["subject"]
    assert after["data"]["event_id"] == 3576012345
    assert after["data"]["provider_time"] == "2018-12-17T13:05:40.947"


@pytest.mark.parametrize("level", ["last4", "token"])
@pytest.mark.parametrize("key", ["order/4711/jane", "a-b", "+16515551000", "x" * 80, "100200300"])
def test_resources_stay_apart_where_their_keys_are_masked(level, key):
    subjects = {
        seen(level, not_sent(key_value, quote(key_value, safe="/")))["subject"]
        for key_value in (key, f"{key}0", f"0{key}")
    }
    assert len(subjects) == 3
    assert not any(key in subject for subject in subjects)


def test_foreign_path_with_phone_or_address_is_masked():
    body = {"id": "1", "subject": "/people/+16515551000/mail/jane@example.com/7", "email": "jane@example.com"}
    after = seen("last4", WireEvent("1", "a.b.c", 0, json.dumps(body).encode()))
    assert re.fullmatch(rf"/people/{TOKEN.pattern}/mail/{TOKEN.pattern}/7", after["subject"])
    assert after["email"] == "….com"


def test_customer_reference_is_masked_but_job_and_campaign_stay():
    data = DropData(channel="voicemail", status="rejected", transition=Transition.FIRST, phone="+33612345678",
                    campaign=123456, job="20240501", reference="cust-0815-4711", state=3)  # fmt: skip
    after = seen("last4", event_of(VoicemailRejected, "/j/voicemail_drop_records/1", data))
    assert after["data"]["reference"] == "…4711"
    assert (after["data"]["campaign"], after["data"]["job"], after["data"]["state"]) == (123456, "20240501", 3)
    assert after["subject"] == "/j/voicemail_drop_records/1"


def test_unmodelled_fields_are_masked_by_name_and_content():
    provider = {
        "formatted_phone": "+16515551000", "number": 33612345678, "to": ["a@b.org", "+4915112345678"],
        "info": {"contactKey": "short-key", "note": "ask 00 49 151 1234 5678", "ok": True, "none": None},
        "epoch": 16515551000, "small": 42, "ratio": 0.5, "recipient_counts": {"total": 2}, "firstName": "Jane",
        "seen": "2013-03-15 21:11", "+16515551000": 1, "empty": "", "phone": "", "caller": None, "contact": {"a": "Jane Roe"},
    }  # fmt: skip
    data = UnknownData(channel="sms", status="unknown", transition=Transition.UNKNOWN, provider=provider,
                       provider_status="bounced by +16515551000")  # fmt: skip
    after = seen("last4", event_of(UnknownStatus, "/messages/sms/1/recipients/2", data))["data"]
    assert after["provider_status"] == "bounced by …1000"
    assert after["provider"] == {
        "formatted_phone": "…1000", "number": "…5678", "to": ["….org", "…5678"],
        "info": {"contactKey": "…-key", "note": "ask …5678", "ok": True, "none": None},
        "epoch": "…1000", "small": 42, "ratio": 0.5, "recipient_counts": {"total": 2}, "firstName": "…",
        "seen": "2013-03-15 21:11", "…1000": 1, "empty": "", "phone": "", "caller": None, "contact": {"a": "… Roe"},
    }  # fmt: skip


@pytest.mark.parametrize("value", ["1", "abcd"])
def test_short_value_is_masked_completely(value):
    assert masking.last4(value) == "…"


def test_token_is_the_same_for_every_phone_format():
    def token(phone, key=KEY):
        return seen("token", recipient(phone=phone), key)["data"]["phone"]

    assert token("+16515551000") == token("+1 (651) 555-1000") == token("1.651.555.1000")
    assert token("+16515551000") != token("+16515551001")
    assert token("+16515551000") != token("+16515551000", b"another key")


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"null", b"{", b"[" * 100_000, b'{"data":' * 400 + b"1" + b"}" * 400]
)
def test_what_cannot_be_read_is_never_passed_on(body):
    wire = WireEvent("1", "a.b.c", 0, body)
    if body.startswith(b'{"data"'):
        assert b"data" in masking.apply("last4", wire, KEY).body
    else:
        with pytest.raises(Permanent, match="privacy: last4 cannot be kept"):
            masking.apply("last4", wire, KEY)


def test_odd_data_and_lone_surrogates_break_nothing():
    body = b'{"id": "1", "subject": 7, "data": ["+16515551000", "\\ud800"]}'
    after = seen("last4", WireEvent("1", "a.b.c", 0, body))
    assert after == {"id": "1", "subject": 7, "data": ["…1000", "?"]}


DIGITS = st.text("0123456789", min_size=7, max_size=15)
SPELLINGS = st.sampled_from(
    [
        lambda d: d,
        lambda d: f"+{d}",
        " ".join,
        lambda d: f"({d[:3]}) {d[3:6]}-{d[6:]}",
        lambda d: f"+{d[:2]} {d[2:]}",
        lambda d: f"{d[:3]}.{d[3:]}",
        lambda d: d[2:],
        lambda d: d[:5],
        lambda d: f"x{d}y",
    ]
)


@pytest.mark.parametrize("level", ["last4", "token"])
@given(digits=DIGITS, spelled=SPELLINGS, words=st.tuples(st.text(max_size=10), st.text(max_size=10)))
def test_no_five_phone_digits_in_a_row_remain(level, digits, spelled, words):
    text = f"{words[0]} {spelled(digits)} {words[1]}"
    data = RecipientData(channel="voice", status="failed", transition=Transition.ADVANCE, message="/m/1",
                         phone=f"+{digits}", error=text, provider={"note": text, "deep": [{"raw": text}], text: 1,
                         "phone": spelled(digits), "number": int(digits)})  # fmt: skip
    body = masking.apply(level, event_of(RecipientFailed, "/m/1/recipients/2", data), KEY).body.decode()
    for name in ("id", "time", "recordedtime"):  # these hold digits of their own
        body = body.replace(json.loads(body)[name], "")
    body = TOKEN.sub("", body)
    runs = re.findall(r"\d{5,}", body)
    assert [run for run in runs for start in range(len(digits) - 4) if digits[start : start + 5] in run] == []


@pytest.mark.parametrize("level", ["last4", "token"])
@given(user=st.from_regex(r"[a-z][a-z0-9._+-]{4,12}", fullmatch=True), before=st.text("ab :<(,", max_size=5))
def test_no_address_is_left_anywhere(level, user, before):
    address = f"{user}@mail.example.com"
    wire = recipient(error=f"{before} {address} failed", provider={"note": address, "email": address})
    body = masking.apply(level, wire, KEY).body.decode()
    assert user not in body.replace("tok_", "")
    assert "@" not in body


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_any_event_can_be_made_private(data):
    wire = WireEvent("1", "a.b.c", 0, json.dumps({"id": "1", "data": data, "extra": data}).encode())
    for level in ("last4", "token"):
        assert seen(level, wire)["id"] == "1"
