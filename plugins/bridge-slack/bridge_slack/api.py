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
from bridge_slack.words import Meaning, is_word, meaning_of

_JSON = "application/json; charset=utf-8"
_ACCEPTED = "ok"
"""The whole answer of an incoming webhook that accepted a message."""


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
        """Post; the answer is plain text: `ok`, or one word of why not. Without `ok` it is no delivery."""
        answer = await outbound.post(self._endpoint(), _encoded(message), {"Content-Type": _JSON})
        text = answer.body.decode("utf-8", "replace").strip()
        if answer.error() is not None or text != _ACCEPTED:
            raise classify_error(answer, _error_word(_parsed(answer.body)) or text)

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
        if answer.error() is not None or reply.get("ok") is not True:
            raise classify_error(answer, _error_word(reply))


def classify_error(answer: EndpointResponse, word: str) -> BridgeError:
    """Return the error for an answer that is no acceptance, by Slack's word for it and by the status."""
    text = f"{answer.endpoint} answered {answer.status} {word}"
    match meaning_of(word):
        case Meaning.TEMPORARY:
            error: BridgeError = Transient(text, retry_after=answer.retry_after)
        case Meaning.PAUSE:
            error = Unauthorized(f"{text}: check the token, its scopes, and whether the app may post to the channel")
        case Meaning.GONE:
            error = EndpointGone(f"{text}: nothing more is sent there until it was corrected and enabled again")
        case Meaning.BLOCKS:
            error = BlocksRefused(text)
        case Meaning.MESSAGE:
            error = Permanent(text)
        case None:
            error = _unknown(answer, word)
    return answer.attached_to(error)


def _unknown(answer: EndpointResponse, word: str) -> BridgeError:
    error = answer.error()
    if isinstance(error, EndpointGone):
        return error
    if is_word(word):
        text = f"{answer.endpoint} answered {answer.status} {word}: this word is not known here, so it is tried again"
        return Transient(text, retry_after=answer.retry_after)
    # The text may quote the message: it is not repeated.
    return error or Transient(f"{answer.endpoint} answered {answer.status} without saying that it took the message")


def _error_word(reply: dict[str, Any]) -> str:
    word = reply.get("error")
    return word if isinstance(word, str) else ""


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _encoded(arguments: dict[str, Any]) -> bytes:
    return json.dumps(arguments, ensure_ascii=False).encode()
