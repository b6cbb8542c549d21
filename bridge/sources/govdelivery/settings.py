"""The settings of one GovDelivery account, and how its messages are named in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from bridge.domain.settings import Duration, Secret
from bridge.hooks.settings import PushSettings
from bridge.http.client import Origin
from bridge.protocols.source import SourceSettings
from bridge.sources.govdelivery.api import canonical, channel_of
from bridge.sources.govdelivery.lifecycles import MESSAGE, RECIPIENT

Channel = Literal["sms", "voice"]


def _nameable(text: str, info: ValidationInfo) -> str:
    if "channels" in info.data:  # else these are wrong themselves, and that is told
        resource(text, info.data["channels"])
    return text


class GovDeliverySettings(SourceSettings):
    """One GovDelivery TMS account."""

    url: Origin = "https://tms.govdelivery.com"
    """The root of the service; staging is https://stage-tms.govdelivery.com."""
    token: Secret
    """The account's authentication token, sent as X-AUTH-TOKEN."""
    channels: Annotated[list[Channel], AfterValidator(lambda match: list(dict.fromkeys(match)))] = Field(
        default=["sms", "voice"], min_length=1
    )
    """Which kinds of messages."""
    discover: bool = True
    """Whether new messages of the account are found and followed."""
    messages: list[Annotated[str, AfterValidator(_nameable)]] = Field(default_factory=list)
    """Messages to follow in any case, by path: /messages/voice/10507."""
    follow_for: Duration = Field(default=259200.0, ge=0)
    """For how long a message is looked at after its completion; older messages are not followed at a first start."""
    page_size: int = Field(default=100, ge=1, le=100)
    """Messages in a page of the list."""
    concurrency: int = Field(default=4, ge=1, le=64)
    """How many messages are being read at once."""
    reread_every: Duration = Field(default=600.0, gt=0)
    """How often recipients are read though no count moved, since two opposite changes leave the counts alone."""
    push: PushSettings | None = None
    """The account's webhooks push to `hooks.url`; the secret is the last part of the address."""
    timeout: Duration = Field(default=30.0, gt=0)
    """How long the provider may be silent before a request counts as failed."""
    ca_file: str | None = None
    """Certificates of the authorities to trust, PEM; by default those of the system."""
    client_cert: str | None = None
    """A certificate to show to the provider, PEM."""
    client_key: str | None = None
    """The key of `client_cert`, PEM, if it is not in the same file."""

    @model_validator(mode="after")
    def _named(self) -> Self:
        known = {*MESSAGE.codes, *RECIPIENT.codes}
        for value, status in self.statuses.items():
            if status not in known:
                raise ValueError(f"statuses: {value!r}: {status!r} is not one of {', '.join(sorted(known))}")
        return self


def resource(text: str, channels: Sequence[str]) -> str:
    """Return the canonical path of a message or recipient; an id alone will do where there is one channel only."""
    text = text.strip()
    if text.isalnum():
        if len(channels) == 1:
            return f"/messages/{channels[0]}/{text}"
        raise ValueError(
            f"{text!r} may be a message of several channels; give its path, such as /messages/voice/{text}"
        )
    path = canonical(text)
    if path is None:
        raise ValueError("not the path of a message; give one such as /messages/voice/10507")
    if channel_of(path) not in channels:
        raise ValueError(f"{path} is not of the channels {', '.join(channels)}")
    return path
