"""Webhooks as receivers want them: Ed25519, access tokens, binary mode, batches, the handshake."""

from __future__ import annotations

import asyncio
import base64
import json
import sys

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey
from pydantic import ValidationError
from rigs.slack import Time
from standardwebhooks import Webhook as Verifier

from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unauthorized
from bridge.domain.event import WireEvent
from bridge.protocols.sink import Outgoing
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge.testing.sink_suite import outgoing, sample
from bridge_webhook import WebhookSettings, plugin
from bridge_webhook.forms import binary, encoded
from bridge_webhook.signing import keys_of

SEED = bytes(range(32))
PRIVATE = "whsk_" + base64.b64encode(SEED).decode()
PUBLIC = SigningKey(SEED).verify_key
SYMMETRIC = "whsec_" + base64.b64encode(b"o" * 32).decode()
TOKEN = reply(200, b'{"access_token": "token-1", "expires_in": 3600}')


@pytest.fixture
async def receiver():
    async with FakeEndpoint() as receiver:
        yield receiver


@pytest.fixture
async def opened(receiver):
    sinks = []

    async def opened(clock=None, **values):
        settings = {"type": "webhook", "topics": ["#"], "url": f"{receiver.url}/hooks", "allow_private": True, **values}
        sink = plugin.build("crm", WebhookSettings.model_validate(settings), clock or Clock())
        await sink.open()
        sinks.append(sink)
        return sink

    yield opened
    for sink in sinks:
        await sink.close()


# --- Ed25519 ----------------------------------------------------------------------------------------------------------


def verify(key: VerifyKey, request) -> None:
    """Verify every `v1a` signature of a request as the specification says; raises if there is none."""
    signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    texts = [text for text in request.headers["webhook-signature"].split() if text.startswith("v1a,")]
    assert texts
    for text in texts:
        key.verify(signed, base64.b64decode(text.removeprefix("v1a,")))


async def test_asymmetric_signature_verifies_by_another_library(opened, receiver):
    sink = await opened(secret=PRIVATE)
    await sink.send(outgoing(sample()))
    verify(PUBLIC, receiver.requests[0])
    with pytest.raises(BadSignatureError):
        verify(SigningKey.generate().verify_key, receiver.requests[0])
    public = "whpk_" + base64.b64encode(bytes(PUBLIC)).decode()
    assert (await sink.probe()).endswith(f"signed with 1 secret; v1a is verified with {public}")


async def test_both_kinds_of_secrets_sign_at_once(opened, receiver):
    sink = await opened(secret=[SYMMETRIC, PRIVATE])
    await sink.send(outgoing(sample()))
    [request] = receiver.requests
    verify(PUBLIC, request)
    assert Verifier(SYMMETRIC).verify(request.body, dict(request.headers))["id"] == sample().id


def test_private_key_is_read_with_its_public_half_too():
    whole = "whsk_" + base64.b64encode(SEED + bytes(PUBLIC)).decode()
    assert [key.public_bytes for key in keys_of([PRIVATE, whole])] == [bytes(PUBLIC)] * 2


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("whsk_" + base64.b64encode(SEED + b"x" * 32).decode(), "do not belong together"),
        ("whsk_" + base64.b64encode(b"x" * 31).decode(), "is no asymmetric key"),
        ("whsk_!", "is no asymmetric key"),
        ("whpk_" + base64.b64encode(bytes(PUBLIC)).decode(), "is a public key"),
    ],
)
def test_unusable_asymmetric_key_is_refused(secret, problem):
    with pytest.raises(ValueError, match=problem):
        keys_of([secret])


def test_missing_library_for_keys_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ValueError, match=r"pip install 'bridge\[jwt\]'"):
        keys_of([PRIVATE])


# --- access tokens ----------------------------------------------------------------------------------------------------


def tokens(endpoint: FakeEndpoint, **values) -> dict[str, object]:
    return {"token_url": f"{endpoint.url}/token", "client_id": "bridge", "client_secret": "canary", **values}


