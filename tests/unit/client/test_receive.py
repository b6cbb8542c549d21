"""Webhooks at a receiver: verified, typed, and never a traceback for what nobody knows."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from bridge.client import (
    Event,
    EventReader,
    MalformedWebhook,
    RecipientFailed,
    SMSNotSent,
    Transition,
    UnverifiedWebhook,
    WebhookError,
    receive,
)
from bridge.domain.event import Data
from bridge.domain.events.govdelivery import RecipientData
from bridge_webhook.signing import keys_of, signatures

NEW, OLD, OTHER = ("whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))
NOW = 1_795_000_000
MOMENT = datetime.fromtimestamp(NOW, UTC)
FAILED = (
    RecipientFailed.of(
        id="7c6b", source="/govdelivery/city", subject="/messages/voice/1/recipients/2", time=MOMENT, recordedtime=MOMENT,
        data=RecipientData(
            channel="voice", status="failed", detail="busy", transition=Transition.FIRST, message="/messages/voice/1"
        ),
    )
    .to_wire()
    .body
)  # fmt: skip


def headers(body: bytes, *secrets: str, timestamp: int = NOW) -> dict[str, str]:
    """Return the headers as the webhook sink writes them."""
    signature = signatures(keys_of(secrets), "7c6b", str(timestamp), body)
    return {"Webhook-Id": "7c6b", "Webhook-Timestamp": str(timestamp), "Webhook-Signature": signature}


def test_a_webhook_of_the_sink_is_verified_and_typed():
    event = receive(headers(FAILED, NEW), FAILED, NEW, now=NOW)
    assert isinstance(event, RecipientFailed)
    assert (event.data.message, event.data.detail) == ("/messages/voice/1", "busy")


def test_the_standards_own_signer_is_accepted():
    signature = standardwebhooks.Webhook(NEW).sign("7c6b", MOMENT, FAILED.decode())
    given_headers = {"webhook-id": "7c6b", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert receive(given_headers, FAILED.decode(), NEW, now=NOW).id == "7c6b"


@pytest.mark.parametrize(("signed", "known"), [([NEW, OLD], [OLD]), ([NEW], [OLD, NEW]), ([OLD], [f"{OLD}\n{NEW}"])])
def test_any_secret_of_a_rotation_fits(signed, known):
    assert receive(headers(FAILED, *signed), FAILED, known, now=NOW).id == "7c6b"


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_a_timestamp_within_the_window_is_accepted(seconds):
    assert receive(headers(FAILED, NEW, timestamp=NOW + seconds), FAILED, NEW, now=NOW)


@pytest.mark.parametrize(
    ("changes", "body", "text"),
    [
        ({"Webhook-Timestamp": str(NOW - 301)}, FAILED, "more than 300 s"),
        ({"Webhook-Timestamp": str(NOW + 301)}, FAILED, "more than 300 s"),
        ({"Webhook-Timestamp": "yesterday"}, FAILED, "not a number"),
        ({"Webhook-Timestamp": "²"}, FAILED, "not a number"),
        ({"Webhook-Id": "7c6c"}, FAILED, "no signature fits"),
        ({"Webhook-Signature": "v1,AAAA v2,x v1,***"}, FAILED, "no signature fits"),
        ({"Webhook-Signature": ""}, FAILED, "webhook-signature is missing"),
        ({}, FAILED.replace(b"busy", b"lazy"), "no signature fits"),
    ],
)
def test_what_is_not_proven_is_refused(changes, body, text):
    with pytest.raises(UnverifiedWebhook, match=text) as refusal:
        receive({**headers(FAILED, NEW), **changes}, body, [OTHER, NEW], now=NOW)
    assert refusal.value.status == 401


def test_a_secret_of_somebody_else_is_refused():
    with pytest.raises(UnverifiedWebhook):
        receive(headers(FAILED, NEW), FAILED, OTHER, now=NOW)


@pytest.mark.parametrize("secrets", ["", [], "whsec_", "whsec_***"])
def test_no_secret_never_means_that_all_is_accepted(secrets):
    with pytest.raises(ValueError, match="secret") as refusal:
        receive(headers(FAILED, NEW), FAILED, secrets, now=NOW)
    assert "***" not in str(refusal.value)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"{", b"\xff"])
def test_a_signed_body_that_is_no_object_is_malformed(body):
    with pytest.raises(MalformedWebhook) as refusal:
        receive(headers(body, NEW), body, NEW, now=NOW)
    assert refusal.value.status == 400


# --- reading ---


def changed(**changes: object) -> bytes:
    return json.dumps({**json.loads(FAILED), **changes}).encode()


def test_unknown_types_come_as_plain_events():
    event = EventReader().read(changed(dataschema="urn:bridge:schemas/parcel-lost/1", type="bridge.post.parcel.lost"))
    assert type(event) is Event
    assert (event.type, event.data.status) == ("bridge.post.parcel.lost", "failed")


def test_a_later_versions_fields_are_kept():
    body = json.loads(FAILED)
    body["data"]["carrier"] = "acme"
    event = EventReader().read(json.dumps({**body, "traceparent": "00-1"}).encode())
    assert isinstance(event, RecipientFailed)
    assert event.model_extra == {"traceparent": "00-1"}
    assert event.data.model_extra == {"carrier": "acme"}


def test_a_field_of_another_type_makes_a_plain_event():
    body = json.loads(FAILED)
    body["data"]["message"] = 5
    assert type(EventReader().read(json.dumps(body).encode())) is Event


def test_another_publishers_cloudevent_can_be_read():
    event = EventReader().read(b'{"specversion":"1.0","id":"1","source":"/x","type":"com.example","data":[1]}')
    assert (event.id, event.source, event.type, event.subject) == ("1", "/x", "com.example", "")
    assert event.data.status == ""
    assert event.data.model_dump()["value"] == [1]


def test_classes_of_other_distributions_are_found():
    class ParcelLost(Event):
        """A parcel was lost."""

        channels = ("post",)
        entity = "parcel"
        status = "lost"
        data: Data

    body = changed(dataschema="urn:bridge:schemas/parcel-lost/1")
    assert isinstance(EventReader([ParcelLost]).read(body), ParcelLost)


def test_two_classes_of_one_name_are_refused():
    class RecipientFailed(Event):
        """Another one."""

        channels = ("post",)
        entity = "recipient"
        status = "failed"

    with pytest.raises(ValueError, match="recipient-failed"):
        EventReader([RecipientFailed])


def test_masked_events_are_typed():
    masked = FAILED.replace(b'"phone":null', '"phone":"…0143"'.encode())
    event = EventReader().read(masked)
    assert isinstance(event, RecipientFailed)
    assert event.data.phone == "…0143"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [*Event.model_fields, *RecipientData.model_fields, "cls", "_fields_set", "self", "model_config", "data_base64"]
)
OBJECTS = st.dictionaries(NAMES | st.text(max_size=5), VALUES, max_size=8)


@given(content=OBJECTS, data=OBJECTS, known=st.booleans())
def test_any_object_is_an_event(content, data, known):
    schema = {"dataschema": SMSNotSent.schema_uri()} if known else {}
    event = EventReader().read(json.dumps({**content, "data": data, **schema}).encode())
    assert isinstance(event, Event)
    assert isinstance(event.id, str)
    assert isinstance(event.data.status, str)
    assert event.data.transition in Transition
    assert event.time.tzinfo is not None


@given(
    values=st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()),
    body=st.binary(max_size=20),
)
def test_any_request_is_answered_with_a_status(values, body):
    with pytest.raises(WebhookError) as refusal:
        receive(values, body, NEW)
    assert refusal.value.status in {400, 401}
