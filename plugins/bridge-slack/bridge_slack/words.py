"""Slack's error words, and what each of them asks the sink to do.

The words are those of Slack's pages on `chat.postMessage`, on `auth.test` and on incoming webhooks. A new word is one
line in one of the sets below; until it has one, it is treated as temporary and named in the log.
"""

from __future__ import annotations

import re
from enum import Enum


class Meaning(Enum):
    """What a word says of the message and of the channel."""

    TEMPORARY = "the message may be accepted later"
    PAUSE = "no message is accepted until somebody changes a right or a setting in Slack"
    GONE = "the channel or the webhook does not exist any more"
    BLOCKS = "Slack does not accept the blocks; the text alone may do"
    MESSAGE = "Slack never accepts this message"


_TEMPORARY = frozenset(
    {
        "ratelimited", "rate_limited", "message_limit_exceeded", "internal_error", "fatal_error", "rollup_error",
        "service_unavailable", "request_timeout", "team_added_to_org", "external_channel_migrating", "timeout",
        "user_rate_limited", "channel_rate_limited", "server_error", "temporarily_unavailable", "invalid_post_type",
        "missing_post_type",
    }
)  # fmt: skip
_PAUSE = frozenset(
    {
        # the token, the app and its rights
        "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "invalid_token",
        "no_permission", "missing_scope", "not_allowed_token_type", "org_login_required", "ekm_access_denied",
        "access_denied", "accesslimited", "two_factor_setup_required", "team_access_not_granted", "not_allowed",
        "enterprise_is_restricted", "method_deprecated", "deprecated_endpoint", "app_not_installed", "app_inactive",
        "as_user_not_supported", "invalid_workspace_id", "org_is_restricted", "is_restricted", "user_is_restricted",
        # the channel's own rules
        "not_in_channel", "restricted_action", "action_prohibited", "restricted_action_read_only_channel",
        "restricted_action_non_threadable_channel", "restricted_action_thread_only_channel",
        "restricted_action_thread_locked", "posting_to_general_channel_denied", "messages_tab_disabled",
        "channel_is_limited_access", "cannot_dm_bot", "channel_type_not_supported",
    }
)  # fmt: skip
_PAUSE_PREFIXES = ("slack_connect_", "restricted_action", "posting_to_")
_GONE = frozenset(
    {
        "no_service", "no_service_id", "no_active_hooks", "no_team", "team_disabled", "team_not_found",
        "channel_is_archived", "is_archived", "channel_not_found", "invalid_channel", "channel_is_disabled",
        "is_inactive", "channel_deleted", "user_not_found", "user_disabled", "user_is_bot", "hook_not_found",
    }
)  # fmt: skip
_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "too_many_blocks"})
_MESSAGE = frozenset(
    {
        "invalid_payload", "msg_too_long", "message_too_long", "no_text", "missing_text_or_fallback_or_attachments",
        "too_many_attachments", "attachment_payload_limit_exceeded", "too_many_contact_cards", "invalid_attachments",
        "invalid_arguments", "invalid_arg_name", "invalid_array_arg", "invalid_charset", "missing_charset",
        "invalid_form_data", "invalid_json", "json_not_object", "markdown_text_conflict", "invalid_metadata_format",
        "invalid_metadata_schema", "metadata_must_be_sent_from_app", "metadata_too_large", "cannot_reply_to_message",
        "duplicate_channel_not_found", "duplicate_message_not_found",
    }
)  # fmt: skip

MEANINGS: dict[str, Meaning] = {
    word: meaning
    for meaning, words in (
        (Meaning.TEMPORARY, _TEMPORARY), (Meaning.PAUSE, _PAUSE), (Meaning.GONE, _GONE), (Meaning.BLOCKS, _BLOCKS),
        (Meaning.MESSAGE, _MESSAGE),
    )
    for word in words
}  # fmt: skip
"""The meaning of every word that is known."""

_WORD = re.compile(r"[a-z]+(?:_[a-z]+|_?\d{1,4}(?!\d))*")
_MAX_WORD_CHARACTERS = 64


def meaning_of(word: str) -> Meaning | None:
    """Return what a word asks for; None for a word that is not known."""
    if word not in MEANINGS and word.startswith(_PAUSE_PREFIXES):
        return Meaning.PAUSE
    return MEANINGS.get(word)


def is_word(text: str) -> bool:
    """Return whether a text looks like one of Slack's words and not like a part of the message: it may be logged."""
    return len(text) <= _MAX_WORD_CHARACTERS and _WORD.fullmatch(text) is not None