@pytest.mark.parametrize(
    ("style", "body"),
    [
        ("basic", b"grant_type=client_credentials&scope=hooks"),
        ("form", b"grant_type=client_credentials&scope=hooks&client_id=bridge&client_secret=canary"),
        (
            "json",
            b'{"grant_type": "client_credentials", "scope": "hooks", "client_id": "bridge", "client_secret": "canary"}',
        ),
    ],
)
async def test_requests_carry_a_token_that_is_fetched_once(opened, receiver, style, body):
    async with FakeEndpoint(default=TOKEN) as issuer:
        sink = await opened(**tokens(issuer, token_style=style, scope="hooks"))
        await asyncio.gather(*(sink.send(outgoing(sample(number))) for number in range(5)))
        [request] = issuer.requests
    assert request.body == body
    basic = f"Basic {base64.b64encode(b'bridge:canary').decode()}"
    assert request.headers.get("authorization") == (basic if style == "basic" else None)
    assert {request.headers["authorization"] for request in receiver.requests} == {"Bearer token-1"}


async def test_token_is_renewed_before_it_ends(opened, receiver):
    now = [1000.0]
    async with FakeEndpoint(default=TOKEN) as issuer:
        issuer.answer(TOKEN, reply(200, b'{"access_token": "token-2"}'))
        sink = await opened(Clock(monotonic=lambda: now[0]), **tokens(issuer))
        for at in (1000.0, 4539.0, 4540.0, 5079.0, 5081.0):
            now[0] = at
            await sink.send(outgoing(sample()))
    got = [request.headers["authorization"] for request in receiver.requests]
    assert got == ["Bearer token-1"] * 2 + ["Bearer token-2"] * 2 + ["Bearer token-1"]


async def test_refused_token_is_replaced_at_once(opened, receiver):
    async with FakeEndpoint(default=TOKEN) as issuer:
        issuer.answer(TOKEN, reply(200, b'{"access_token": "token-2"}'))
        sink = await opened(**tokens(issuer))
        receiver.answer(reply(401))
        await sink.send(outgoing(sample()))
        receiver.default = reply(401)
        with pytest.raises(Unauthorized):
            await sink.send(outgoing(sample()))
    assert [request.headers["authorization"] for request in receiver.requests][:2] == [
        "Bearer token-1",
        "Bearer token-2",
    ]


@pytest.mark.parametrize(
    ("step", "kind", "text"),
    [
        (reply(401, b"canary"), Unauthorized, "check client_id, client_secret and scope"),
        (reply(400, b'{"error": "invalid_client"}'), Unauthorized, "answered with 400"),
        (reply(503), Transient, "answered with 503"),
        (reply(429, headers={"Retry-After": "7"}), Transient, "answered with 429"),
        (reply(200, b"no JSON: canary"), Transient, "no access_token"),
        (reply(200, b'{"expires_in": 1}'), Transient, "no access_token"),
    ],
)
async def test_token_that_is_not_given_is_asked_for_again(opened, receiver, step, kind, text):
    async with FakeEndpoint(default=step) as issuer:
        sink = await opened(**tokens(issuer))
        for call in (sink.probe(), sink.send(outgoing(sample()))):
            with pytest.raises(Transient, match=text) as caught:
                await call
            assert type(caught.value) is kind
            assert "canary" not in str(caught.value)
    assert receiver.requests == []


async def test_header_is_read_again_from_its_file(opened, receiver, tmp_path):
    path = tmp_path / "key"
    path.write_text("old\n")
    sink = await opened(headers={"X-Key": {"file": str(path)}, "X-Tenant": "7"})
    await sink.send(outgoing(sample()))
    path.write_text("the new one\n")
    await sink.send(outgoing(sample()))
    assert [request.headers["x-key"] for request in receiver.requests] == ["old", "the new one"]
    assert receiver.requests[0].headers["x-tenant"] == "7"


# --- binary mode ------------------------------------------------------------------------------------------------------


async def test_binary_event_is_read_by_the_reference_library(opened, receiver):
    sink = await opened(mode="binary", secret=PRIVATE)
    event = sample()
    await sink.send(outgoing(event))
    [request] = receiver.requests
    read = from_http_event(HTTPMessage(headers=dict(request.headers), body=request.body))
    plain = json.loads(event.to_wire().body)
    assert read.get_data() == plain["data"]
    assert (read.get_id(), read.get_source(), read.get_type()) == (plain["id"], plain["source"], plain["type"])
    assert (read.get_subject(), read.get_dataschema()) == (plain["subject"], plain["dataschema"])
    assert read.get_time() == event.time
    assert read.get_extension("partitionkey") == plain["partitionkey"]
    assert read.get_extension("recordedtime") == plain["recordedtime"]
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == event.id
    verify(PUBLIC, request)


