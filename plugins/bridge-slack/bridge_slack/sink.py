"""One Slack channel: its settings, and the sink."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from bridge.plugin import (
    Clock,
    Digests,
    Duration,
    Endpoint,
    Event,
    GuardedClient,
    Network,
    Outgoing,
    Privacy,
    Secret,
    SinkSettings,
    Transient,
)
from bridge_slack.api import BlocksRefused, Bot, IncomingWebhook, SlackTransport
from bridge_slack.blocks import Message, digest, group_of, plain, single
from bridge_slack.rate_limiter import INTERVAL_SECONDS, ChannelRateLimiter, queue_for

_POST_TIMEOUT_SECONDS = 15.0
_MAX_CONNECTIONS = 4
_POSTING_SECONDS = 30.0
"""Time for posting and for waiting in the queue, in addition to the window."""


class SlackSettings(SinkSettings):
    """How to post to a channel: give either `webhook_url`, or `bot_token` and `channel`."""

    webhook_url: Secret | None = None
    """The URL of an incoming webhook."""
    bot_token: Secret | None = None
    """A bot's token (xoxb-…) with the scope chat:write."""
    channel: str | None = Field(default=None, min_length=1)
    """The channel that the bot posts to: its id, or its name."""
    window: Duration = Field(default=30.0, gt=0)
    """The longest time for which events of one message and status are gathered into a digest."""
    concurrency: int = Field(default=1000, ge=1, le=10000)
    """How many events wait for their message at once; a digest holds no more than these."""
    privacy: Privacy = "last4"
    """What this sink may see of phones and keys: all, the last four digits, or a stable token."""
    send_timeout: Duration = Field(default=120.0, gt=0)
    """How long one event may take, the wait for its digest included; 30 seconds more than `window`, or longer."""
    allow_private: bool = False
    """Whether the URL may lead to a private, loopback or link-local address."""
    allow_networks: list[Network] = Field(default_factory=list)
    """Networks such as `10.2.0.0/16`: the URL may lead to them, and to no other private address."""
    api_url: str = "https://slack.com/api"
    """Where the bot's methods are."""

    @field_validator("api_url")
    @classmethod
    def _usable_api_url(cls, text: str) -> str:
        Endpoint.of(text)
        return text.rstrip("/")

    @field_validator("webhook_url")
    @classmethod
    def _usable_webhook_url(cls, url: Secret | None) -> Secret | None:
        if url is not None:
            Endpoint.of(url.reveal())
        return url

    @model_validator(mode="after")
    def _has_one_transport(self) -> Self:
        if self.webhook_url is None and (self.bot_token is None or self.channel is None):
            raise ValueError("give webhook_url, or bot_token and channel")
        if self.webhook_url is not None and (self.bot_token is not None or self.channel is not None):
            raise ValueError("give either webhook_url, or bot_token and channel; a webhook has its own channel")
        return self

    @model_validator(mode="after")
    def _has_time_to_gather(self) -> Self:
        if self.send_timeout < self.window + _POSTING_SECONDS:
            raise ValueError(
                f"send_timeout has to be at least {_POSTING_SECONDS:g}s more than window, or digests never end"
            )
        return self


class Slack:
    """Posts to a channel: a single event at once, a burst in digests, one message a second."""

    def __init__(self, name: str, settings: SlackSettings, clock: Clock) -> None:
        del name
        self._transport = _transport_of(settings)
        max_wait = settings.send_timeout - settings.window - _POST_TIMEOUT_SECONDS
        self._limiter = ChannelRateLimiter(clock, max_wait, queue_for(self._transport.channel_key, clock))
        self._digests = Digests(clock, settings.window, post=self._post, acquire=self._limiter.acquire)
        self._outbound = GuardedClient(
            allow_private=settings.allow_private,
            allow_networks=settings.allow_networks,
            clock=clock,
            timeout=_POST_TIMEOUT_SECONDS,
            connections=_MAX_CONNECTIONS,
        )

    async def open(self) -> None:
        """Make the connection pool."""
        await self._outbound.open()

    async def send(self, outgoing: Outgoing) -> None:
        """Return when Slack accepted a message with this event, alone or in a digest."""
        event = outgoing.event
        await self._digests.add(group_of(event), event)

    async def probe(self) -> str:
        """Connect, or with a token ask whose it is; posts nothing."""
        await self._outbound.open()
        return await self._transport.probe(self._outbound)

    async def close(self) -> None:
        """Stop gathering without sending the rest, and close the connections."""
        await self._digests.close()
        await self._outbound.close()

    async def _post(self, events: list[Event]) -> None:
        message = single(events[0]) if len(events) == 1 else digest(events)
        try:
            await self._post_message(message)
        except BlocksRefused:  # without this, one event that breaks the blocks would fail its whole digest
            await self._limiter.acquire(first=True)
            await self._post_message(plain(message))

    async def _post_message(self, message: Message) -> None:
        try:
            await self._transport.post(self._outbound, message)
        except Transient as error:
            self._limiter.pause(error.retry_after or INTERVAL_SECONDS)
            raise


def _transport_of(settings: SlackSettings) -> SlackTransport:
    if settings.webhook_url is not None:
        return IncomingWebhook(settings.webhook_url)
    if settings.bot_token is None or settings.channel is None:
        raise ValueError("neither webhook_url nor bot_token and channel are given")
    return Bot(settings.bot_token, settings.channel, settings.api_url)
