"""The events of Salesforce Marketing Cloud: texts and e-mails, sent, queued or not sent."""

from __future__ import annotations

from pydantic import Field

from bridge.domain.event import Data, Event, UnmappedFields
from bridge.domain.overdue import OVERDUE, OverdueFields


class SendData(Data):
    """One TransactionalSendEvent of Marketing Cloud."""

    event_id: int | str | None = None
    code: int | str | None = None
    """The provider's `statusCode`."""
    reason: str | None = None
    """The provider's `statusMessage`."""
    definition: str | None = None
    message_key: str | None = None
    contact_key: str | None = None
    phone: str | None = None
    provider_time: str | None = None
    """The provider's `timestamp` as it stood: Central Standard Time, always UTC-06:00."""
    provider: UnmappedFields = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class SendOverdueData(OverdueFields, SendData):
    """A message of Marketing Cloud that has not been sent for too long."""


class SMSSendEvent(Event):
    """One TransactionalSendEvent of an SMS."""

    channels = ("sms",)
    entity = "message"
    provider = "marketingcloud"
    data: SendData


class SMSNotSent(SMSSendEvent):
    """The message was not sent; the reason is in the data."""

    status = "not_sent"


class SMSSent(SMSSendEvent):
    """The message was sent for delivery."""

    status = "sent"


class SMSQueued(SMSSendEvent):
    """The SMS has not yet been processed for sending."""

    status = "queued"


class SMSOverdue(SMSSendEvent):
    """The message was not sent within `expect.final_within`."""

    status = OVERDUE
    data: SendOverdueData


class EmailSendEvent(Event):
    """One TransactionalSendEvent of an e-mail."""

    channels = ("email",)
    entity = "message"
    provider = "marketingcloud"
    data: SendData


class EmailNotSent(EmailSendEvent):
    """The e-mail was not sent; the reason is in the data."""

    status = "not_sent"


class EmailSent(EmailSendEvent):
    """The e-mail was sent for delivery."""

    status = "sent"


class EmailQueued(EmailSendEvent):
    """The e-mail has not yet been processed for sending."""

    status = "queued"


class EmailOverdue(EmailSendEvent):
    """The e-mail was not sent within `expect.final_within`."""

    status = OVERDUE
    data: SendOverdueData


EVENTS: tuple[type[Event], ...] = (
    SMSNotSent, SMSSent, SMSQueued, SMSOverdue, EmailNotSent, EmailSent, EmailQueued, EmailOverdue,
)  # fmt: skip
"""Every event of Marketing Cloud, in the order in which a reader wants them."""
