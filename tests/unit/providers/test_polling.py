"""A source of a definition tells each status once: late ones, on pages of every kind, with every way to sign in."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from bridge.domain.errors import Unauthorized
from bridge.providers import loading
from bridge.providers.compatibility import breaking
from bridge.testing.definition_suite import suite_of
from bridge.testing.fake_endpoint import reply
from bridge.testing.source_suite import NAME

ACME = """
definition: 1
title: Texts of Acme
docs: [https://acme.example/docs]
settings:
  account: {about: The account., account: true}
  token: {about: The token., type: secret}
auth: {bearer: token}
listing: {path: "/v1/{account}/texts", items: $.data}
window:
  start: {param: since}
  end: {param: until}
  lookback: 2h
  slice: 1h
identity: {key: $.id}
times: {created: {path: $.created_at}}
status:
  path: $.state
  map: {queued: queued, sent: sent, delivered: delivered}
  follows: {queued: [sent], sent: [delivered]}
  finals: [delivered]
events: {provider: acme, channel: sms}
"""


def acme(tmp_path, /, **changes):
    """Return a definition, read from its file."""
    file = tmp_path / f"acme-{len(list(tmp_path.iterdir()))}.yaml"
    values = yaml.safe_load(ACME)
    for key, value in changes.items():
        merged = isinstance(values.get(key), dict) and isinstance(value, dict) and key != "auth"
        values[key] = {**values[key], **value} if merged else value
    values = {key: value for key, value in values.items() if value is not None}
    file.write_text(json.dumps(values))
    return loading.load(file)


def shipped(name):
    return loading.load(loading.find(name, Path()))


def at_work(tmp_path, definition):
    return suite_of("acme", definition)().at_work(tmp_path)


@pytest.mark.parametrize(("name", "hours"), [("twilio-messages", 71), ("vonage-sms", 71), ("plivo-messages", 70)])
async def test_change_days_later_is_told(tmp_path, name, hours):
    async with at_work(tmp_path, shipped(name)) as work:
        first, second = work.add(2)
        await work.publish_all()
        work.move(first)
        work.move(second)
        await work.publish_all()
        work.time.ahead += timedelta(hours=hours).total_seconds()
        work.move(first)
        await work.publish_all()


@pytest.mark.parametrize("name", ["twilio-messages", "twilio-calls"])
async def test_record_that_never_gets_a_time_is_told(tmp_path, name):
    async with at_work(tmp_path, shipped(name)) as work:
        (subject,) = work.add(1)
        await work.publish_all()
        work.time.ahead += timedelta(minutes=40).total_seconds()
        work.account._vendor.world.move(work.account._keys[subject], "failed")
        work.wanted[subject] += 1
        await work.publish_all()
        asked = [request.path for request in work.provider.requests if "%3E=" not in request.path]
        assert asked, "the list without a window was never asked for"


async def test_resource_without_end_is_followed_until_give_up(tmp_path):
    async with at_work(tmp_path, shipped("vonage-sms")) as work:
        work.add(1)
        await work.publish_all()
        assert [name for name in await work.store.cursor(NAME) if name.startswith("look.")]
        work.time.ahead += timedelta(hours=81).total_seconds()
        assert await work.poll() is None
        assert [name for name in await work.store.cursor(NAME) if name.startswith("look.")] == []
        before = len(work.provider.requests)
        assert await work.poll() is None
        assert [request for request in work.provider.requests[before:] if "id=" in request.path.split("?")[1:]] == []


async def test_final_resource_is_not_looked_up_again(tmp_path):
    async with at_work(tmp_path, shipped("vonage-sms")) as work:
        (subject,) = work.add(1)
        await work.publish_all()
        work.account._vendor.world.move(work.account._keys[subject], "delivered")
        work.wanted[subject] += 1
        await work.publish_all()
        assert [name for name in await work.store.cursor(NAME) if name.startswith("look.")] == []


async def test_what_is_too_old_for_the_provider_is_no_failure(tmp_path):
    async with at_work(tmp_path, shipped("twilio-messages")) as work:
        refused = reply(400, b'{"code": 20004, "status": 400}', {"Content-Type": "application/json"})
        work.provider.answer(refused)
        work.add(2)
        await work.publish_all()


@pytest.mark.parametrize(("headers", "wait"), [({"Retry-After": "7"}, 7), ({}, 10)])
async def test_busy_provider_is_left_alone_for_a_while(tmp_path, headers, wait):
    async with at_work(tmp_path, shipped("twilio-messages")) as work:
        work.add(1)
        work.provider.default = reply(429, b'{"code": 20429}', {"Content-Type": "application/json", **headers})
        error = await work.poll()
        assert error is not None
        assert error.retry_after == pytest.approx(wait, abs=1)
        work.provider.default = work.account.answer
        await work.publish_all()


PAGES = {
    "link": {"link": "$.paging.next"},
    "header": {"header": "next"},
    "cursor": {"cursor": {"token": "$.after", "param": "after"}},
    "offset": {"offset": {"size": 7, "size_param": "limit"}},
    "offset with a total": {"offset": {"size": 7}, "end": "empty", "total": "$.total"},
    "number": {"number": {"size": 7}},
    "link to an empty page": {"link": "$.next", "end": "empty"},
    "cap": {"number": {"size": 7}, "cap": 40},
}


@pytest.mark.parametrize("pages", PAGES.values(), ids=PAGES.keys())
async def test_all_pages_of_a_list_are_read(tmp_path, pages):
    definition = acme(tmp_path, listing={"pages": pages})
    async with at_work(tmp_path, definition) as work:
        work.add(20)
        await work.publish_all()
        work.time.ahead += 900
        work.add(25)
        await work.publish_all()


async def test_more_than_a_question_shows_is_read_in_parts(tmp_path):
    definition = acme(tmp_path, listing={"pages": {"number": {"size": 20}, "cap": 40}})
    async with at_work(tmp_path, definition) as work:
        for _ in range(3):
            work.add(25)
            work.time.ahead += 600
        await work.publish_all()


CLIENT = {"token_url": "https://acme.example/_token", "client_id": "account", "client_secret": "token"}
LOGIN = {
    "path": "/v1/{account}/sessions",
    "body": {"user": {"setting": "account"}, "password": {"setting": "token"}, "remember": False},
    "token": "$.session.key",
}
AUTH = {
    "basic": {"basic": {"user": "account", "password": "token"}},
    "header": {"header": {"name": "X-Key", "value": "token", "prefix": "App "}},
    "query": {"query": {"name": "key", "value": "token"}},
    **{f"oauth2 {style}": {"oauth2": {**CLIENT, "style": style}} for style in ("basic", "form", "json")},
    "login json": {"login": {**LOGIN, "expires": "$.seconds"}},
    "login form": {"login": {**LOGIN, "style": "form", "header": "X-Session", "prefix": ""}},
}


@pytest.mark.parametrize("auth", AUTH.values(), ids=AUTH.keys())
async def test_each_way_to_sign_in_opens_the_account(tmp_path, auth):
    async with at_work(tmp_path, acme(tmp_path, auth=auth)) as work:
        work.add(1)
        await work.publish_all()


@pytest.mark.parametrize("auth", ["oauth2 form", "login json"])
async def test_ended_token_is_replaced_at_once(tmp_path, auth):
    async with at_work(tmp_path, acme(tmp_path, auth=AUTH[auth])) as work:
        work.add(1)
        await work.publish_all()
        work.account._vendor.expire()
        work.add(1)
        assert await work.poll() is None
        await work.publish_all()


@pytest.mark.parametrize("auth", ["oauth2 form", "login json"])
async def test_refused_client_is_an_operators_concern(tmp_path, auth):
    async with at_work(tmp_path, acme(tmp_path, auth=AUTH[auth])) as work:
        work.account._vendor.values = {**work.account._vendor.values, "token": "another"}
        assert isinstance(await work.poll(), Unauthorized)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (reply(404), "check auth.login.path"),
        (reply(200, b'{"key": 1}', {"Content-Type": "application/json"}), "no token"),
    ],
)
async def test_login_without_a_token_says_what_to_check(tmp_path, step, error):
    async with at_work(tmp_path, acme(tmp_path, auth=AUTH["login json"])) as work:
        work.provider.default = step
        assert error in str(await work.poll())


async def test_each_member_of_an_expanded_list_is_a_resource(tmp_path):
    definition = acme(
        tmp_path,
        listing={"expand": "$.recipients"},
        identity={"within": "$.recipients.phone"},
        status={"path": "$.recipients.state"},
    )
    async with at_work(tmp_path, definition) as work:
        first, _ = work.add(2)
        await work.publish_all()
        work.move(first)
        await work.publish_all()
        born = work.time.now().isoformat()
        many = [{"phone": "1", "state": "sent"}, {"phone": "2", "state": "delivered"}]
        items = [
            {"id": "x", "created_at": born, "recipients": many},
            {"id": "y", "created_at": born, "recipients": None},
        ]
        body = json.dumps({"data": items}).encode()
        work.provider.default = reply(200, body, {"Content-Type": "application/json"})
        await work.poll()
        (problem,) = work.source.problems
        assert problem.endswith("records without a state that can be read: passed over")
        entries = await work.store.read(NAME, (await work.store.journal(NAME)).base, 1000)
        shown = {
            entry.event.topic
            for entry in entries
            if json.loads(entry.event.body)["subject"].startswith("/v1/simulated-account/texts/x/")
        }
        assert shown == {"sms.message.sent", "sms.message.delivered"}


async def test_numbered_feed_never_goes_back(tmp_path):
    feed = {"param": "after", "format": "number", "position": "$.n"}
    definition = acme(tmp_path, window=None, feed=feed, identity={"mark": "$.n"})
    async with at_work(tmp_path, definition) as work:
        first, _ = work.add(2)
        await work.publish_all()
        before = int((await work.store.cursor(NAME))["feed.position"])
        work.move(first)
        await work.publish_all()
        assert int((await work.store.cursor(NAME))["feed.position"]) > before
        work.provider.default = reply(200, b'{"data": []}', {"Content-Type": "application/json"})
        assert await work.poll() is None
        assert int((await work.store.cursor(NAME))["feed.position"]) > before


async def test_unknown_status_is_an_event_with_the_value(tmp_path):
    async with at_work(tmp_path, acme(tmp_path)) as work:
        body = {"data": [{"id": "x", "state": "vaporised", "created_at": work.time.now().isoformat()}]}
        work.provider.default = reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
        assert await work.poll() is None
        (entry,) = await work.store.read(NAME, (await work.store.journal(NAME)).base, 10)
        assert entry.event.topic == "sms.message.unknown"
        assert json.loads(entry.event.body)["data"]["provider_status"] == "vaporised"


def test_definitions_that_say_the_same_share_their_events(tmp_path):
    first, second = acme(tmp_path), acme(tmp_path)
    suites = [suite_of("acme", definition) for definition in (first, second)]
    assert suites[0].plugin.events == suites[1].plugin.events


def test_new_version_that_consumers_would_notice_is_named(tmp_path):
    old = acme(tmp_path)
    assert breaking(old, acme(tmp_path, status={"map": {**old.status.map, "done": "delivered"}})) == []
    other = acme(
        tmp_path,
        status={
            "map": {"queued": "queued", "sent": "queued", "delivered": "delivered"},
            "follows": {"queued": ["delivered"]},
        },
    )
    assert Counter(line.partition(":")[0] for line in breaking(old, other)) == {"status.map": 1, "status.map.sent": 1}
    moved = acme(tmp_path, identity={"key": "$.uuid"}, events={"channel": "voice"})
    assert {line.partition(":")[0] for line in breaking(old, moved)} == {"identity.key", "events.channel"}
    retyped = {"times": {"created": {"path": "$.created_at"}, "changed": {"path": "$.c"}}}
    assert [line[:5] for line in breaking(acme(tmp_path, **retyped), old)] == ["facts"]