async def test_binary_attributes_survive_whatever_they_hold(opened, receiver):
    sink = await opened(mode="binary")
    value = 'a "b" 100% é€😀\r\nX-Evil: 1'
    body = json.dumps({"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "note": value, "flag": True,
                       "count": 3, "data": {"a": 1.5}}).encode()  # fmt: skip
    await sink.send(Outgoing(WireEvent("1", "a.b.c", 0, body), 1, Outgoing))
    [request] = receiver.requests
    read = from_http_event(HTTPMessage(headers=dict(request.headers), body=request.body))
    assert read.get_extension("note") == value
    assert "x-evil" not in request.headers
    assert (request.headers["ce-flag"], request.headers["ce-count"]) == ("true", "3")


@pytest.mark.parametrize(
    ("event", "media_type", "body"),
    [
        ({"data": "plain é", "datacontenttype": "text/plain"}, "text/plain", "plain é".encode()),
        ({"data": "quoted"}, "application/json", b'"quoted"'),
        ({"data_base64": "AAE=", "datacontenttype": "image/png"}, "image/png", b"\x00\x01"),
        ({}, "application/json", b"null"),
    ],
)
def test_binary_data_is_what_its_type_says(event, media_type, body):
    headers, written = binary(json.dumps({"id": "1", **event}).encode())
    assert (headers["Content-Type"], written) == (media_type, body)


@pytest.mark.parametrize("body", [b"[]", b"no JSON", b'{"a b": 1}', b'{"id": "1", "data_base64": "!"}'])
def test_what_cannot_be_binary_is_a_dead_letter(body):
    with pytest.raises(Permanent, match="mode: binary"):
        binary(body)


def test_header_values_are_encoded_as_the_binding_says():
    assert encoded('Euro € "x" 50%') == "Euro%20%E2%82%AC%20%22x%22%2050%25"


# --- batches ----------------------------------------------------------------------------------------------------------


def ids(request) -> list[str]:
    return [event["id"] for event in json.loads(request.body)]


async def test_events_are_posted_together_and_signed(opened, receiver):
    sink = await opened(batch={"size": 4, "wait": "50ms"}, secret=SYMMETRIC)
    await asyncio.gather(*(sink.send(outgoing(sample(number))) for number in range(1, 7)))
    full, rest = receiver.requests
    assert full.headers["content-type"] == "application/cloudevents-batch+json"
    assert full.body == b"[" + b",".join(sample(number).to_wire().body for number in range(1, 5)) + b"]"
    assert ids(rest) == [sample(5).id, sample(6).id]
    assert full.headers["webhook-id"].startswith("batch_")
    assert Verifier(SYMMETRIC).verify(full.body, dict(full.headers))[0]["id"] == sample(1).id
    await sink.send(outgoing(sample(7)))
    assert receiver.requests[-1].headers["webhook-id"] == sample(7).id


async def test_batch_goes_after_its_wait(opened, receiver):
    time = Time()
    sink = await opened(time.clock(), batch={"size": 10, "wait": "2s"})
    sends = [asyncio.ensure_future(sink.send(outgoing(sample(number)))) for number in (1, 2, 3)]
    await time.move(1.9)
    assert receiver.requests == []
    sends[1].cancel()
    await time.move(0.2)
    await asyncio.gather(*sends, return_exceptions=True)
    assert [ids(request) for request in receiver.requests] == [[sample(1).id, sample(3).id]]


