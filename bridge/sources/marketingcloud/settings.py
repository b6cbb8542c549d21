"""What a Marketing Cloud source can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from bridge.domain.secret_text import secret_text
from bridge.domain.settings import Duration, Secret
from bridge.http.client import Origin
from bridge.protocols.source import SourceSettings
from bridge.sources.marketingcloud.events import FEEDS


class MarketingCloudSettings(SourceSettings):
    """A source of Salesforce Marketing Cloud's messages that were not sent."""

    auth_url: Origin
    """The authentication host: https://SUBDOMAIN.auth.marketingcloudapis.com."""
    client_id: Annotated[str, AfterValidator(secret_text)] = Field(min_length=1)
    """The installed package's client id."""
    client_secret: Secret
    """The installed package's client secret."""
    account_id: str | int | None = None
    """The business unit (MID); if it is left out, the package's own."""
    rest_url: Origin | None = None
    """Where the REST API is; if it is left out, the token's answer says so."""
    kinds: list[Literal["sms", "email"]] = Field(default=["sms"], min_length=1)
    """Which feeds are read."""
    page_size: int = Field(default=50, ge=1, le=10_000)
    """How many events are asked for at once."""
    start: Literal["earliest", "latest"] = "earliest"
    """At a first start: from the oldest event that the provider still has, or only what comes from now on."""
    interval: Duration = Field(default=60.0, gt=0)
    """How often the feeds are read; each time costs a call of the account's yearly allowance."""
    idle_slowdown: float = Field(default=5.0, ge=1, le=1000)
    """How many times longer the interval becomes, step by step, while nothing happens; 1 is never."""
    yearly_calls: int = Field(default=2_000_000, ge=1)
    """The calls that the account may make in a year: 2,000,000, 6,000,000 or 200,000,000 by edition. `bridgectl check`
    warns if an idle year costs more."""

    @field_validator("statuses")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for feed in FEEDS.values():
            feed.kind(value)
        return value
