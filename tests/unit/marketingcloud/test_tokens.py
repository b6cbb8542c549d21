"""Marketing Cloud: the vendor's own pages, and access tokens."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from pathlib import Path

import pytest
from rigs.marketingcloud import EXAMPLE, PATH, SECRET, sent

from bridge.domain import errors
from bridge.sources.marketingcloud import (
    MarketingCloud,
    MarketingCloudSettings,
)
from bridge.sources.marketingcloud.events import (
    FEEDS,
    SMSNotSent,
    observe,
    watermark,
)
from bridge.sources.marketingcloud.tokens import Token
from bridge.testing.fakes import ManualTime

SEED = (Path(__file__).parents[2] / "seeds" / "marketingcloud-sms-not-sent.txt").read_text(encoding="utf-8")


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


def tokens_of(auth_url: str, time: ManualTime):
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
