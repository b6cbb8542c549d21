"""The events of GovDelivery TMS: messages and their recipients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from bridge.domain.event import Data, Event, UnmappedFields
from bridge.domain.overdue import OVERDUE, OverdueFields
from bridge.domain.times import Time


class RecipientData(Data):
    """One recipient of a GovDelivery message."""

    message: str
    """The path of its message."""
    phone: str | None = None
    """E.164 where the provider gives it."""
    error: str | None = None
    created_at: Time | None = None
    completed_at: Time | None = None
    provider: UnmappedFields = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class MessageData(Data):
    """One GovDelivery message."""

    recipient_counts: dict[str, int] | None = None
    recipient_detail_counts: dict[str, int] | None = None
    """Voice only."""
    created_at: Time | None = None
    completed_at: Time | None = None
    provider: UnmappedFields = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class RecipientOverdueData(OverdueFields, RecipientData):
    """One recipient of a GovDelivery message that has had no final status for too long."""


class MessageOverdueData(OverdueFields, MessageData):
    """One GovDelivery message that has had no final status for too long."""


class MessageEvent(Event):
    """A message itself moved; it carries its recipient counts."""

    channels = ("sms", "voice")
    entity = "message"
    provider = "govdelivery"
    data: MessageData


class MessageNew(MessageEvent):
    """The message has been created."""

    status = "new"


class MessageQueued(MessageEvent):
    """The message has been queued for sending."""

    status = "queued"


class MessageSending(MessageEvent):
    """The message has begun sending."""

    status = "sending"


class MessageCompleted(MessageEvent):
    """All recipients have positive confirmation or have expired; single recipients may still change."""

    status = "completed"


class MessageCanceled(MessageEvent):
    """The message was canceled."""

    status = "canceled"


class MessageOverdue(MessageEvent):
    """The message had no final status within `expect.final_within`."""

    status = OVERDUE
    data: MessageOverdueData


class RecipientEvent(Event):
    """One recipient of a message moved."""

    channels = ("sms", "voice")
    entity = "recipient"
    provider = "govdelivery"
    data: RecipientData


class RecipientNew(RecipientEvent):
    """The recipient has not been sent."""

    status = "new"


class RecipientSending(RecipientEvent):
    """The recipient has been sent, but no delivery information has been obtained."""

    status = "sending"


class RecipientSent(RecipientEvent):
    """The recipient has been confirmed as sent; of a call, whether a human or a machine answered."""

    status = "sent"
    details: ClassVar[Mapping[str, tuple[str, ...]]] = {"voice": ("human", "machine")}


class RecipientFailed(RecipientEvent):
    """The recipient has been confirmed as failed; of a call, why."""

    status = "failed"
    details: ClassVar[Mapping[str, tuple[str, ...]]] = {"voice": ("busy", "no_answer", "could_not_connect")}


class RecipientInconclusive(RecipientEvent):
    """No result was to be had so far; not final."""

    status = "inconclusive"


class RecipientBlacklisted(RecipientEvent):
    """The recipient is on the blacklist."""

    status = "blacklisted"


class RecipientCanceled(RecipientEvent):
    """The recipient was canceled."""

    status = "canceled"


class RecipientOverdue(RecipientEvent):
    """The recipient had no final status within `expect.final_within`."""

    status = OVERDUE
    data: RecipientOverdueData


EVENTS: tuple[type[Event], ...] = (
    MessageNew, MessageQueued, MessageSending, MessageCompleted, MessageCanceled, MessageOverdue,
    RecipientNew, RecipientSending, RecipientSent, RecipientInconclusive, RecipientBlacklisted, RecipientCanceled,
    RecipientFailed, RecipientOverdue,
)  # fmt: skip
"""Every event of GovDelivery, in the order in which a reader wants them."""
