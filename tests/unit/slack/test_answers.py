"""Slack: its answers, and the sink's settings."""

from __future__ import annotations

import json

import pytest
from blockkit import check_message
from pydantic import ValidationError
from rigs.slack import Time

from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unauthorized
from bridge.testing.fake_endpoint import reply
from bridge.testing.sink_suite import outgoing, sample
from bridge_slack import SlackSettings, plugin
from bridge_slack.api import BlocksRefused


def bot_of(receiver, clock=None):
    values = {"type": "slack", "topics": ["#"], "bot_token": "xoxb-canary", "channel": "C024BE91L",
              "api_url": f"{receiver.url}/api/", "allow_private": True}  # fmt: skip
    return plugin.build("ops", SlackSettings.model_validate(values), clock or Clock())


@pytest.fixture
async def bot(receiver):
    sink = bot_of(receiver)
    await sink.open()
    yield sink
    await sink.close()


async def test_a_bot_posts_to_its_channel_with_its_token(receiver, bot):
    receiver.answer(reply(200, b'{"ok": true, "ts": "1"}'))
    await bot.send(outgoing(sample(1)))
    (request,) = receiver.requests
    assert request.path == "/api/chat.postMessage"
    assert request.headers["authorization"] == "Bearer xoxb-canary"
    body = json.loads(request.body)
    assert body.pop("channel") == "C024BE91L"
    check_message(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(200, b'{"ok": false, "error": "ratelimited"}', Transient), (200, b'{"ok": false, "error": "fatal_error"}', Transient),
     (200, b'{"ok": false, "error": "invalid_auth"}', Unauthorized), (200, b'{"ok": false, "error": "not_in_channel"}', Unauthorized),
     (200, b'{"ok": false, "error": "channel_not_found"}', EndpointGone), (200, b'{"ok": false, "error": "is_archived"}', EndpointGone),
     (200, b'{"ok": false, "error": "invalid_blocks"}', BlocksRefused), (200, b'{"ok": false, "error": "a canary"}', Transient),
     (200, b'{"ok": false, "error": {"canary": 1}}', Transient), (200, b"canary", Transient), (200, b"[]", Transient),
     (200, b"", Transient), (401, b'{"ok": false, "error": "invalid_auth"}', Unauthorized), (400, b"canary", Permanent),
     (500, b'{"ok": false, "error": "the canary"}', Transient)],
)  # fmt: skip
async def test_a_bots_refusals_say_what_to_do_next(receiver, bot, status, body, kind):
    receiver.default = reply(status, body)
    with pytest.raises(kind) as caught:
        await bot.send(outgoing(sample(1)))
    assert type(caught.value) is kind
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(404, b"no_service", EndpointGone), (410, b"channel_is_archived", EndpointGone), (404, b"channel_not_found", EndpointGone),
     (403, b"action_prohibited", Unauthorized), (403, b"invalid_token", Unauthorized), (400, b"invalid_payload", Permanent),
     (400, b"a canary", Permanent), (404, b"\xff", Transient), (429, b"rate_limited", Transient), (500, b"rollup_error", Transient)],
)  # fmt: skip
async def test_a_webhooks_refusals_say_what_to_do_next(receiver, slack, status, body, kind):
    receiver.answer(reply(status, body, {"Retry-After": "7"}))
    with pytest.raises(kind) as caught:
        await slack.send(outgoing(sample(1)))
    assert type(caught.value) is kind
    assert "canary" not in str(caught.value)
    assert getattr(caught.value, "retry_after", 7) in (7, None)


async def test_bot_check_verifies_the_token_and_posts_nothing(receiver):
    bot = bot_of(receiver)
    receiver.answer(reply(200, b'{"ok": true}'), reply(200, b'{"ok": false, "error": "token_revoked"}'))
    assert await bot.probe() == "posts to channel C024BE91L; Slack accepts the token"
    with pytest.raises(Unauthorized, match="token_revoked"):
        await bot.probe()
    await bot.close()
    assert [request.path for request in receiver.requests] == ["/api/auth.test"] * 2


async def test_a_webhook_in_a_file_can_be_rotated(receiver, tmp_path):
    path = tmp_path / "url"
    path.write_text(f"{receiver.url}/services/old\n")
    values = {"type": "slack", "topics": ["#"], "webhook_url_file": str(path), "allow_private": True}
    sink = plugin.build("ops", SlackSettings.model_validate(values), Clock(sleep=Time().sleep))
    await sink.open()
    await sink.send(outgoing(sample(1)))
    path.write_text(f"{receiver.url}/services/newer\n")
    assert "newer" not in await sink.probe()
    sink._limiter._queue.free = 0.0
    await sink.send(outgoing(sample(2)))
    path.write_text("no longer a URL")
    sink._limiter._queue.free = 0.0
    with pytest.raises(Transient, match="correct its file"):
        await sink.send(outgoing(sample(3)))
    await sink.close()
    assert [request.path for request in receiver.requests] == ["/services/old", "/services/newer"]


HOOK = "https://hooks.slack.com/services/T0/B0/canary"


@pytest.mark.parametrize(
    ("values", "problem"),
    [({}, "give webhook_url, or bot_token and channel"), ({"bot_token": "xoxb-canary"}, "give webhook_url, or bot_token"),
     ({"channel": "C1"}, "give webhook_url, or bot_token"), ({"webhook_url": HOOK, "channel": "C1"}, "give either"),
     ({"webhook_url": "canary"}, "is not a URL"), ({"webhook_url": HOOK, "api_url": "canary"}, "is not a URL"),
     ({"webhook_url": HOOK, "window": "2m"}, "at least 30s more than window")],
)  # fmt: skip
def test_slack_refuses_unusable_settings_without_showing_secrets(values, problem):
    with pytest.raises(ValidationError) as caught:
        SlackSettings.model_validate({"type": "slack", "topics": ["#"], **values})
    messages = " ".join(error["msg"] for error in caught.value.errors())
    assert problem in messages
    assert "canary" not in messages


def test_settings_show_no_secret_and_mask_phones_by_default():
    settings = SlackSettings.model_validate({"type": "slack", "topics": ["#"], "webhook_url": HOOK})
    assert "canary" not in f"{settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert settings.privacy == "last4"
