"""The events of Spacivox: voicemail drops, texts and e-mails."""

from __future__ import annotations

from pydantic import Field

from bridge.domain.event import Data, Event, UnmappedFields
from bridge.domain.overdue import OVERDUE, OverdueFields
from bridge.domain.times import Time


class DropData(Data):
    """One Spacivox record: a voicemail drop, a text or an e-mail."""

    phone: str | None = None
    campaign: int | str | None = None
    job: int | str | None = None
    team: int | str | None = None
    reference: str | None = None
    """The customer's own reference; unique within a campaign only."""
    state: int | str | None = None
    """The provider's own value."""
    timestamp: Time | None = None
    provider: UnmappedFields = Field(default_factory=dict)
    """Fields of the answer that no model knows."""


class DropOverdueData(OverdueFields, DropData):
    """One Spacivox record that has had no final status for too long."""


class VoicemailEvent(Event):
    """One voicemail drop moved."""

    channels = ("voicemail",)
    entity = "drop"
    provider = "spacivox"
    data: DropData


class VoicemailSent(VoicemailEvent):
    """State 0: sent, the first state of a drop."""

    status = "sent"


class VoicemailDelivered(VoicemailEvent):
    """State 1: delivered."""

    status = "delivered"


class VoicemailFailed(VoicemailEvent):
    """State 2: failed."""

    status = "failed"


class VoicemailRejected(VoicemailEvent):
    """State 3: rejected."""

    status = "rejected"


class VoicemailOverdue(VoicemailEvent):
    """The drop had no final status within `expect.final_within`."""

    status = OVERDUE
    data: DropOverdueData


class TextRecordEvent(Event):
    """One text record moved."""

    channels = ("sms",)
    entity = "text"
    provider = "spacivox"
    data: DropData


class TextRecordSent(TextRecordEvent):
    """State 0: sent, where a text starts."""

    status = "sent"


class TextRecordDelivered(TextRecordEvent):
    """State 1: delivered."""

    status = "delivered"


class TextRecordFailed(TextRecordEvent):
    """State 2: failed."""

    status = "failed"


class TextRecordRejected(TextRecordEvent):
    """State 3: rejected."""

    status = "rejected"


class TextRecordOverdue(TextRecordEvent):
    """The text had no final status within `expect.final_within`."""

    status = OVERDUE
    data: DropOverdueData


class EmailRecordEvent(Event):
    """One e-mail record moved."""

    channels = ("email",)
    entity = "message"
    provider = "spacivox"
    data: DropData


class EmailRecordSent(EmailRecordEvent):
    """State 0: sent, where an e-mail starts."""

    status = "sent"


class EmailRecordDelivered(EmailRecordEvent):
    """State 1: delivered."""

    status = "delivered"


class EmailRecordFailed(EmailRecordEvent):
    """State 2: failed."""

    status = "failed"


class EmailRecordRejected(EmailRecordEvent):
    """State 3: rejected."""

    status = "rejected"


class EmailRecordOverdue(EmailRecordEvent):
    """The e-mail had no final status within `expect.final_within`."""

    status = OVERDUE
    data: DropOverdueData


EVENTS: tuple[type[Event], ...] = (
    VoicemailSent, VoicemailDelivered, VoicemailFailed, VoicemailRejected, VoicemailOverdue,
    TextRecordSent, TextRecordDelivered, TextRecordFailed, TextRecordRejected, TextRecordOverdue,
    EmailRecordSent, EmailRecordDelivered, EmailRecordFailed, EmailRecordRejected, EmailRecordOverdue,
)  # fmt: skip
"""Every event of Spacivox, in the order in which a reader wants them."""
