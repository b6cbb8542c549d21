"""What Slack's words ask of the sink: each word of the table, unknown words, and answers that are no acceptance."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.domain.clock import Clock
from bridge.domain.errors import EndpointGone, Permanent, Transient, Unauthorized
from bridge.testing.fake_endpoint import FakeEndpoint, reply
from bridge_slack import Slack, SlackSettings
from bridge_slack.api import BlocksRefused
from bridge_slack.words import MEANINGS, Meaning, is_word

ERRORS = {
    Meaning.TEMPORARY: Transient,
    Meaning.PAUSE: Unauthorized,
    Meaning.GONE: EndpointGone,
    Meaning.BLOCKS: BlocksRefused,
    Meaning.MESSAGE: Permanent,
}

# The words of Slack's reference pages with the status and the way by which they come. A new word is one more line.
POST_MESSAGE = {
    Transient: """ratelimited rate_limited message_limit_exceeded internal_error fatal_error service_unavailable
        request_timeout team_added_to_org external_channel_migrating""",
    Unauthorized: """invalid_auth not_authed account_inactive token_revoked token_expired no_permission missing_scope
        not_allowed_token_type org_login_required ekm_access_denied access_denied accesslimited not_in_channel
        restricted_action restricted_action_read_only_channel restricted_action_non_threadable_channel
        restricted_action_thread_only_channel restricted_action_thread_locked enterprise_is_restricted
        team_access_not_granted two_factor_setup_required messages_tab_disabled method_deprecated deprecated_endpoint
        slack_connect_file_link_sharing_blocked slack_connect_canvas_sharing_blocked slack_connect_blocked_file_type
        slack_connect_something_new_blocked restricted_action_something_new""",
    EndpointGone: "channel_not_found is_archived is_inactive team_not_found",
    BlocksRefused: "invalid_blocks invalid_blocks_format msg_blocks_too_long",
    Permanent: """msg_too_long no_text too_many_attachments attachment_payload_limit_exceeded invalid_arguments
        invalid_arg_name metadata_too_large invalid_metadata_format markdown_text_conflict""",
}
WEBHOOK = [
    (400, "invalid_payload", Permanent), (400, "invalid_blocks", BlocksRefused), (400, "no_text", Permanent),
    (400, "user_not_found", EndpointGone), (400, "too_many_attachments", Permanent),
    (403, "action_prohibited", Unauthorized), (403, "posting_to_general_channel_denied", Unauthorized),
    (403, "invalid_token", Unauthorized), (403, "team_disabled", EndpointGone), (403, "no_active_hooks", EndpointGone),
    (404, "channel_not_found", EndpointGone), (404, "no_service", EndpointGone), (404, "no_team", EndpointGone),
    (410, "channel_is_archived", EndpointGone), (429, "rate_limited", Transient), (500, "rollup_error", Transient),
    (400, "invalid_token", Unauthorized), (404, "no_service_id", EndpointGone), (200, "no_service", EndpointGone),
    (200, "is_inactive", EndpointGone), (410, "some_new_word", EndpointGone),
]  # fmt: skip


@pytest.fixture
async def receiver() -> AsyncIterator[FakeEndpoint]:
    async with FakeEndpoint(default=reply(200, b"ok")) as receiver:
        yield receiver


async def error_of(receiver: FakeEndpoint, **settings: Any) -> Exception:
    """Return what one event raises; the blocks of a message are refused and its text is not tried on its own."""
    values = {"type": "slack", "topics": ["#"], "allow_private": True, **settings}
    sink = Slack("ops", SlackSettings.model_validate(values), Clock())
    await sink.open()
    try:
        await sink._transport.post(sink._outbound, {"text": "canary"})
    except (Transient, Permanent) as error:
        return error
    finally:
        await sink.close()
    raise AssertionError("counted as a delivery")


async def webhook_error(receiver: FakeEndpoint, status: int, body: bytes) -> Exception:
    receiver.default = reply(status, body)
    return await error_of(receiver, webhook_url=f"{receiver.url}/services/T0/B0/x")


async def bot_error(receiver: FakeEndpoint, status: int, body: bytes) -> Exception:
    receiver.default = reply(status, body)
    return await error_of(receiver, bot_token="xoxb-x", channel="C1", api_url=f"{receiver.url}/api")


@pytest.mark.parametrize(
    ("word", "kind"), [(word, kind) for kind, words in POST_MESSAGE.items() for word in words.split()]
)
async def test_each_word_of_chat_post_message_has_its_meaning(receiver, word: str, kind: type[Exception]) -> None:
    error = await bot_error(receiver, 200, json.dumps({"ok": False, "error": word}).encode())
    assert type(error) is kind
    assert word in str(error)


@pytest.mark.parametrize(("status", "word", "kind"), WEBHOOK)
async def test_each_word_of_a_webhook_has_its_meaning(receiver, status: int, word: str, kind: type[Exception]) -> None:
    error = await webhook_error(receiver, status, word.encode())
    assert type(error) is kind


@pytest.mark.parametrize("status", [200, 400, 403, 404, 409, 500])
@pytest.mark.parametrize("word", ["some_new_word", "is_haunted", "quota_2_exceeded"])
async def test_unknown_words_are_tried_again_and_named(receiver, status: int, word: str) -> None:
    by_webhook = await webhook_error(receiver, status, f"{word}\n".encode())
    by_bot = await bot_error(receiver, status, json.dumps({"ok": False, "error": word}).encode())
    assert {type(by_webhook), type(by_bot)} == {Transient}
    assert word in str(by_webhook)
    assert word in str(by_bot)


@pytest.mark.parametrize(
    "body",
    [b"", b"OK", b"okay", b"ok ok", b'"ok"', b"<html>ok</html>", b'{"ok": true}', b'{"ok": false}', b"\xff\xfe", b"[]"],
)
async def test_webhook_answers_without_ok_are_no_delivery(receiver, body: bytes) -> None:
    assert type(await webhook_error(receiver, 200, body)) is Transient


@pytest.mark.parametrize(
    "body", [b"canary 555", b"Canary", b"5551230000", b"canary_5551230000", b'{"error": ["canary"]}']
)
async def test_texts_that_may_quote_the_message_are_not_repeated(receiver, body: bytes) -> None:
    for answer in (body, json.dumps({"ok": False, "error": body.decode()}).encode()):
        for error in (await webhook_error(receiver, 200, answer), await bot_error(receiver, 200, answer)):
            assert type(error) is Transient
            said = str(error).partition(" answered ")[2]  # the receiver's port may have these digits
            assert said
            assert "canary" not in said.lower()
            assert "555" not in said


def test_every_known_word_may_be_logged() -> None:
    assert [word for word in MEANINGS if not is_word(word)] == []
    assert set(ERRORS) == set(Meaning) == set(MEANINGS.values())
