"""The two ways to post to Slack, an incoming webhook and a bot's token, and the meaning of Slack's answers."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from bridge.plugin import (
    BridgeError,
    Endpoint,
    EndpointGone,
    EndpointResponse,
    GuardedClient,
    Permanent,
    Secret,
    Transient,
    Unauthorized,
)
from bridge_slack.blocks import Message

_JSON = "application/json; charset=utf-8"

_LATER = frozenset(
    {
        "ratelimited", "rate_limited", "message_limit_exceeded", "internal_error", "fatal_error",
        "service_unavailable", "request_timeout", "team_added_to_org",
    }
)  # fmt: skip
_FORBIDDEN = frozenset(
    {
        "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "invalid_token",
        "no_permission", "missing_scope", "not_allowed_token_type", "org_login_required", "ekm_access_denied",
        "access_denied", "accesslimited", "not_in_channel", "restricted_action", "action_prohibited",
        "restricted_action_read_only_channel", "restricted_action_non_threadable_channel",
        "posting_to_general_channel_denied",
    }
)  # fmt: skip
_GONE = frozenset(
    {
        "no_service", "no_service_id", "no_active_hooks", "no_team", "team_disabled", "channel_is_archived",
        "is_archived", "channel_not_found", "user_not_found",
    }
)  # fmt: skip
_BLOCKS = frozenset({"invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long"})
_MALFORMED = frozenset({"invalid_payload", "msg_too_long", "no_text"})


class BlocksRefused(Permanent):
    """Slack does not take the blocks of a message; its text alone may do."""


class SlackTransport(Protocol):
    """A way to post messages to one channel."""

    @property
    def channel_key(self) -> Hashable:
        """The same value for all transports that post to one channel, as far as they know; holds no plain secret."""
        ...

    async def post(self, outbound: GuardedClient, message: Message) -> None:
        """Post one message; raises `Transient` or `Permanent`."""
        ...

    async def probe(self, outbound: GuardedClient) -> str:
        """Return where messages go, without posting one; raises as `post` does."""
        ...


@dataclass(frozen=True, slots=True)
class IncomingWebhook:
    """A URL that is bound to a channel, and is itself the secret."""

    url: Secret

    @property
    def channel_key(self) -> Hashable:
        """The URL's digest, for the URL is a secret."""
        return sha256(self.url.reveal().strip().encode()).digest()

    async def post(self, outbound: GuardedClient, message: Message) -> None:
        """Post; the answer is plain text, `ok` or one word of why not."""
        answer = await outbound.post(self._endpoint(), _encoded(message), {"Content-Type": _JSON})
        if error := answer.error():
            raise classify_error(answer, answer.body.decode("ascii", "replace").strip()) or error

    async def probe(self, outbound: GuardedClient) -> str:
        """Connect only: an incoming webhook cannot be asked anything."""
        endpoint = self._endpoint()
        await outbound.check_connectivity(endpoint)
        return f"posts to the channel of a webhook at {endpoint.name}"

    def _endpoint(self) -> Endpoint:
        try:
            return Endpoint.of(self.url.reveal())
        except (ValueError, OSError):  # its file was changed since the start
            raise Transient("webhook_url is no longer a URL; correct its file") from None


@dataclass(frozen=True, slots=True)
class Bot:
    """A token and the channel that its bot posts to."""

    token: Secret
    channel: str
    api_url: str

    @property
    def channel_key(self) -> Hashable:
        """The bot and its channel."""
        return self

    async def post(self, outbound: GuardedClient, message: Message) -> None:
        """Call `chat.postMessage`."""
        await self._call(outbound, "chat.postMessage", {"channel": self.channel, **message})

    async def probe(self, outbound: GuardedClient) -> str:
        """Ask whose token it is."""
        await self._call(outbound, "auth.test", {})
        return f"posts to channel {self.channel}; Slack accepts the token"

    async def _call(self, outbound: GuardedClient, method: str, arguments: dict[str, Any]) -> None:
        headers = {"Content-Type": _JSON, "Authorization": f"Bearer {self.token.reveal()}"}
        answer = await outbound.post(Endpoint.of(f"{self.api_url}/{method}"), _encoded(arguments), headers)
        reply = _parsed(answer.body)
        word = reply.get("error") if isinstance(reply.get("error"), str) else ""
        if error := answer.error():
            raise classify_error(answer, word or "") or error
        if reply.get("ok") is not True:
            raise classify_error(answer, word or "") or _unknown(answer, reply)


def classify_error(answer: EndpointResponse, word: str) -> BridgeError | None:
    """Return what Slack's word for a refusal asks of us; None where it says no more than the status does."""
    text = f"{answer.endpoint} answered {word}"
    if word in _LATER:
        return Transient(text, retry_after=answer.retry_after)
    if word in _FORBIDDEN:
        return Unauthorized(f"{text}: check the token, its scopes, and whether the bot may post to the channel")
    if word in _GONE:
        return EndpointGone(f"{text}: nothing more is sent there until it was corrected and enabled again")
    if word in _BLOCKS:
        return BlocksRefused(text)
    if word in _MALFORMED:
        return Permanent(text)
    return None


def _unknown(answer: EndpointResponse, reply: dict[str, Any]) -> BridgeError:
    # A word that no table knows may quote the message: it is not repeated.
    if "ok" in reply:
        return Permanent(f"{answer.endpoint} refused the message for a reason that is not known here")
    return Transient(f"{answer.endpoint} answered {answer.status} without saying whether it took the message")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _encoded(arguments: dict[str, Any]) -> bytes:
    return json.dumps(arguments, ensure_ascii=False).encode()