async def test_refused_batch_is_settled_event_by_event(opened, receiver):
    sink = await opened(batch={"size": 3, "wait": "50ms"})
    receiver.answer(reply(422), reply(200), reply(422), reply(200))
    results = await asyncio.gather(
        *(sink.send(outgoing(sample(number))) for number in (1, 2, 3)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "NoneType", "Permanent"]
    assert sorted(len(ids(request)) for request in receiver.requests) == [1, 1, 1, 3]


@pytest.mark.parametrize(("status", "kind"), [(503, Transient), (410, EndpointGone)])
async def test_failed_batch_fails_for_all_its_events(opened, receiver, status, kind):
    sink = await opened(batch={"size": 2, "wait": "50ms"})
    receiver.answer(reply(status))
    results = await asyncio.gather(*(sink.send(outgoing(sample(n))) for n in (1, 2)), return_exceptions=True)
    assert [type(result) for result in results] == [kind, kind]
    assert results[0] is not results[1]
    assert len(receiver.requests) == 1


async def test_closing_sink_leaves_gathered_events_due(opened, receiver):
    sink = await opened(batch={"size": 9, "wait": "30ms"}, send_timeout="9s")
    sending = asyncio.ensure_future(sink.send(outgoing(sample())))
    await asyncio.sleep(0)
    await sink.close()
    with pytest.raises(Transient, match="closing"):
        await sending
    assert receiver.requests == []


# --- the handshake ----------------------------------------------------------------------------------------------------


def allows(origin: str, rate: str = "*"):
    headers = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": rate, "Allow": "POST"}
    return reply(200, headers=headers)


async def test_endpoint_is_asked_once_before_events_come(opened, receiver):
    sink = await opened(origin="bridge.example.com", origin_rate="2/s")
    receiver.answer(allows("Bridge.example.com"))
    await asyncio.gather(*(sink.send(outgoing(sample(number))) for number in (1, 2)))
    asked, *posted = receiver.requests
    assert (asked.method, asked.path, asked.body) == ("OPTIONS", "/hooks", b"")
    assert asked.headers["webhook-request-rate"] == "120"
    assert [request.method for request in posted] == ["POST", "POST"]
    assert {request.headers["webhook-request-origin"] for request in receiver.requests} == {"bridge.example.com"}


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (reply(200), Unauthorized),
        (reply(405), Unauthorized),
        (allows("other.example.com"), Unauthorized),
        (reply(503), Transient),
        (reply(429, headers={"Retry-After": "9"}), Transient),
    ],
)
async def test_endpoint_that_does_not_allow_gets_no_event(opened, receiver, step, kind):
    sink = await opened(origin="bridge.example.com")
    receiver.answer(step)
    with pytest.raises(Transient) as caught:
        await sink.send(outgoing(sample()))
    assert type(caught.value) is kind
    assert [request.method for request in receiver.requests] == ["OPTIONS"]
    receiver.answer(allows("*"))
    await sink.send(outgoing(sample()))
    assert [request.method for request in receiver.requests] == ["OPTIONS", "OPTIONS", "POST"]


async def test_allowed_rate_is_kept_and_permission_renewed(opened, receiver):
    time = Time()
    sink = await opened(time.clock(), origin="bridge.example.com")
    receiver.answer(allows("*", "30"))
    sends = [asyncio.ensure_future(sink.send(outgoing(sample(number)))) for number in range(1, 6)]
    results = await asyncio.wait_for(_first_failure(sends), 60)
    assert isinstance(results, Transient)
    assert not results.counts_as_attempt
    assert "30 requests a minute" in str(results)
    await time.move(10)
    await asyncio.gather(*sends, return_exceptions=True)
    assert len(receiver.requests) == 1 + 3  # at once, after 2 and 4 seconds; the others wait in the store
    await time.move(86400)
    receiver.answer(allows("*"))
    await sink.send(outgoing(sample(9)))
    assert [request.method for request in receiver.requests][-2:] == ["OPTIONS", "POST"]


async def _first_failure(sends) -> BaseException | None:
    done, _ = await asyncio.wait(sends, return_when=asyncio.FIRST_EXCEPTION)
    return next(task.exception() for task in done if task.exception())


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"batch": {"size": 5}, "mode": "binary"}, "always structured"),
        ({"batch": {"size": 17}}, "concurrency has to be at least batch.size, 17"),
        ({"batch": {"size": 2, "wait": "20s"}}, "at least twice batch.wait"),
        ({"batch": {"size": 1}}, "greater than or equal to 2"),
        ({"token_url": "https://a.example/t"}, "or none of them"),
        ({"token_url": "https://u:p@a.example/t"}, "as a header"),
        ({"client_id": "x"}, "or none of them"),
        ({"origin_rate": "1/s"}, "without origin"),
        ({"origin": "two words"}, "pattern"),
        ({"headers": {"X": {"file": "/nowhere"}}}, "cannot read /nowhere"),
        ({"headers": {"X": {"files": "/nowhere"}}}, "must be text"),
        ({"headers": {"ce-id": "1"}}, "set by the sink"),
        (
            {
                "headers": {"authorization": "1"},
                "token_url": "https://a.example/t",
                "client_id": "x",
                "client_secret": "y",
            },
            "keep one",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(values, problem):
    with pytest.raises(ValidationError) as caught:
        WebhookSettings.model_validate({"type": "webhook", "topics": ["#"], "url": "https://crm.example.com", **values})
    assert problem in str(caught.value)
