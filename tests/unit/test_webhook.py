"""The webhook sink: what is posted, how it is signed, and what its settings refuse."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError
from structlog.testing import capture_logs

from bridge.domain.clock import Clock
from bridge.domain.errors import Transient
from bridge.domain.event import WireEvent
from bridge.domain.settings import Secret
from bridge.protocols.sink import Outgoing
from bridge.testing.fake_endpoint import FakeEndpoint
from bridge.testing.sink_suite import outgoing, sample
from bridge_webhook import WebhookSettings, plugin
from bridge_webhook.signing import keys_of, signatures

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()


@pytest.fixture
async def receiver():
    async with FakeEndpoint() as receiver:
        yield receiver


def settings_of(url="https://crm.example.com/hooks/canary", **values) -> WebhookSettings:
    return WebhookSettings.model_validate({"type": "webhook", "topics": ["#"], "url": url, **values})


@pytest.fixture
async def posting(receiver):
    opened = []

    async def posting(wire=None, *, sink=None, **values):
        if sink is None:
            sink = plugin.build("crm", settings_of(f"{receiver.url}/hooks", allow_private=True, **values), Clock())
            await sink.open()
            opened.append(sink)
        await sink.send(outgoing(wire or sample(1)))
        return sink, receiver.requests[-1]

    yield posting
    for sink in opened:
        await sink.close()


def verified(secret, request):
    return Verifier(secret).verify(request.body, dict(request.headers))


async def test_the_event_is_posted_as_it_travels_and_verifies(posting):
    _, request = await posting(secret=NEW)
    event = sample(1)
    assert request.body == event.to_wire().body
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["webhook-id"] == event.id
    assert abs(int(request.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 5
    assert verified(NEW, request)["id"] == event.id


async def test_another_body_or_another_secret_does_not_verify(posting):
    _, request = await posting(secret=NEW)
    with pytest.raises(WebhookVerificationError):
        Verifier(NEW).verify(request.body.replace(b"failed", b"sent"), dict(request.headers))
    with pytest.raises(WebhookVerificationError):
        verified(OTHER, request)


async def test_during_rotation_a_receiver_may_hold_either_secret(posting):
    _, request = await posting(secret=[OLD, NEW])
    assert verified(OLD, request) == verified(NEW, request) == json.loads(request.body)
    with pytest.raises(WebhookVerificationError):
        verified(OTHER, request)


async def test_secret_file_has_one_per_line_and_is_reread(posting, tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"{OLD}\n{NEW}\n")
    sink, request = await posting(secret_file=str(path))
    assert verified(OLD, request) == verified(NEW, request)
    path.write_text(f"{NEW}\n")
    _, request = await posting(sink=sink)
    assert verified(NEW, request)
    with pytest.raises(WebhookVerificationError):
        verified(OLD, request)


@pytest.mark.parametrize("broken", [b"", b"not a secret!", b"\xff\xfe"], ids=["empty", "no secret", "no text"])
async def test_broken_secret_file_keeps_the_secret_and_reports_once(posting, tmp_path, broken):
    path = tmp_path / "secret"
    path.write_text(OLD)
    sink, _ = await posting(secret_file=str(path))
    path.write_bytes(broken)
    with capture_logs() as logs:
        for _ in range(3):
            _, request = await posting(sink=sink)
            assert verified(OLD, request)
    assert [entry["event"] for entry in logs] == ["webhook.secret_unusable"]
    path.write_text(NEW)
    _, request = await posting(sink=sink)
    assert verified(NEW, request)


async def test_without_any_usable_secret_nothing_is_sent_unsigned(receiver, tmp_path):
    path = tmp_path / "secret"
    path.write_text(OLD)
    settings = settings_of(receiver.url, allow_private=True, secret=Secret(path=path))
    sink = plugin.build("crm", settings, Clock())
    path.write_bytes(b"broken!")
    await sink.open()
    with pytest.raises(Transient, match="nothing is sent"):
        await sink.send(outgoing(sample(1)))
    await sink.close()
    assert receiver.requests == []


async def test_without_a_secret_nothing_is_signed(posting):
    _, request = await posting()
    assert "webhook-signature" not in request.headers
    assert request.headers["webhook-id"] == sample(1).id


async def test_further_headers_are_sent(posting):
    _, request = await posting(headers={"Authorization": "Bearer canary", "X-Tenant": "7"})
    assert (request.headers["authorization"], request.headers["x-tenant"]) == ("Bearer canary", "7")


@given(body=st.binary(max_size=200), key=st.binary(min_size=1, max_size=64))
def test_each_signature_is_the_one_the_judge_makes(body, key):
    at = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
    text = body.decode("utf-8", "replace")
    expected = Verifier(key).sign("id-1", at, text)
    assert signatures([key], "id-1", str(int(at.timestamp())), text.encode()) == expected


@given(st.binary(min_size=24, max_size=64))
def test_secret_is_read_with_and_without_prefix_and_padding(key):
    text = base64.b64encode(key).decode()
    assert keys_of([f"whsec_{text}", text, text.rstrip("="), f"whsec_{text.rstrip('=')}"]) == (key,) * 4


@pytest.mark.parametrize("length", [1, 23, 65])
def test_secret_of_unsafe_length_is_refused(length):
    with pytest.raises(
        ValueError, match=rf"is a key of {length} bytes; write whsec_ and the base64 of 24 to 64 random"
    ):
        keys_of(["whsec_" + base64.b64encode(b"k" * length).decode()])


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"secret": "whsec_canary!"}, "is no webhook secret"), ({"secret": "whsec_"}, "is a prefix without a key"),
     ({"secret": "canary"}, "is a key of 4 bytes"), ({"secret": []}, "leave the key out to send unsigned"),
     ({"secret": "whsk_" + "canary00"}, "is no asymmetric key"), ({"secret": [NEW, "canary!"]}, "is no webhook secret"),
     ({"secret": ""}, "is empty"), ({"secret": 12}, "list"), ({"secret": {}}, "list"),
     ({"url": "canary"}, "is not a URL"), ({"url": "file:///canary"}, "is not a URL"),
     ({"url": "https://canary@crm.example.com"}, "as a header"), ({"url": "https://u:canary@crm.example.com"}, "as a header"),
     ({"headers": {"webhook-id": "canary"}}, "set by the sink"), ({"headers": {"Content-Type": "canary"}}, "set by the sink"),
     ({"headers": {"X Y": "canary"}}, "name of a header"), ({"headers": {"X": "canary\r\nY: 1"}}, "CARRIAGE RETURN"),
     ({"key_file": __file__}, "without cert_file"), ({"ca_file": "/nowhere/canary.pem"}, "does not point to a file"),
     ({"sekret": "canary"}, "Extra inputs")],
)  # fmt: skip
def test_webhook_refuses_unusable_settings_without_showing_secrets(values, problem):
    with pytest.raises(ValidationError) as caught:
        settings_of(**values)
    messages = " ".join(error["msg"] for error in caught.value.errors())
    assert problem in messages
    assert "canary" not in messages


def test_settings_show_no_secret():
    settings = settings_of(secret=[OLD, NEW], headers={"Authorization": "Bearer canary"})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert not [secret for secret in ("canary", OLD[6:], NEW[6:]) if secret in shown]
    assert settings.model_dump()["url"] == "https://crm.example.com/********"


def test_the_schema_offers_one_secret_or_several_or_a_file():
    properties = WebhookSettings.model_json_schema()["properties"]
    assert [choice["type"] for choice in properties["secret"]["anyOf"]] == ["string", "array"]
    assert properties["secret_file"]["type"] == "string"
    assert "headers_file" not in properties


@pytest.mark.parametrize(
    ("values", "text"),
    [({}, "unsigned"), ({"secret": NEW}, "signed with 1 secret"), ({"secret": [OLD, NEW]}, "signed with 2 secrets")],
)  # fmt: skip
async def test_check_shows_destination_and_whether_events_are_signed(receiver, values, text):
    sink = plugin.build("crm", settings_of(f"{receiver.url}/canary", allow_private=True, **values), Clock())
    said = await sink.probe()
    await sink.close()
    assert said.startswith(f"posts to {receiver.url}, ")
    assert text in said
    assert "canary" not in said
    assert receiver.requests == []


async def test_masked_event_is_signed_as_it_is_sent(posting):
    wire = WireEvent("e-1", "a.b.c", 0, '{"phone":"…1000"}'.encode())
    _, request = await posting(wire, secret=NEW)
    assert verified(NEW, request) == {"phone": "…1000"}


async def test_the_body_is_never_parsed_on_its_way(receiver):
    def unreadable(_):
        raise AssertionError("the body was read")

    sink = plugin.build("crm", settings_of(receiver.url, allow_private=True, secret=NEW), Clock())
    await sink.open()
    await sink.send(Outgoing(sample(1).to_wire(), 1, unreadable))
    await sink.close()
    assert len(receiver.requests) == 1
